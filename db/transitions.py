"""State machines: a table of transitions, used by checks, tests and documentation."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Generic, TypeVar

from db.errors import IllegalTransition, Path

State = TypeVar("State", bound=StrEnum)


class Transitions(Generic[State]):
    """The states that may follow each state."""

    def __init__(self, noun: str, table: Mapping[State, frozenset[State] | set[State]]) -> None:
        self.noun = noun
        self.table = table

    def allowed(self, current: State) -> list[State]:
        """The states that may follow this one, in the order of the enum."""
        return [state for state in type(current) if state in self.table[current]]

    def check(self, current: State, to: State, at: Path = ("to",)) -> None:
        """Raise IllegalTransition unless `to` may follow `current`.

        `at` is the place in the input of what asks for the new state.
        """
        allowed = self.allowed(current)
        if to not in allowed:
            raise IllegalTransition(self.noun, current, to, allowed, at)
