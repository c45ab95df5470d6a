"""The values of options: what is accepted, and the sentence for what is not."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum
from typing import TypeVar

import typer

Choice = TypeVar("Choice", bound=StrEnum)


UNLIMITED = 2**63 - 1


def whole_number(least: int, most: int = UNLIMITED) -> Callable[[str | int], int]:
    """A parser for whole numbers of a range."""

    def parse(value: str | int) -> int:
        if re.fullmatch(r"-?[0-9]{1,19}", str(value)) and least <= int(value) <= most:
            return int(value)
        bounds = f"from {least} to {most}" if most < UNLIMITED else f"of {least} or more"
        raise typer.BadParameter(f"write a whole number {bounds}")

    return parse


def one_of(choices: type[Choice]) -> Callable[[str], Choice]:
    """A parser for the values of an enum, without regard to case."""

    def parse(value: str) -> Choice:
        try:
            return choices(value.lower())
        except ValueError:
            raise typer.BadParameter(f"write one of {', '.join(choices)}") from None

    return parse
