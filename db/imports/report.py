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


def in_words(counts: Mapping[str, int]) -> str:
    """Counts as one reads them: 9 projects, 1,096 tasks and 1 dependency."""
    parts = [
        f"{number:,} {SINGULAR[noun] if number == 1 else noun}" for noun, number in counts.items()
    ]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


@dataclass
class Report:
    """What was added, what was there already, and what is not as it stands in the file.

    `added` and `already_there` count by noun: projects, tasks and dependencies, or conversations
    and messages. `left_out` and `changed` are sentences that name the place in the file; of each,
    the first thousand are kept, and `left_out_count` and `changed_count` count them all.
    """

    added: Counter[str] = field(default_factory=Counter)
    already_there: Counter[str] = field(default_factory=Counter)
    left_out: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    left_out_count: int = 0
    changed_count: int = 0

    def leave_out(self, sentence: str) -> None:
        """Note something that stands in the file and not in the database."""
        self.left_out_count += 1
        if len(self.left_out) < KEPT_SENTENCES:
            self.left_out.append(sentence)

    def change(self, sentence: str) -> None:
        """Note something that the database holds in another way than the file."""
        self.changed_count += 1
        if len(self.changed) < KEPT_SENTENCES:
            self.changed.append(sentence)

    def lines(self) -> list[str]:
        """The report as lines to print."""
        if not self.added.total():
            return [f"Nothing was added: {in_words(self.already_there)} are already there."]
        lines = [f"Added {in_words(self.added)}."]
        if self.already_there.total():
            lines.append(f"Already there: {in_words(self.already_there)}.")
        for heading, sentences, count in (
            ("Left out", self.left_out, self.left_out_count),
            ("Changed", self.changed, self.changed_count),
        ):
            if sentences:
                lines += [f"{heading}:", *(f"  {sentence}" for sentence in sentences)]
            if count > len(sentences):
                lines.append(f"  … and {count - len(sentences):,} more.")
        return lines
