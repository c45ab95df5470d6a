"""Files to be imported: read as a stream of JSON, with limits and clear errors.

`ijson` parses the bytes into events; the values of one project or one conversation at a time are
built from the events, so that the file is never in memory as a whole. A file is read twice: first
to find all its errors, and then to import it.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import isinf
from pathlib import Path
from typing import Any, BinaryIO

import ijson  # type: ignore[import-untyped]
import orjson
from sqlalchemy.exc import DBAPIError, IntegrityError

from db import constraints
from db.imports.report import Report
from db.moments import FIRST, LAST, read_moment
from db.text import MAX_DIGITS, decimal_json, has_too_many_digits, require_storable

MAX_BYTES = 100_000_000
# A hundred million brackets would fill gigabytes of memory.
MAX_DEPTH = 100
MAX_VALUES = 500_000

CHUNK = 1 << 16

Event = tuple[str, Any]
Progress = Callable[[int, int], None]


class NotImportable(Exception):
    """The file, or a part of it, cannot be imported; the message says what, where and why."""


class Empty(NotImportable):
    """There is nothing in the file to be imported."""


class CutOff(NotImportable):
    """The file ends in the middle of a value."""


def no_progress(done: int, total: int) -> None:
    """Report no progress."""


def shown(text: str) -> str:
    """A text from a file for a message: shortened, and without control characters."""
    text = text.replace(HALF, "\ufffd")
    text = text if len(text) <= 60 else f"{text[:60]}…"
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def quoted(text: str) -> str:
    """A text from a file in quotation marks."""
    return f'"{shown(text)}"'


def kind(value: object) -> str:
    """The type of a JSON value, in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "a truth value"
        case str():
            return "a text"
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return "a number"


def as_json(value: Any) -> orjson.Fragment:
    """A value of a file as JSON to store, with every digit of its numbers."""
    # The bytes that `orjson` returns have several times the memory that they need.
    return orjson.Fragment(orjson.dumps(value, default=decimal_json).decode())


def refuse_unstorable(value: Any, place: str) -> None:
    """Raise NotImportable for a value with a text that PostgreSQL cannot store."""
    if _problem(value) is None:
        return
    for path, text in _texts(value):
        # The reader has replaced lone surrogates by HALF; the message is that for a surrogate.
        problem = _problem("\ud800" if HALF in text else text)
        if problem is not None:
            at = f", at {shown(path.removeprefix('.'))}" if path else ""
            raise NotImportable(f"{place}{at}: {problem}.")


def _problem(value: Any) -> str | None:
    try:
        require_storable(value)
    except ValueError as error:
        return str(error)
    return None


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The texts and keys in a value, each with its path, such as .parts[0].text."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield f"{path}.{key}", key
            yield from _texts(item, f"{path}.{key}")
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _texts(item, f"{path}[{number}]")


def refuse_bad_name(name: str, what: str, length: int = 255) -> None:
    """Raise NotImportable for a name that is empty, too long or cannot be stored."""
    if not name.strip():
        raise NotImportable(f"The {what} needs a name.")
    if len(name) > length:
        raise NotImportable(
            f"The name of the {what} has {len(name)} characters, and {length} are the most:"
            f" {quoted(name)}."
        )
    refuse_unstorable(name, f"The name of the {what}")


NOT_A_TIME = "is not a point in time that can be read"
WITHOUT_ZONE = "names no time zone and was taken as UTC"
SHORTENED = "has more than six digits of a second, of which six were kept"

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Such as 1740909660. Eight digits are a date such as 20250302, and fewer are a duration.
FIRST_SECOND = 100_000_000
EPOCH_TEXT = re.compile(r"-?\d{9,}([.]\d*)?", re.ASCII)
BELOW_MICROSECONDS = re.compile(r"[.,]\d{6}\d*[1-9]", re.ASCII)


