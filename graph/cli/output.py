"""What commands print: tables and details for people, JSON for programs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

GAP = "  "
NARROWEST = 8
"""Columns of a table are not made narrower than this to fit the terminal."""
WHOLE = ("ID", "TOKEN")
"""The columns that are never cut."""


def print_note(message: str) -> None:
    """Print a message on standard error."""
    print(f"troupe: {message}", file=sys.stderr)


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json_text(value))


def json_text(value: Any) -> str:
    """A value as indented JSON."""
    import orjson

    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], numbers: Sequence[str] = ()
) -> None:
    """Print rows below the names of the columns, with those of `numbers` to the right.

    In a terminal, the widest columns are cut so that a row fits on a line, except ids, which are
    arguments of other commands.
    """
    from rich.cells import cell_len

    lines = [[*columns], *([printable(value) for value in row] for row in rows)]
    widths = [max(cell_len(line[place]) for line in lines) for place in range(len(columns))]
    if sys.stdout.isatty():
        cut = [place for place, name in enumerate(columns) if name not in WHOLE]
        _narrow(widths, cut, shutil.get_terminal_size().columns)
    for line in lines:
        cells = (
            _cell(text, width, to_right=name in numbers)
            for name, text, width in zip(columns, line, widths, strict=True)
        )
        print(GAP.join(cells).rstrip())


def _narrow(widths: list[int], cut: Sequence[int], room: int) -> None:
    while sum(widths) + len(GAP) * (len(widths) - 1) > room:
        widest = max(cut, key=widths.__getitem__)
        if widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1


def _cell(text: str, width: int, *, to_right: bool) -> str:
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) > width:
        text = set_cell_size(text, width - 1) + "…"
    space = " " * (width - cell_len(text))
    return space + text if to_right else text + space


def print_details(details: Sequence[tuple[str, object]]) -> None:
    """Print names with their values below each other; those without a value are left out."""
    print(details_text(details))


def details_text(details: Sequence[tuple[str, object]]) -> str:
    """Names with their values below each other, without those that have no value."""
    shown = [(name, value) for name, value in details if value not in (None, "", [])]
    width = max((len(name) for name, _ in shown), default=0) + 1
    lines = []
    for name, value in shown:
        texts = [printable(each) for each in (value if isinstance(value, list) else [value])]
        lines += [
            f"{f'{name}:' if not place else '':{width}} {text}" for place, text in enumerate(texts)
        ]
    return "\n".join(lines)


def printable(value: object) -> str:
    """A value as text on one line, without characters that control a terminal."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "".join(each if each.isprintable() else " " for each in str(value))


def escaped(text: str) -> str:
    """A text, such as a line of JSON, with the codes of characters that control a terminal."""
    return "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in text)


def moment(value: str | None) -> str | None:
    """A point in time, to the second, in UTC."""
    return None if value is None else f"{value[:10]} {value[11:19]}Z"


def money(value: str) -> str:
    """An amount of US dollars, to the hundredth of a cent."""
    return f"{Decimal(value):,.4f}"


def bare_id(value: str) -> str:
    """The key in a global id, which is shorter and which commands and the API take as well."""
    from graph.core.ids import parse_global_id

    parsed = parse_global_id(value)
    return value if parsed is None else parsed[1]
