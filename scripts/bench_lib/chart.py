"""Results as a picture: how many times as fast as the peer that all are compared with, a line for each workload."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench_lib.peers import BASE, HAMMERFS, BenchError

if TYPE_CHECKING:
    from bench_lib.report import Report

LEFT_OUT = (", until unmounted", ", p50", ", p99", "beyond bare", "longest", "bare ", "to one", "to first", "memory")
"""Parts of rows' names: what is a detail of another row, or no speed."""
RATIO_MIN, RATIO_MAX = 0.05, 100.0
"""Ratios beyond are drawn at the edge, with their number."""
TICKS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
COLOURS = {"hammerfs": "#c0392b", "ntfs-3g": "#7f8c8d", "ext4": "#b8c4ce", "passthrough": "#8e7cc3", "s3ql": "#16a085"}
OTHER_COLOUR = "#2c3e50"


def chart_rows(report: Report) -> list[str]:
    """The workloads that are drawn, those in which hammerfs is ahead by most first."""
    ratios = {name: report.ratio(HAMMERFS.name, name) for name in report.names}
    drawn = {
        name: ratio
        for name, ratio in ratios.items()
        if ratio is not None and not any(part in name for part in LEFT_OUT)
    }
    return sorted(drawn, key=lambda name: drawn[name], reverse=True)


def need_matplotlib() -> None:
    """BenchError, which says what to do, where it is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise BenchError(
            "drawing takes matplotlib: .venv/bin/pip install matplotlib, then .venv/bin/python scripts/bench"
        )


def draw(report: Report, file: Path) -> None:
    """Write the picture, in the format that the file's name ends in; BenchError when there is nothing to draw."""
    import matplotlib

    matplotlib.use("svg" if file.suffix == ".svg" else "agg")
    # The same numbers make the same file, and text stays text.
    matplotlib.rcParams.update({"svg.hashsalt": "hammerfs", "svg.fonttype": "none", "font.size": 9})
    from matplotlib import pyplot

    rows = chart_rows(report)
    if not rows:
        raise BenchError(f"nothing to draw: hammerfs and {BASE} have no workload in common")
    figure, axes = pyplot.subplots(figsize=(8, 1 + 0.24 * len(rows)), layout="constrained")
    axes.set_xscale("log")
    axes.set_xlim(RATIO_MIN, RATIO_MAX)
    axes.axvline(1, color="black", linewidth=1)
    others = [peer for peer in report.peers if peer not in (BASE, HAMMERFS.name)]
    for peer in others:
        _dots(axes, peer, rows, report)
    _bars(axes, rows, report)
    axes.set_yticks(range(len(rows)), rows)
    axes.margins(y=0.01)
    axes.invert_yaxis()
    axes.set_xticks(TICKS, labels=[f"{tick:g}" for tick in TICKS])
    axes.minorticks_off()
    axes.grid(axis="x", linewidth=0.3)
    axes.set_axisbelow(True)
    axes.set_title(f"hammerfs: times as fast as {BASE}; {report.conditions}", fontsize=9)
    if others:
        axes.legend(loc="lower right")
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)
    pyplot.close(figure)


def _bars(axes: object, rows: Sequence[str], report: Report) -> None:
    """A bar from 1 for each workload of ours, with its number."""
    ratios = [report.ratio(HAMMERFS.name, name) or 1.0 for name in rows]
    widths = [min(max(ratio, RATIO_MIN), RATIO_MAX) - 1 for ratio in ratios]
    axes.barh(range(len(rows)), widths, left=1, height=0.55, color=COLOURS[HAMMERFS.name], label=HAMMERFS.name)  # type: ignore[attr-defined]
    for place, ratio in enumerate(ratios):
        at = min(max(ratio, RATIO_MIN * 1.5), RATIO_MAX / 2)
        axes.annotate(  # type: ignore[attr-defined]
            f"{ratio:.2g}" if ratio < 10 else f"{ratio:.0f}",
            (at, place),
            xytext=(4 if ratio >= 1 else -4, 0),
            textcoords="offset points",
            ha="left" if ratio >= 1 else "right",
            va="center",
            fontsize=8,
        )


def _dots(axes: object, peer: str, rows: Sequence[str], report: Report) -> None:
    """A dot for each workload of another peer."""
    known = [(place, report.ratio(peer, name)) for place, name in enumerate(rows)]
    dots = [(place, min(max(ratio, RATIO_MIN), RATIO_MAX)) for place, ratio in known if ratio is not None]
    axes.scatter(  # type: ignore[attr-defined]
        [ratio for _, ratio in dots],
        [place for place, _ in dots],
        s=18,
        color=COLOURS.get(peer, OTHER_COLOUR),
        label=peer,
        zorder=3,
    )
