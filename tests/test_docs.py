"""What the documentation says: its examples are run, what it prints from the code is there."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import typer
from sqlalchemy import URL

import db
from db import embedded, migrate
from db.diagram import diagram, states
from db.events.positions import number_all
from db.transitions import Transitions
from graph import cli
from graph.core.errors import RequestError
from graph.core.user_errors import USER_ERRORS
from graph.server.requests import HTTPError
from graph.settings import CLIENT_VARIABLES, Settings, table
from tests.conftest import People
from tests.event_streams import Asking, Events
from tests.pages import filled, renewed
from tests.processes import copied, place, stored, troupe, troupe_here
from tests.sockets import listening

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.name: page.read_text(encoding="utf-8") for page in PAGES}
LINKED = re.compile(r"\]\((?!https?:)([^)#]+)")


@dataclass
class Example:
    """An operation that a page shows, and what the page says that it answers."""

    query: str
    variables: dict[str, Any] = field(default_factory=dict)
    answer: str | None = None
    messages: list[str] = field(default_factory=list)
    """What the page's last subscription sends after the answer."""

    @property
    def is_subscription(self) -> bool:
        """Whether it is a subscription, whose answer is its first message."""
        return self.query.startswith("subscription")


def examples(page: str) -> list[Example]:
    """Every `graphql` block of a page, and every command with a body, with the `json` after it."""
    found: list[Example] = []
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        sent = re.search(r"-d '(\{.*\})'$", text.strip(), re.DOTALL)
        if language == "graphql":
            found.append(Example(text))
        elif sent is not None and "mutation" in sent[1]:
            body = json.loads(sent[1])
            found.append(Example(body["query"], body["variables"]))
        elif language == "json" and found and found[-1].answer is None:
            found[-1].answer = text
        elif language == "json" and any(each.is_subscription for each in found):
            found[-1].messages.append(text)
    return found


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if examples(text)])
async def test_every_example_answers_what_the_page_says(
    name: str, limited: People, database: db.Database
) -> None:
    # One after the other on one database, as somebody does who reads on.
    known: dict[str, str] = {}

    def compare(expected: str, found: Any) -> None:
        _learn(known, json.loads(expected), found)
        assert found == json.loads(_with(known, expected))

    async with listening(database) as server, AsyncExitStack() as stack:
        url = f"http://127.0.0.1:{server.port}"
        client = await stack.enter_async_context(Asking.of(url, limited.admin.token))
        for example in examples(TEXTS[name]):
            assert example.answer is not None, example.query
            await number_all(database)  # as the server does
            query = _with(known, example.query)
            if example.is_subscription:
                stream = await stack.enter_async_context(client.stream(query))
                compare(example.answer, await data_of(stream))
            else:
                answer = await limited.admin.ask(query, **example.variables)
                compare(example.answer, answer.body)
            await number_all(database)
            for message in example.messages:
                compare(message, await data_of(stream))


async def data_of(stream: Events) -> Any:
    """The data of the next event."""
    event = await stream.next()
    assert event is not None
    return event.data


def _with(known: dict[str, str], text: str) -> str:
    """A text with the ids that earlier answers had in the places of their names."""
    for name, value in known.items():
        text = text.replace(name, value)
    return text


