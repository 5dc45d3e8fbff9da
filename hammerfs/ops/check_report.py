"""What a check found: problems, notes and counts, bounded in memory however bad an image is.

A problem is something that no intact HAMMER file system may contain.  A note is worth knowing and harmless: the
original leaves such things behind itself (stale header CRCs, inodes that wait for deletion), or recovery will mend it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from hammerfs.ondisk.address import Offset

KEPT_PER_KIND = 1000
"""Findings of one kind that are kept in full; further ones are only counted."""


class Problem(NamedTuple):
    """One finding.  `kind` names the structure, `where` its place, `text` says what is wrong in a sentence."""

    kind: str
    where: str
    text: str

    def __str__(self) -> str:
        place = f" at {self.where}" if self.where else ""
        return f"{self.kind}{place}: {self.text}"


@dataclass
class Report:
    """The outcome of a check.

    problems, notes -- the findings kept, in the order they were made
    problem_total, note_total -- how many there were
    counts -- how much was looked at, by name
    recovery_pending -- the UNDO FIFO holds records that the next mount will roll back
    """

    problems: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    problem_total: int = 0
    note_total: int = 0
    recovery_pending: bool = False
    _of_kind: dict[tuple[str, str], int] = field(default_factory=dict, repr=False)

    @property
    def clean(self) -> bool:
        """True when no problem was found."""
        return self.problem_total == 0

    def problem(self, kind: str, where: Offset | str, text: str) -> None:
        """Record something that must not be."""
        self.problem_total += 1
        self._keep("problem", self.problems, kind, where, text)

    def note(self, kind: str, where: Offset | str, text: str) -> None:
        """Record something worth knowing."""
        self.note_total += 1
        self._keep("note", self.notes, kind, where, text)

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter."""
        self.counts[name] = self.counts.get(name, 0) + amount

    def _keep(self, severity: str, kept: list[Problem], kind: str, where: Offset | str, text: str) -> None:
        seen = self._of_kind.get((severity, kind), 0)
        self._of_kind[severity, kind] = seen + 1
        if seen < KEPT_PER_KIND:
            place = where if isinstance(where, str) else f"{where:016x}"
            kept.append(Problem(kind, place, text))
