"""What the documentation prints from the code: `python -m tests.pages` does it, as `make docs`.

In a page it stands between `<!-- name -->` and `<!-- /name -->`, and nobody edits it there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import typer

import db
from db import AGENTS, ROLES, AgentStatus, MemberRole, Right, TaskStatus, boards
from db.agents import END
from db.diagram import diagram, states
from db.scopes import visible_to
from db.tasks import ENDED, TASK_TRANSITIONS, TO_DO
from db.transitions import Transitions
from graph import cli, settings
from graph.core.rights import rights_of
from graph.mcp.schemas import input_schema
from graph.mcp.tools import TOOLS
from graph.metrics import exposition
from graph.schema import schema
from tests import private_interfaces

ROOT = Path(__file__).parents[1]


def _entities() -> str:
    return f"```mermaid\n{diagram()}```\n"


def _states(transitions: Transitions[Any], **groups: Collection[Any]) -> Callable[[], str]:
    """What prints the picture of a state machine, with groups of states in frames."""
    return lambda: f"```mermaid\n{states(transitions, **groups)}```\n"


def _rights() -> str:
    """Which mutation takes which right, and who has it, as a table of Markdown."""
    heads = ["mutation", "right", *(role.value.lower() for role in MemberRole), "agent", "any user"]
    rows = [heads, ["---"] * len(heads)]
    for name, right in rights_of(schema).items():
        of_roles = [right in ROLES[role] for role in MemberRole]
        of_all = [right in AGENTS, right is Right.USE]
        if right is None:
            of_roles, of_all = [True] * len(of_roles), [True, True]
        marks = ["yes" if has else "" for has in (*of_roles, *of_all)]
        rows.append([f"`{name}`", "none" if right is None else right.value, *marks])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _sight() -> str:
    """Which type is seen by whom, as a table of Markdown."""
    rows = [("type", "seen by"), ("---", "---")]
    rows += sorted((f"`{model}`", who) for model, who in visible_to.items())
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _statuses() -> str:
    """Which status of a task may follow which, as a table of Markdown."""
    rows: list[tuple[str, ...]] = [("from", "to", "by hand to"), ("---", "---", "---")]
    for status in TaskStatus:
        tables = (TASK_TRANSITIONS, boards.BY_HAND)
        rows.append((status, *(", ".join(table.allowed(status)) for table in tables)))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _source(language: str, path: str) -> Callable[[], str]:
    """What shows an example, which tests run, without its heading."""

    def shown() -> str:
        _, _, text = (ROOT / path).read_text(encoding="utf-8").partition("\n\n")
        return f"```{language}\n{text}```\n"

    return shown


ATTEMPT, REQUEST = db.TaskAttempt.transitions, db.HumanInteraction.transitions


def _tools() -> str:
    """The tools of the Model Context Protocol, as a table of Markdown."""
    rows: list[tuple[str, ...]] = [("tool", "when", "arguments"), ("---", "---", "---")]
    for tool in TOOLS:
        arguments = input_schema(schema._schema, tool)
        names = [
            f"**`{name}`**" if name in arguments["required"] else f"`{name}`"
            for name in arguments["properties"]
        ]
        rows.append((f"`{tool.name}`", tool.when, ", ".join(names)))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _commands() -> str:
    """The commands of `troupe` with their options, as a table of Markdown."""
    rows = [("command", "what it does", "options"), ("---", "---", "---")]
    for path, command in sorted(commands(typer.main.get_command(cli.app))):
        words, options = ["troupe", path], []
        for parameter in command.params:
            name = parameter.opts[0]
            if not name.startswith("-"):
                words.append(parameter.metavar if parameter.required else f"[{parameter.metavar}]")
            else:
                value = "" if parameter.is_flag else f" {parameter.metavar}"
                options.append(f"`{name}{value}`")
        purpose, _, _ = " ".join(command.help.split()).partition(". ")
        rows.append((f"`{' '.join(words)}`", purpose.rstrip("."), ", ".join(options)))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def commands(command: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The commands below a command, with their names."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, child in command.commands.items():
        yield from commands(child, f"{path} {name}".strip())


PRINTED: list[tuple[str, str, Callable[[], str]]] = [
    ("docs/cli.md", "commands", _commands),
    ("README.md", "small_worker.py", _source("python", "examples/small_worker.py")),
    ("README.md", "small_worker.ts", _source("ts", "examples/small_worker.ts")),
    ("docs/models.md", "entities", _entities),
    ("docs/models.md", "tool", _states(db.Tool.transitions)),
    ("docs/clients.md", "codegen", _source("js", "examples/codegen.mjs")),
    ("docs/configuration.md", "settings", settings.table),
    ("docs/observability.md", "metrics", exposition.table),
    ("docs/access.md", "rights", _rights),
    ("docs/access.md", "sight", _sight),
    ("docs/tasks.md", "task", _states(TASK_TRANSITIONS, to_do=TO_DO, ended=ENDED)),
    ("docs/tasks.md", "statuses", _statuses),
    ("docs/work.md", "project", _states(db.Project.transitions)),
    ("docs/work.md", "agent", _states(db.Agent.transitions, alive=set(AgentStatus) - END)),
    ("docs/work.md", "attempt", _states(ATTEMPT, ended=ATTEMPT.final)),
    ("docs/people.md", "request", _states(REQUEST, ended=REQUEST.final)),
    ("docs/people.md", "communication", _states(db.Communication.transitions)),
    ("docs/mcp.md", "tools", _tools),
    ("docs/decisions.md", "private", private_interfaces.table),
]


def renewed() -> dict[str, str]:
    """The pages as they should be, by their paths."""
    texts: dict[str, str] = {}
    for page, name, printed in PRINTED:
        text = texts.get(page) or (ROOT / page).read_text(encoding="utf-8")
        texts[page] = filled(text, name, printed())
    return texts


def filled(page: str, name: str, text: str) -> str:
    """A page with a text in the place of this name. Raises ValueError if it has none."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    place = re.compile(f"^{begin}$.*^{end}$", re.MULTILINE | re.DOTALL)
    if not place.search(page):
        raise ValueError(f"the page has no lines {begin} and {end}")
    return place.sub(lambda _: f"{begin}\n\n{text}\n{end}", page)


if __name__ == "__main__":
    for path, text in renewed().items():
        (ROOT / path).write_text(text, encoding="utf-8")