def moment(value: object) -> tuple[datetime | None, str]:
    """Parse a point in time in ISO 8601, or in seconds or milliseconds since 1970, or return None.

    The second value is a note for the report, to follow the name of the key; it is empty if the
    time is exact. A time without a time zone is read as UTC, which most programs mean. The first
    year and the last possible microsecond are what Go and .NET write for a missing time.
    """
    try:
        if isinstance(value, str) and not EPOCH_TEXT.fullmatch(value.strip()):
            written = value.strip()
            time = read_moment(written) or datetime.fromisoformat(written)
            notes = [] if time.tzinfo else [WITHOUT_ZONE]
            notes += [SHORTENED] if BELOW_MICROSECONDS.search(written) else []
            time = (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
        elif isinstance(value, int | Decimal | str) and not isinstance(value, bool):
            number = Decimal(value)
            if abs(number) < FIRST_SECOND:
                return None, NOT_A_TIME
            # Seconds reach this number in the year 5138, milliseconds reached it in 1973.
            microseconds = number * (1_000 if number > 100_000_000_000 else 1_000_000)
            time = EPOCH + timedelta(microseconds=int(microseconds))
            notes = [] if microseconds == int(microseconds) else [SHORTENED]
        else:
            return None, NOT_A_TIME
    except (ValueError, OverflowError):
        return None, NOT_A_TIME
    if time.year == FIRST.year or time == LAST:
        return None, f"is {shown(str(value))}, which stands for no time"
    return time, " and ".join(notes)


def _legible(path: Path | str) -> str:
    """A path as a text that can be printed and stored, even if it is not UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")


def folder_name(path: Path, standard: tuple[str, ...] = ()) -> str:
    """The name of a file's folder, or in the root folder that of the file itself.

    For a file at the standard path of a program, it is the folder that this path begins in.
    """
    absolute = Path(os.path.abspath(path))
    above = len(standard) if standard and absolute.parts[-len(standard) :] == standard else 1
    return _legible(absolute.parents[above - 1].name or path.stem)


@contextmanager
def opened(path: Path, progress: Progress = no_progress) -> Iterator[Source]:
    """Open a file, to be read twice. Raises NotImportable if it is not a regular, readable file."""
    name = _legible(path)
    try:
        # Opening a pipe would wait for a writer.
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise NotImportable(f"{name} is a directory, not a file.")
        if not stat.S_ISREG(mode):
            raise NotImportable(f"{name} is not a regular file.")
        handle = path.open("rb")
    except FileNotFoundError:
        raise NotImportable(f"There is no file {name}.") from None
    except PermissionError:
        raise NotImportable(f"{name} may not be read: permission denied.") from None
    except (OSError, ValueError) as error:
        raise NotImportable(f"{name} cannot be read: {error}.") from None
    with handle:
        yield Source(path, handle, progress)


@contextmanager
def storing(place: str) -> Iterator[None]:
    """Raise NotImportable if PostgreSQL refuses a value."""
    try:
        yield
    except IntegrityError as error:
        known = constraints.violation(error)
        if known is None:
            raise
        raise NotImportable(f"{place}: it cannot be stored: {str(known).rstrip('.')}.") from error
    except DBAPIError as error:
        code = str(getattr(error.orig, "sqlstate", ""))
        # 22: data exceptions; 54: program limits exceeded
        if code[:2] not in ("22", "54"):
            raise
        raise NotImportable(f"{place}: it cannot be stored: {error.orig}.") from error


# How files begin that gzip and ZIP have compressed, such as an export of ChatGPT as it is sent.
COMPRESSED = (b"\x1f\x8b", b"PK\x03\x04")


class Source:
    """An open file as a stream of JSON events."""

    def __init__(self, path: Path, handle: BinaryIO, progress: Progress) -> None:
        self.path = path
        self.name = name = _legible(path)
        self.file = _legible(path.name)
        self.has_mark = False
        self._handle = handle
        self._progress = progress
        self._read_before = 0
        self._done = 0
        self._version = self._stat()
        size = self._version[0]
        if size > MAX_BYTES:
            raise NotImportable(
                f"{name} has {size / 1e6:,.1f} MB, and {MAX_BYTES / 1e6:.0f} MB are the most that"
                " is imported at once. Split it into smaller files and import them one by one."
            )

    def _stat(self) -> tuple[int, int]:
        """The size and the time of the last change."""
        found = os.fstat(self._handle.fileno())
        return found.st_size, found.st_mtime_ns

    def refuse_change(self) -> None:
        """Raise NotImportable if the file was changed since it was opened."""
        if self._stat() != self._version:
            raise NotImportable(f"{self.name} was changed while it was being imported.")

    def events(self) -> Iterator[Event]:
        """The events of the file, from its beginning. Raises NotImportable if it is not JSON."""
        events = ijson.sendable_list()
        parser = _parser(events)
        number = -1
        any_event = False
        for number, chunk in enumerate(self._chunks()):
            try:
                parser.send(chunk)
            except ijson.JSONError as error:
                raise NotImportable(
                    f"{self.name} is not JSON: {_reason(error)}, at {self._where(number)}."
                ) from None
            except (ValueError, ArithmeticError, SystemError):
                # The events must not be used: the one of the number is incomplete.
                raise NotImportable(
                    f"{self.name} has a number with more than {MAX_DIGITS:,} digits at"
                    f" {self._where(number)}."
                ) from None
            total = 2 * self._version[0]
            self._progress(min(self._read_before + self._done, total), total)
            any_event = any_event or bool(events)
            yield from events
            del events[:]
        try:
            parser.close()
        except ijson.JSONError:
            if not any_event and not self._has_text():
                raise Empty(f"{self.name} is empty.") from None
            raise CutOff(
                f"{self.name} is cut off: it ends in the middle, at {self._where(number + 1)}."
            ) from None
        yield from events

    def _chunks(self) -> Iterator[bytes]:
        """The bytes of the file, checked to be UTF-8, with lone surrogates replaced by HALF."""
        decoder = codecs.getincrementaldecoder("utf-8")()
        done, line, rest = 0, 1, b""
        self._handle.seek(0)
        while True:
            try:
                data = self._handle.read(CHUNK)
            except OSError as error:
                raise NotImportable(f"{self.name} cannot be read: {error.strerror}.") from None
            if done == 0:
                if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                    raise NotImportable(f"{self.name} is UTF-16; save it as UTF-8.")
                if data.startswith(COMPRESSED):
                    raise NotImportable(f"{self.name} is compressed; unpack it first.")
                self.has_mark = data.startswith(codecs.BOM_UTF8)
            try:
                decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                if not data:
                    raise NotImportable(
                        f"{self.name} is cut off: it ends in the middle of a character."
                    ) from None
                line += error.object[: error.start].count(b"\n")
                raise NotImportable(
                    f"{self.name} is not UTF-8: line {line} has the byte"
                    f" 0x{error.object[error.start]:02x}; save it as UTF-8."
                ) from None
            line += data.count(b"\n")
            mark = len(codecs.BOM_UTF8) if done == 0 and self.has_mark else 0
            done += len(data)
            self._done = done
            if done > MAX_BYTES:
                self.refuse_change()
            whole, rest = _between_escapes(rest + data[mark:])
            if not data:
                whole, rest = whole + rest, b""
            if whole:
                yield _mark_halves(whole)
            if not data:
                return

    def second_pass(self) -> None:
        """Start the second half of the progress."""
        self._read_before = self._version[0]

    def finish(self) -> None:
        """Report that the import is complete."""
        self._progress(2 * self._version[0], 2 * self._version[0])

    def begins(self) -> bytes:
        """The first character of the file that is no space; nothing if it is empty."""
        return next((text[:1] for chunk in self._chunks() if (text := chunk.strip())), b"")

    def _has_text(self) -> bool:
        return self.begins() != b""

    def _where(self, number: int) -> str:
        """The line and column of the syntax error in this chunk, or of its end."""
        parser = _parser(ijson.sendable_list())
        line, column = 1, 0
        for index, chunk in enumerate(self._chunks()):
            if index == number:
                for end in range(1, len(chunk) + 1):
                    try:
                        parser.send(chunk[end - 1 : end])
                    except Exception:
                        chunk = chunk[:end]
                        break
            else:
                parser.send(chunk)
            line += chunk.count(b"\n")
            _, newline, tail = chunk.rpartition(b"\n")
            column = (0 if newline else column) + len(tail.decode(errors="ignore"))
            if index == number:
                break
        return f"line {line:,}, column {max(column, 1):,}"


def _parser(events: Any) -> Any:
    return ijson.basic_parse_coro(events, use_float=False, multiple_values=True)


def _reason(error: Exception) -> str:
    """The message of the parser, without the lines that point at the place."""
    text = error.args[0]
    text = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
    return text.splitlines()[0].partition(": ")[2].rstrip(".")


# An escape in a JSON string: a surrogate pair, a lone surrogate, or anything else.
ESCAPE = re.compile(
    rb"\\(?:(?P<pair>u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    rb"|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
FIRST_HALF = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}")
UNICODE_ESCAPE = len(rb"\ud83d")

# yajl turns a lone surrogate into a question mark or another character. It is replaced by this
# before: a NUL, which is refused anyway, and a noncharacter.
HALF = "\0\ufdd0"
HALF_ESCAPED = rb"\u0000\ufdd0"


def _mark_halves(data: bytes) -> bytes:
    if rb"\ud" not in data and rb"\uD" not in data:
        return data
    return ESCAPE.sub(lambda match: HALF_ESCAPED if match["half"] else match[0], data)


def _between_escapes(data: bytes) -> tuple[bytes, bytes]:
    """Split the data before an escape that continues in the next chunk."""
    end = len(data)
    last = data.rfind(b"\\", max(end - UNICODE_ESCAPE + 1, 0))
    if last >= 0 and _begins_escape(data, last) and data[last + 1 : last + 2] in (b"", b"u"):
        end = last
    start = end - UNICODE_ESCAPE
    if start >= 0 and FIRST_HALF.match(data, start) and _begins_escape(data, start):
        end = start
    return data[:end], data[end:]


def _begins_escape(data: bytes, place: int) -> bool:
    """Whether the backslash at this place begins an escape, and is not itself escaped."""
    before = data[:place]
    return (len(before) - len(before.rstrip(b"\\"))) % 2 == 0


def read_value(events: Iterator[Event], first: Event, place: str, report: Report) -> Any:
    """The value that begins with this event. Raises NotImportable if it exceeds a limit."""
    event, value = first
    if event == "number":
        return _number(value, place, [], report)
    if event not in ("start_map", "start_array"):
        return value
    root: Any = {} if event == "start_map" else []
    stack: list[Any] = [root]
    key = ""
    keys: dict[str, str] = {}
    count = 0
    for event, value in events:
        if event == "map_key":
            # The same few keys are repeated: one copy of each is enough.
            key = keys.setdefault(value, value)
            if key in stack[-1]:
                at = _at(stack[:-1])
                report.leave_out(
                    f"{quoted(key)} stands there twice{at}, and only the last was taken.", place
                )
            continue
        if event in ("end_map", "end_array"):
            stack.pop()
            if not stack:
                return root
            continue
        count += 1
        if count > MAX_VALUES:
            raise NotImportable(f"{place}: it has more than {MAX_VALUES:,} values; split it.")
        container = stack[-1]
        if event == "start_map":
            value = {}
        elif event == "start_array":
            value = []
        if type(container) is list:
            container.append(value)
        else:
            container[key] = value
        if event == "number":
            exact = _number(value, place, stack, report)
            if exact is not value:
                container[-1 if type(container) is list else key] = exact
        elif event in ("start_map", "start_array"):
            if len(stack) == MAX_DEPTH:
                raise NotImportable(
                    f"{place}: it is nested more than {MAX_DEPTH} levels deep, at {_path(stack)}."
                )
            stack.append(value)
    raise AssertionError("The parser accepted an incomplete value.")


def _number(value: int | Decimal, place: str, stack: list[Any], report: Report) -> int | Decimal:
    """The number in a form that keeps every digit when it is stored."""
    if isinstance(value, int):
        if -(2**63) <= value < 2**64:
            return value
        # `orjson` writes no larger integers, so they are written as Decimal.
        value = Decimal(value)
    if has_too_many_digits(value):
        raise NotImportable(
            f"{place}: it has a number with more than {MAX_DIGITS:,} digits{_at(stack)}."
        )
    if isinf(float(value)):
        # PostgreSQL can store it, but most JSON parsers cannot read it.
        raise NotImportable(f"{place}: it has a number beyond 1.8e308{_at(stack)}.")
    if value.is_zero() and value.is_signed():
        report.change(f"the number {value}{_at(stack)} is stored without its sign.", place)
    return value


def _at(stack: list[Any]) -> str:
    return f" at {_path(stack)}" if stack else ""


def _path(stack: list[Any]) -> str:
    """The path of the value that was read last, such as tasks[2].subtasks[0].estimate."""
    steps = [
        f"[{len(container) - 1}]"
        if isinstance(container, list)
        else f".{next(reversed(container))}"
        for container in stack[:12]
    ]
    return shown("".join(steps).removeprefix("."))
