"""Tries the states of one recorded workload: recovered, checked, compared with what was promised, crashed again.

A state is tried once, however many positions and choices lead to it; what it must contain is asked at each of them,
since promises grow along the log.  Recovery's own writes make further states, and so do those of its recoveries.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from crash_lib.cuts import Cut, Cutter, Fates, choices
from crash_lib.generated import Workload
from crash_lib.layered import LayeredDevice
from crash_lib.memo import Memo, pages_of
from crash_lib.original import Original
from crash_lib.verdict import Contents, FreemapLayers, Recovered, Verdict, exact_reads, recover, verify
from hammerfs.device.memory import MemoryDevice
from hammerfs.device.recording import BarrierBegin, Entry, Write

Place = tuple[int, Fates]
"""A cut: position in the log, and the fates of the writes that were uncertain there."""


@dataclass(frozen=True)
class Effort:
    """How thoroughly a workload is tried.

    states -- at most so many of one position, unless all there are
    exhaustive -- all states of a position are tried when they are no more than this
    again -- of so many of the states, one is crashed again during its recovery
    again_states -- states of each position of such a recovery
    depth -- how often a recovery is crashed in a row
    judged -- about so many of the workload's states are shown to the original's hammer(8), where there is one
    """

    states: int = 40
    exhaustive: int = 64
    again: int = 12
    again_states: int = 4
    depth: int = 3
    judged: int = 12


@dataclass(frozen=True)
class Failure:
    """A state that came back wrong: the crashes that led there, and what is wrong."""

    places: tuple[Place, ...]
    complaints: tuple[str, ...]


@dataclass
class Tally:
    """What was tried.

    states -- numbers of the distinct states, all of which were recovered
    tried -- states arrived at, counting those that had been tried before
    by_depth -- distinct states by how many crashes led to them
    recoveries, verifications -- how often that had to be done, as nothing that was read before told the result
    """

    states: set[int] = field(default_factory=set)
    tried: int = 0
    by_depth: Counter[int] = field(default_factory=Counter)
    recoveries: int = 0
    verifications: int = 0
    failures: list[Failure] = field(default_factory=list)


@dataclass(frozen=True)
class _Before:
    """What led to a log: the crashes so far, the newest promise before them, and what recovery has to result in."""

    places: tuple[Place, ...]
    promised: int
    expected: Verdict


class Explorer:
    """Tries the states of one workload; what it learns about recovered images serves all of them."""

    def __init__(
        self, workload: Workload, effort: Effort, tally: Tally, seed: int, original: Original | None = None
    ) -> None:
        self._workload = workload
        self._effort = effort
        self._tally = tally
        self._source = random.Random(seed)
        self._original = original
        # Drawn apart, so that the states tried are the same without a judge.
        self._drawn = random.Random(f"{seed} judged")
        self._chance = effort.judged / (len(workload.log.entries) * effort.states + 1)
        self._bases = [LayeredDevice(base) for base in workload.bases]
        self._origin = hash(tuple(hash(frozenset(base._pages.items())) for base in workload.bases)) & (1 << 64) - 1
        self._written = pages_of(workload.log.entries)
        self._layers = FreemapLayers(self._written)
        options = workload.options
        self._recoveries: Memo[Recovered] = Memo(lambda devices: recover(devices, **options), self._written)
        contents = Contents()
        self._verdicts: Memo[Verdict] = Memo(
            lambda devices: verify(devices, contents, workload.further), self._written, self._layers.has_learned
        )
        self._outcomes: dict[int, Verdict] = {}
        self._judged: dict[tuple[Verdict, int], tuple[str, ...]] = {}

    def explore(self, until: Callable[[], bool] = lambda: False) -> None:
        """Try states all along the log, unless `until` says that it is enough."""
        with exact_reads(self._layers):
            for cut, promised in self._cuts():
                if until():
                    break
                self._try_cut(cut, promised)
        self._tally.recoveries += self._recoveries.runs
        self._tally.verifications += self._verdicts.runs

    def replay(self, places: Sequence[Place]) -> tuple[str, ...]:
        """Complaints about the one state to which these crashes lead."""
        bases: Sequence[MemoryDevice] = self._bases
        entries: Sequence[Entry] = self._workload.log.entries
        verdicts = []
        with exact_reads(self._layers):
            for position, fates in places:
                cut = next(cut for cut in Cutter(entries, bases).cuts() if cut.position == position)
                bases = cut.images(fates)
                recovered = self._recoveries.result(bases)
                entries = recovered.entries
                verdicts.append(self._outcome(bases, recovered))
            promised = sum(at <= places[0][0] for at, _ in self._workload.promises.kept) - 1
            expected = verdicts[0] if len(verdicts) > 1 else None
            complaints = self._complaints(verdicts[-1], promised, expected)
            return complaints or self._second_opinion(bases, recovered)

    def _cuts(self) -> Iterator[tuple[Cut, int]]:
        """Each cut at which something changed, with the number of the newest promise made before it."""
        kept = self._workload.promises.kept
        entries = self._workload.log.entries
        promised = 0
        for cut in Cutter(entries, self._bases, self._origin).cuts():
            before = promised
            while promised + 1 < len(kept) and kept[promised + 1][0] <= cut.position:
                promised += 1
            if promised == before and cut.position and isinstance(entries[cut.position - 1], BarrierBegin):
                continue
            yield cut, promised

    def _try_cut(self, cut: Cut, promised: int, before: _Before | None = None) -> None:
        effort, source, tally = self._effort, self._source, self._tally
        limit, exhaustive = (effort.again_states, 0) if before else (effort.states, effort.exhaustive)
        for fates in choices(cut, source, limit, exhaustive):
            tally.tried += 1
            digest = cut.digest_of(fates)
            places = (*(before.places if before else ()), (cut.position, fates))
            verdict = self._outcomes.get(digest)
            if verdict is None:
                images = cut.images(fates)
                recovered = self._recoveries.result(images)
                verdict = self._outcomes[digest] = self._outcome(images, recovered)
                if digest not in tally.states:
                    tally.states.add(digest)
                    tally.by_depth[len(places)] += 1
                if len(places) <= effort.depth and recovered.entries and not source.randrange(effort.again):
                    self._crash_again(images, recovered, digest, _Before(places, promised, verdict))
            complaints = self._complaints(verdict, promised, before.expected if before else None)
            if not complaints and self._original is not None and self._drawn.random() < self._chance:
                images = cut.images(fates)
                complaints = self._second_opinion(images, self._recoveries.result(images))
            if complaints:
                tally.failures.append(Failure(places, complaints))

    def _crash_again(self, images: Sequence[MemoryDevice], recovered: Recovered, digest: int, before: _Before) -> None:
        """Cut the power during a recovery; every state leads to the very result of the whole one."""
        for cut in Cutter(recovered.entries, images, digest).cuts():
            self._try_cut(cut, before.promised, before)

    def _outcome(self, images: Sequence[MemoryDevice], recovered: Recovered) -> Verdict:
        if recovered.failure:
            return Verdict((f"recovery fails: {recovered.failure}",), None)
        if not (pages := pages_of(recovered.entries)) <= self._written:
            self._written |= pages
            self._recoveries.forget()
            self._verdicts.forget()
            self._layers.forget()
        return self._verdicts.result(_after(images, recovered))

    def _second_opinion(self, images: Sequence[MemoryDevice], recovered: Recovered) -> tuple[str, ...]:
        """What the original finds wrong with a state that was recovered."""
        if self._original is None:
            return ()
        return tuple(self._original.complaints(_after(images, recovered)))

    def _complaints(self, verdict: Verdict, promised: int, expected: Verdict | None) -> tuple[str, ...]:
        key = verdict, promised
        known = self._judged.get(key)
        if known is None:
            complaints = verdict.problems
            if verdict.tree is not None and not complaints:
                promises = self._workload.promises
                complaints = tuple(promises.broken_by(verdict.tree, promises.kept[promised][1]))
            known = self._judged[key] = complaints
        if not known and expected is not None and verdict.tree != expected.tree:
            return ("an interrupted recovery gave something else than one that was not",)
        return known


def _after(images: Sequence[MemoryDevice], recovered: Recovered) -> list[MemoryDevice]:
    """The volumes as recovery leaves them."""
    after = [image.copy() for image in images]
    for entry in recovered.entries:
        if isinstance(entry, Write):
            after[entry.device].write(entry.offset, entry.data)
    return after
