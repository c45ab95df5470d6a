"""The report of an import."""

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

# A file of 100 MB can have millions of notes, which nobody reads.
MAX_SENTENCES = 1_000
MAX_PLACES = 20


def in_words(counts: Mapping[str, int]) -> str:
    """Counts as text, such as: 9 projects, 1,096 tasks and 1 dependency."""
    parts = [
        f"{number:,} {SINGULAR[noun] if number == 1 else noun}" for noun, number in counts.items()
    ]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


class Notes:
    """Sentences, each with the places in the file that it is about.

    The first MAX_SENTENCES are stored, each with its first MAX_PLACES; `count` counts all notes.
    """

    def __init__(self) -> None:
        self.count = 0
        self._places: dict[str, list[str]] = {}
        self._times: Counter[str] = Counter()

    def add(self, sentence: str, place: str) -> None:
        """Add a sentence about a place, or one that names its place itself."""
        self.count += 1
        if sentence not in self._places and len(self._places) == MAX_SENTENCES:
            return
        self._times[sentence] += 1
        places = self._places.setdefault(sentence, [])
        if len(places) < MAX_PLACES:
            places.append(place)

    @property
    def omitted(self) -> int:
        """How many notes are not among the stored sentences."""
        return self.count - self._times.total()

    def sentences(self) -> list[str]:
        """The sentences, each after its places."""
        return [self._with_places(sentence, places) for sentence, places in self._places.items()]

    def _with_places(self, sentence: str, places: list[str]) -> str:
        if not places[0]:
            return sentence
        more = self._times[sentence] - len(places)
        rest = f" and {more:,} more" if more else ""
        return f"{'; '.join(places)}{rest}: {sentence}"


@dataclass
class Report:
    """What was added, what existed before, and what differs from the file.

    `added` and `already_there` count by noun: projects, tasks and dependencies, or conversations
    and messages. What was left out and what was changed are sentences with places in the file.
    """

    added: Counter[str] = field(default_factory=Counter)
    already_there: Counter[str] = field(default_factory=Counter)
    _left_out: Notes = field(default_factory=Notes)
    _changed: Notes = field(default_factory=Notes)

    def leave_out(self, sentence: str, place: str = "") -> None:
        """Note something of the file that was not imported."""
        self._left_out.add(sentence, place)

    def change(self, sentence: str, place: str = "") -> None:
        """Note something that was imported in another form."""
        self._changed.add(sentence, place)

    @property
    def left_out(self) -> list[str]:
        """The notes on what was not imported."""
        return self._left_out.sentences()

    @property
    def changed(self) -> list[str]:
        """The notes on what was imported in another form."""
        return self._changed.sentences()

    @property
    def left_out_count(self) -> int:
        """The number of notes on what was not imported, omitted ones included."""
        return self._left_out.count

    @property
    def changed_count(self) -> int:
        """The number of notes on what was changed, omitted ones included."""
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
            if notes.omitted:
                lines.append(f"  … and {notes.omitted:,} more.")
        return lines
