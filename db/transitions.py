"""State machines: a table of transitions, used by checks, tests and documentation."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Generic, Self, TypeVar

from db.errors import IllegalTransition, Path

State = TypeVar("State", bound=StrEnum)


class Transitions(Generic[State]):
    """The states that may follow each state."""

    def __init__(self, noun: str, table: Mapping[State, frozenset[State] | set[State]]) -> None:
        self.noun = noun
        self.table = table

    @classmethod
    def once(cls, noun: str, first: State) -> Self:
        """The first state can become each of the others, which are final."""
        others = set(type(first)) - {first}
        return cls(noun, {state: others if state is first else set() for state in type(first)})

    @property
    def final(self) -> set[State]:
        """The states that no other follows."""
        return {state for state, following in self.table.items() if not following}

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