def _learn(known: dict[str, str], expected: Any, found: Any) -> None:
    """Take the ids that an answer has where the page has a name, such as `<attempt>`."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in expected.keys() & found.keys():
            _learn(known, expected[key], found[key])
    elif isinstance(expected, list) and isinstance(found, list):
        for one, other in zip(expected, found, strict=False):
            _learn(known, one, other)
    elif isinstance(expected, str) and re.fullmatch("<[a-z]+>", expected):
        known.setdefault(expected, found)


def commands(page: str) -> list[tuple[str, str]]:
    """Every command of a page's `console` blocks, with what it prints."""
    blocks = re.findall(r"^```console\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    parts = [part for block in blocks for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [(command, output) for command, _, output in (part.partition("\n") for part in parts)]


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if commands(text)])
def test_every_command_prints_what_the_page_says(
    name: str, database_url: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = database_url.render_as_string(hide_password=False)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    changed = (
        (ROOT / "examples" / "plan.json")
        .read_text(encoding="utf-8")
        .replace("sensors", "instruments")
    )
    (tmp_path / "changed.json").write_text(changed, encoding="utf-8")
    said = ["Will it freeze?", "Yes.", "When?"]
    session = [
        {
            "type": "user",
            "sessionId": "s",
            "uuid": str(number),
            "timestamp": f"2026-03-01T22:38:4{number}Z",
            "message": {"role": "assistant" if number % 2 else "user", "content": text},
        }
        for number, text in enumerate(said)
    ]
    for file, records in (("session.jsonl", session[:2]), ("later.jsonl", session)):
        lines = "".join(f"{json.dumps(record)}\n" for record in records)
        (tmp_path / file).write_text(lines, encoding="utf-8")
    (tmp_path / ".vscode").mkdir()
    tasks = {"version": "2.0.0", "tasks": [{"label": "build", "command": "make"}]}
    text = json.dumps(tasks)
    (tmp_path / ".vscode" / "tasks.json").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for command, output in commands(TEXTS[name]):
        words = shlex.split(command)
        start = words.index("troupe")
        settings: dict[str, Any] = {"database_url": url}
        for word in words[:start]:
            variable, _, value = word.partition("=")
            settings[variable.removeprefix("TROUPE_").lower()] = value
        ended = troupe_here(*words[start + 1 :], **settings)
        assert ended.out + ended.err == output, command


def shell_commands(page: str) -> list[list[str]]:
    """The arguments of each `troupe` that a page runs in a shell, also in a container."""
    blocks = re.findall(r"^```(?:sh|console)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    before = r"(?:\$ |\w+=\S+ |time |docker compose run .*? |kubectl exec .*? -- )*(?:\S*/)?"
    found = (re.match(rf"{before}troupe( .*|)$", line) for line in lines)
    return [_arguments(match[1]) for match in found if match]


def _arguments(line: str) -> list[str]:
    words = shlex.shlex(line, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    return list(takewhile(lambda word: word[0] not in "|&;<>", words))


def mentioned(page: str) -> list[list[str]]:
    """The arguments of each `troupe …` that a page mentions in a sentence."""
    text = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    return [shlex.split(each) for each in re.findall(r"`troupe\s([^`]*)`", text)]


def command_of(words: list[str]) -> tuple[Any, list[str]]:
    """The command that these arguments of `troupe` call, and the rest of them."""
    command: Any = typer.main.get_command(cli.app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    if words and "file" in getattr(command, "commands", {}):  # as `troupe import FILE`
        command = command.commands["file"]
    return command, words


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if shell_commands(text)])
def test_every_command_of_a_page_has_the_arguments_that_it_needs(name: str) -> None:
    for words in shell_commands(TEXTS[name]):
        command, rest = command_of(words)
        try:
            command.make_context("troupe", [*rest])
        except Exception as error:
            pytest.fail(f"troupe {shlex.join(words)}: {error}", pytrace=False)


@pytest.mark.parametrize("name", [name for name, text in TEXTS.items() if mentioned(text)])
def test_every_command_that_is_mentioned_has_these_options(name: str) -> None:
    for words in mentioned(TEXTS[name]):
        command, rest = command_of(words)
        options = {option for parameter in command.params for option in parameter.opts}
        takes_all = command.context_settings.get("ignore_unknown_options", False)
        is_group = hasattr(command, "commands")
        for word in rest:
            if word.startswith("-") and not takes_all:
                assert word in options | {"-h", "--help"}, words
            else:
                assert not is_group, f"troupe {' '.join(words)} is no command"


def test_the_pages_with_examples_are_found() -> None:
    assert len(examples(TEXTS["README.md"])) == 1
    assert len(examples(TEXTS["api.md"])) > 10
    assert len(commands(TEXTS["importing.md"])) == 8
    assert len([each for text in TEXTS.values() for each in shell_commands(text)]) > 20
    assert len([each for text in TEXTS.values() for each in mentioned(text)]) > 40


def test_a_migration_is_tried_on_a_copy_as_the_page_says(
    made: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```$", TEXTS["models.md"], re.MULTILINE | re.DOTALL)
    lines = [shlex.split(line) for line in "".join(blocks).splitlines()]
    dump, restore, before, migration, look, serve = (
        line[line.index("troupe") + 1 :] for line in lines if "troupe" in line
    )
    monkeypatch.chdir(tmp_path)
    with place() as folder:
        copied(made[0], folder / "production")
        with embedded.running(folder / "production") as server:
            asyncio.run(migrate.downgrade(server.url, "-1"))
        assert troupe(*dump, data_dir=folder / "production").clean
        copy = {"data_dir": folder / "copy"}
        assert troupe(*restore, **copy).clean
        (older,) = re.findall(r"^ (\d{4})$", troupe(*before, **copy).printed, re.MULTILINE)
        assert int(older) == int(migrate.head() or 0) - 1
        head = f"The database is at the migration {migrate.head()}.\n"
        assert troupe(*migration, **copy).printed == head
        assert 'Table "public.projects"' in troupe(*look, **copy).printed
        assert stored(folder / "copy", "SELECT name FROM access_tokens") == "test"
    assert serve == ["serve"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for path in LINKED.findall(TEXTS[page.name]):
        assert (page.parent / path).exists(), path


def test_every_code_of_an_error_is_explained() -> None:
    page = TEXTS["api.md"]
    codes = {error.code for error in RequestError.__subclasses__()}
    codes |= {error.code for error in db.errors.DomainError.__subclasses__()}
    codes |= set(HTTPError.CODES.values())
    assert not [code for code in codes if f"`{code}`" not in page]
    assert not [kind.__name__ for kind in USER_ERRORS if f"`{kind.__name__}`" not in page]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_is_named_is_one(page: Path) -> None:
    named = set(re.findall(r"TROUPE_[A-Z_]+", TEXTS[page.name]))
    settings = {f"TROUPE_{name.upper()}" for name in Settings.model_fields}
    assert named <= settings | CLIENT_VARIABLES | {"TROUPE_PROT"}  # which a page has mistyped


def test_every_setting_says_what_it_means() -> None:
    for name, setting in Settings.model_fields.items():
        assert setting.description, name
        assert f"| `TROUPE_{name.upper()}` |" in table()


def test_the_picture_shows_every_entity_and_every_foreign_key() -> None:
    drawn = diagram()
    keys = 0
    for mapper in db.Base.registry.mappers:
        if mapper.inherits is None:
            assert f"    {mapper.class_.__name__} {{\n" in drawn
            keys += len(mapper.local_table.foreign_key_constraints)  # type: ignore[attr-defined]
    assert drawn.count(" : ") == keys
    assert '    Project ||--o{ Task : ""\n' in drawn
    assert '    Agent |o..o{ Task : "created by agent"\n' in drawn
    assert "        uuid dependent_id PK, FK\n" in drawn
    assert "        str username UK\n" in drawn


class Lamp(StrEnum):
    """The states of a lamp."""

    OFF = "OFF"
    ON = "ON"
    DIM = "DIM"
    BROKEN = "BROKEN"


LAMP = Transitions(
    "lamp",
    {
        Lamp.OFF: {Lamp.ON, Lamp.DIM},
        Lamp.ON: {Lamp.OFF, Lamp.DIM, Lamp.BROKEN},
        Lamp.DIM: {Lamp.OFF, Lamp.BROKEN},
        Lamp.BROKEN: set(),
    },
)


def test_a_state_machine_has_an_arrow_for_each_transition() -> None:
    assert (
        states(LAMP)
        == """\
stateDiagram-v2
    [*] --> OFF
    OFF --> ON
    OFF --> DIM
    ON --> OFF
    ON --> DIM
    ON --> BROKEN
    DIM --> OFF
    DIM --> BROKEN
    BROKEN --> [*]
"""
    )


def test_arrows_that_all_states_of_a_group_have_are_drawn_once() -> None:
    assert (
        states(LAMP, gives_light={Lamp.DIM, Lamp.ON})
        == """\
stateDiagram-v2
    state "gives light" as gives_light {
        ON
        DIM
        ON --> DIM
    }
    [*] --> OFF
    BROKEN --> [*]
    gives_light --> OFF
    gives_light --> BROKEN
    OFF --> gives_light
"""
    )
    # From BROKEN, nothing leads to OFF: so no arrow does from the group.
    assert "    ON --> OFF\n" in states(LAMP, any={Lamp.ON, Lamp.DIM, Lamp.BROKEN})


def test_every_state_machine_is_shown() -> None:
    shown = "".join(TEXTS.values())
    machines = {mapper.class_ for mapper in db.Base.registry.mappers}
    for name in {kind.transitions.noun for kind in machines if hasattr(kind, "transitions")}:
        assert f"<!-- {name} -->\n\n```mermaid\nstateDiagram-v2\n" in shown, name
    assert "<!-- task -->\n\n```mermaid\nstateDiagram-v2\n" in shown


def test_what_is_printed_goes_between_its_marks() -> None:
    page = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n"
    new = filled(page, "x", r"new \1")
    assert new == "a\n<!-- x -->\n\nnew \\1\n<!-- /x -->\nb\n"
    assert filled(new, "x", r"new \1") == new
    with pytest.raises(ValueError, match="<!-- y -->"):
        filled(page, "y", "new")


def test_what_is_printed_is_as_the_code_prints_it() -> None:
    for page, text in renewed().items():
        assert (ROOT / page).read_text(encoding="utf-8") == text, f"{page}: run `make docs`"
