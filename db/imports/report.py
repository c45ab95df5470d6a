"""What an import says about itself when it is done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

SINGULAR = {
    "projects": "project",
    "tasks": "task",
    "dependencies": "dependency",
    "conversations": "conversation",
    "messages": "message",
}

# A file of 100 MB can hold millions of oddities, and nobody reads them all.
KEPT_SENTENCES = 1_000
KEPT_PLACES = 20


def in_words(counts: Mapping[str, int]) -> str:
    """Counts as one reads them: 9 projects, 1,096 tasks and 1 dependency."""
    parts = [
        f"{number:,} {SINGULAR[noun] if number == 1 else noun}" for noun, number in counts.items()
    ]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


class Notes:
    """Sentences, each with the places in the file of which it is true.

    The first thousand are kept, each with its first twenty places; `count` counts all.
    """

    def __init__(self) -> None:
        self.count = 0
        self._places: dict[str, list[str]] = {}
        self._times: Counter[str] = Counter()

    def add(self, sentence: str, place: str) -> None:
        """Note a sentence about a place; without one it says itself what it is about."""
        self.count += 1
        if sentence not in self._places and len(self._places) == KEPT_SENTENCES:
            return
        self._times[sentence] += 1
        places = self._places.setdefault(sentence, [])
        if len(places) < KEPT_PLACES:
            places.append(place)

    @property
    def untold(self) -> int:
        """How many are not among the sentences that are kept."""
        return self.count - self._times.total()

    def sentences(self) -> list[str]:
        """The sentences, each after its places."""
        return [self._told(sentence, places) for sentence, places in self._places.items()]

    def _told(self, sentence: str, places: list[str]) -> str:
        if not places[0]:
            return sentence
        more = self._times[sentence] - len(places)
        rest = f" and {more:,} more" if more else ""
        return f"{'; '.join(places)}{rest}: {sentence}"


@dataclass
class Report:
    """What was added, what was there already, and what is not as it stands in the file.

    `added` and `already_there` count by noun: projects, tasks and dependencies, or conversations
    and messages. What was left out and what was changed are sentences with their places.
    """

    added: Counter[str] = field(default_factory=Counter)
    already_there: Counter[str] = field(default_factory=Counter)
    _left_out: Notes = field(default_factory=Notes)
    _changed: Notes = field(default_factory=Notes)

    def leave_out(self, sentence: str, place: str = "") -> None:
        """Note something that stands in the file and not in the database."""
        self._left_out.add(sentence, place)

    def change(self, sentence: str, place: str = "") -> None:
        """Note something that the database holds in another way than the file."""
        self._changed.add(sentence, place)

    @property
    def left_out(self) -> list[str]:
        """What stands in the file and not in the database."""
        return self._left_out.sentences()

    @property
    def changed(self) -> list[str]:
        """What the database holds in another way than the file."""
        return self._changed.sentences()

    @property
    def left_out_count(self) -> int:
        """How much was left out, also of what is not told."""
        return self._left_out.count

    @property
    def changed_count(self) -> int:
        """How much was changed, also of what is not told."""
        return self._changed.count

    def lines(self) -> list[str]:
        """The report as lines to print."""
        if not self.added.total():
            return [f"Nothing was added: {in_words(self.already_there)} are already there."]
        lines = [f"Added {in_words(self.added)}."]
        if self.already_there.total():
            lines.append(f"Already there: {in_words(self.already_there)}.")
        for heading, notes in (("Left out", self._left_out), ("Changed", self._changed)):
            if notes.count:
                lines += [f"{heading}:", *(f"  {sentence}" for sentence in notes.sentences())]
            if notes.untold:
                lines.append(f"  … and {notes.untold:,} more.")
        return lines
