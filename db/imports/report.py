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

ORDER = list(SINGULAR)

# A file of 100 MB can have millions of notes, which nobody reads.
MAX_SENTENCES = 1_000
MAX_PLACES = 20

# What an import of a changed plan does, and what it says in a dry run.
STEPS = {
    "Created": "Would be created",
    "Updated": "Would be updated",
    "Kept": "Would be kept",
    "Removed": "Would be removed",
}


def in_words(counts: Mapping[str, int]) -> str:
    """Counts as text, such as: 9 projects, 1,096 tasks and 1 dependency."""
    parts = [
        f"{number:,} {SINGULAR[noun] if number == 1 else noun}"
        for noun, number in sorted(counts.items(), key=lambda item: ORDER.index(item[0]))
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

    def include(self, other: Notes) -> None:
        """Add all notes of another one."""
        for sentence, places in other._places.items():
            for place in places:
                self.add(sentence, place)
        self.count += other.count - sum(map(len, other._places.values()))


@dataclass
class Report:
    """What was added, what existed before, and what differs from the file.

    `added`, `already_there`, `updated` and `removed` count by noun: projects, tasks and
    dependencies, or conversations and messages. What was left out and what was changed are
    sentences with places in the file.
    """

    added: Counter[str] = field(default_factory=Counter)
    already_there: Counter[str] = field(default_factory=Counter)
    updated: Counter[str] = field(default_factory=Counter)
    removed: Counter[str] = field(default_factory=Counter)
    is_preview: bool = False
    _left_out: Notes = field(default_factory=Notes)
    _changed: Notes = field(default_factory=Notes)
    _steps: dict[str, Notes] = field(default_factory=lambda: {name: Notes() for name in STEPS})

    def step(self, name: str, sentence: str) -> None:
        """Note something that an import of a changed plan does, or keeps."""
        self._steps[name].add(sentence, "")

    def steps(self, name: str) -> list[str]:
        """The notes of these steps."""
        return self._steps[name].sentences()

    def include(self, other: Report) -> None:
        """Add what another report has."""
        self.added.update(other.added)
        self.already_there.update(other.already_there)
        self.updated.update(other.updated)
        self.removed.update(other.removed)
        self._left_out.include(other._left_out)
        self._changed.include(other._changed)
        for name in STEPS:
            self._steps[name].include(other._steps[name])

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
        would = "would be" if self.is_preview else "was"
        done = [
            (heading, counts)
            for heading, counts in (
                ("Would add" if self.is_preview else "Added", self.added),
                ("Would update" if self.is_preview else "Updated", self.updated),
                ("Would remove" if self.is_preview else "Removed", self.removed),
            )
            if counts.total()
        ]
        if not done:
            there = in_words(self.already_there)
            kept = self.steps("Kept")
            heading = STEPS["Kept"] if self.is_preview else "Kept"
            return [
                f"Nothing {would} added: {there} are already there.",
                *([f"{heading}:"] if kept else []),
                *(f"  {sentence}" for sentence in kept),
            ]
        lines = [f"{heading} {in_words(counts)}." for heading, counts in done]
        if self.already_there.total():
            lines.append(f"Already there: {in_words(self.already_there)}.")
        steps = [
            (words if self.is_preview else name, self._steps[name]) for name, words in STEPS.items()
        ]
        notes = [*steps, ("Left out", self._left_out), ("Changed", self._changed)]
        for heading, found in notes:
            if found.count:
                lines += [f"{heading}:", *(f"  {sentence}" for sentence in found.sentences())]
            if found.omitted:
                lines.append(f"  … and {found.omitted:,} more.")
        return lines
