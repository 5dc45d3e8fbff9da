"""`scripts/bench` works: it measures a real mount, says so, and leaves nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hammer_mount import run

pytestmark = [pytest.mark.real, pytest.mark.mount, pytest.mark.slow]

BENCH = Path(__file__).resolve().parents[2] / "scripts" / "bench"


def test_bench_measures_hammerfs(tmp_path: Path) -> None:
    numbers, work = tmp_path / "numbers.json", tmp_path / "work"
    workloads = "small,directories,parallel,sequential,fsync,sqlite"
    # Three rounds, whose medians are compared with what was recorded: beside other tests a single one is no measure.
    text = run(
        BENCH, "--quick", "--peers", "hammerfs", "--workloads", workloads, "--size", "2048", "--work", work,
        "--reps", "3", "--json", numbers,
    )  # fmt: skip
    repetition, *others = json.loads(numbers.read_text())
    assert len(others) == 2
    rows = {row["name"]: row for row in repetition["rows"]}
    assert {"mkdir", "mkdir, until unmounted", "create 4 KiB by 4 processes", "fsync append, p99"} <= rows.keys()
    assert {"bare fdatasync, p50", "fsync append, 16 threads to one"} <= rows.keys()
    assert all(row["value"] > 0 for name, row in rows.items() if not name.endswith("beyond bare"))
    assert rows["mkdir"]["cpu_us"] > 0
    assert rows["stat warm"]["requests"] < 0.1
    assert 5 < rows["create 4 KiB"]["requests"] < 7
    assert "No operation costs much more CPU or more requests than was recorded." in text, text
    assert repetition["peak_kib"] > 0
    assert all(each["failures"] == [] for each in (repetition, *others))
    assert "| SQLite WAL (tx/s) |" in text
    assert list(work.iterdir()) == []
