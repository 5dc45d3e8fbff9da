"""What a check found: problems, notes and counts, bounded in memory however bad an image is.

A problem is something that no intact HAMMER file system may contain.  A note is worth knowing and harmless: the
original leaves such things behind itself (stale header CRCs, inodes that wait for deletion), or recovery will mend it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from hammerfs.ondisk.address import Offset

KEPT_PER_KIND = 1000
"""Findings of one kind that are kept in full; further ones are only counted."""


class Owner(NamedTuple):
    """The object that a finding is about, for damaged data with the offset in the file where it begins."""

    pfs_id: int
    obj_id: int
    file_offset: int | None = None


class Problem(NamedTuple):
    """One finding.  `kind` names the structure, `where` its place, `text` says what is wrong in a sentence.

    path -- of the owner, from the root of PFS 0; None when there is no owner, or nothing that leads to it
    """

    kind: str
    where: str
    text: str
    owner: Owner | None = None
    path: str | None = None

    def __str__(self) -> str:
        place = f" at {self.where}" if self.where else ""
        path = "" if self.path is None else f" ({self.path!r})"
        return f"{self.kind}{place}: {self.text}{path}"


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

    def problem(self, kind: str, where: Offset | str, text: str, owner: Owner | None = None) -> None:
        """Record something that must not be."""
        self.problem_total += 1
        self._keep("problem", self.problems, Problem(kind, "", text, owner), where)

    def note(self, kind: str, where: Offset | str, text: str, owner: Owner | None = None) -> None:
        """Record something worth knowing."""
        self.note_total += 1
        self._keep("note", self.notes, Problem(kind, "", text, owner), where)

    def owners(self) -> set[tuple[int, int]]:
        """PFS and object of each finding kept that is about one."""
        kept = (found.owner for found in (*self.problems, *self.notes))
        return {owner[:2] for owner in kept if owner is not None}

    def name(self, path_of: Callable[[int, int], str | None]) -> None:
        """Give the findings kept the paths of their owners, by PFS and object."""
        for kept in (self.problems, self.notes):
            for index, found in enumerate(kept):
                if found.owner is not None:
                    kept[index] = found._replace(path=path_of(*found.owner[:2]))

    def count(self, name: str, amount: int = 1) -> None:
        """Add to a counter."""
        self.counts[name] = self.counts.get(name, 0) + amount

    def _keep(self, severity: str, kept: list[Problem], found: Problem, where: Offset | str) -> None:
        seen = self._of_kind.get((severity, found.kind), 0)
        self._of_kind[severity, found.kind] = seen + 1
        if seen < KEPT_PER_KIND:
            kept.append(found._replace(where=where if isinstance(where, str) else f"{where:016x}"))
