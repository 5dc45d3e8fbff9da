"""Medians and ratios of all repetitions as Markdown tables."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench_lib.measure import Row
from bench_lib.peers import BASE


@dataclass
class Repetition:
    """What one peer did in one round.

    failures -- one sentence for each workload that did not come to its end
    """

    peer: str
    number: int
    load: float
    peak_kib: int = 0
    cold_is_cold: bool = True
    rows: list[Row] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """For the file given to --json."""
        return asdict(self)

    @classmethod
    def of_json(cls, item: dict[str, Any]) -> Repetition:
        """What `as_json` made; TypeError or KeyError when it was not."""
        return cls(**{**item, "rows": [Row(**row) for row in item["rows"]]})


def number(value: float | None) -> str:
    """Three digits, which is more than such measurements are good for."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(heads: Sequence[str], lines: Iterator[Sequence[str]]) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield "| " + " | ".join(heads) + " |"
    yield "|---" * len(heads) + "|"
    for line in lines:
        yield "| " + " | ".join(line) + " |"


class Report:
    """The repetitions by peer and row."""

    def __init__(self, repetitions: Sequence[Repetition]) -> None:
        self._repetitions = repetitions
        self.peers = list(dict.fromkeys(repetition.peer for repetition in repetitions))
        self._units: dict[str, str] = {}
        self._rows: dict[tuple[str, int, str], Row] = {}
        for repetition in repetitions:
            for row in repetition.rows:
                self._units.setdefault(row.name, row.unit)
                self._rows[repetition.peer, repetition.number, row.name] = row

    def _median(self, peer: str, name: str, what: Callable[[Row], float | None]) -> float | None:
        values = [what(row) for (who, _, which), row in self._rows.items() if (who, which) == (peer, name)]
        known = [value for value in values if value is not None]
        return statistics.median(known) if known else None

    def ratio(self, peer: str, name: str) -> float | None:
        """How many times as fast as the base: the median over the rounds, so that a slow hour counts on both sides."""
        ratios = []
        for (who, round_number, which), row in self._rows.items():
            base = self._rows.get((BASE, round_number, name))
            if (who, which) == (peer, name) and base is not None and row.value > 0 and base.value > 0:
                ratio = row.value / base.value
                ratios.append(ratio if row.more_is_better else 1 / ratio)
        return statistics.median(ratios) if ratios else None

    def _speed_lines(self, ratio_peers: Sequence[str]) -> Iterator[list[str]]:
        for name, unit in self._units.items():
            values = [number(self._median(peer, name, lambda row: row.value)) for peer in self.peers]
            ratios = [self.ratio(peer, name) for peer in ratio_peers]
            yield [f"{name} ({unit})", *values, *("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios)]

    def _cpu_lines(self) -> Iterator[list[str]]:
        for name in self._units:
            values = [self._median(peer, name, lambda row: row.cpu_us) for peer in self.peers]
            if any(value is not None for value in values):
                yield [name, *(number(value) for value in values)]
        peaks = {
            peer: max(repetition.peak_kib for repetition in self._repetitions if repetition.peer == peer)
            for peer in self.peers
        }
        yield ["peak memory, MiB", *(number(peaks[peer] / 1024 if peaks[peer] else None) for peer in self.peers)]

    @property
    def names(self) -> list[str]:
        """All workloads, in the order in which they ran."""
        return list(self._units)

    @property
    def conditions(self) -> str:
        """What has to be known beside the numbers."""
        rounds = 1 + max((repetition.number for repetition in self._repetitions), default=0)
        loads = [repetition.load for repetition in self._repetitions]
        return (
            f"{rounds} interleaved rounds, {os.cpu_count()} CPUs, kernel {os.uname().release.partition('-')[0]}, "
            f"load {min(loads, default=0):.1f} to {max(loads, default=0):.1f}"
        )

    def markdown(self) -> str:
        """Everything there is to say."""
        ratio_peers = [peer for peer in self.peers if peer != BASE] if BASE in self.peers else []
        lines = [
            "Speed: medians; ratios above 1 are faster.",
            "",
            *table(
                ["workload", *self.peers, *(f"{peer} / {BASE}" for peer in ratio_peers)],
                self._speed_lines(ratio_peers),
            ),
            "",
            "CPU time of the server in microseconds per operation, entry, megabyte or run of a program.",
            "",
            *table(["workload", *self.peers], self._cpu_lines()),
            "",
            f"{self.conditions}.",
        ]
        if not all(repetition.cold_is_cold for repetition in self._repetitions):
            lines.append("Kernel caches could not be emptied, which takes root: rows called cold are not.")
        lines += [
            f"{repetition.peer}, round {repetition.number + 1}: {failure}"
            for repetition in self._repetitions
            for failure in repetition.failures
        ]
        return "\n".join(lines)
