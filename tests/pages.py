"""What the documentation prints from the code: `python -m tests.pages` does it, as `make docs`.

In a page it stands between `<!-- name -->` and `<!-- /name -->`, and nobody edits it there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import db.diagram
from db import AGENTS, ROLES, MemberRole, Right, TaskStatus, boards
from db.scopes import visible_to
from db.tasks import TASK_TRANSITIONS
from graph import settings
from graph.core.rights import rights_of
from graph.metrics import exposition
from graph.schema import schema
from tests import private_interfaces

ROOT = Path(__file__).parents[1]


def _diagram() -> str:
    return f"```mermaid\n{db.diagram.diagram()}```\n"


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


PRINTED: list[tuple[str, str, Callable[[], str]]] = [
    ("README.md", "diagram", _diagram),
    ("docs/configuration.md", "settings", settings.table),
    ("docs/observability.md", "metrics", exposition.table),
    ("docs/access.md", "rights", _rights),
    ("docs/access.md", "sight", _sight),
    ("docs/tasks.md", "statuses", _statuses),
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
