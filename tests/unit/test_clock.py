"""File times come from the clock that the kernel stamps files with."""

from __future__ import annotations

import os
import time
from pathlib import Path

from hammerfs.fs.context import now_us


def test_a_file_touched_after_the_clock_was_read_is_not_older(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for _ in range(1000):
        before = now_us()
        path.touch()
        os.utime(path)
        assert path.stat().st_mtime_ns // 1000 >= before


def test_the_clock_tells_the_time() -> None:
    tick_us = 10_000  # of the slowest kernel there is
    assert time.time_ns() // 1000 - tick_us <= now_us() <= time.time_ns() // 1000
