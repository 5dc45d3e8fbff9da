"""What each operation may cost: CPU of the server and requests, beside what was recorded when it was last looked at.

Times depend on the hour and are compared with nobody.  CPU time depends on the machine: so a fixed piece of work, the
yardstick, is timed with it, and what was recorded is stretched by how much slower this machine does that.  Bounds are
wide, since a busy machine makes everything dearer; what they catch is an operation that costs a multiple, or a request
more.
"""

from __future__ import annotations

import json
import statistics
import struct
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench_lib.measure import Row

RECORDED = Path(__file__).with_name("recorded.json")
CPU_FACTOR = 3.0
CPU_SLACK_US = 100.0
"""On top of it: what a row of few operations may differ by."""
REQUESTS_FACTOR = 1.2
REQUESTS_SLACK = 0.3
_YARDSTICK_ROUNDS = 7
_RECORD = struct.Struct("<QQII")

Recorded = dict[str, dict[str, float]]
"""Per row its `cpu_us` and `requests`, as far as they are known."""


def yardstick_us() -> float:
    """CPU microseconds that a mixture of what a server does takes here: packing, slicing, checksums, a dictionary."""
    best = float("inf")
    for _ in range(_YARDSTICK_ROUNDS):
        began = time.process_time()
        known: dict[int, bytes] = {}
        page = bytes(range(256)) * 16
        for number in range(2000):
            packed = _RECORD.pack(number, number << 20, len(known), zlib.crc32(page[number % 256 : 2048]))
            known[number % 512] = packed + page[: number % 64]
            _RECORD.unpack_from(known[number // 2 % 512 if number // 2 % 512 in known else number % 512])
        best = min(best, time.process_time() - began)
    return best * 1e6


def costs(rows: Iterable[Row]) -> Recorded:
    """The medians of several rounds' rows."""
    found: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        for what, value in (("cpu_us", row.cpu_us), ("requests", row.requests)):
            if value is not None:
                found.setdefault(row.name, {}).setdefault(what, []).append(value)
    return {
        name: {what: round(statistics.median(values), 2) for what, values in kinds.items()}
        for name, kinds in found.items()
    }


def record(rows: Iterable[Row], file: Path = RECORDED) -> None:
    """Make what these rows cost the measure for later ones; rows that were not measured keep what they had."""
    before = json.loads(file.read_text())["rows"] if file.exists() else {}
    kept = {"yardstick_us": round(yardstick_us(), 1), "rows": dict(sorted({**before, **costs(rows)}.items()))}
    file.write_text(json.dumps(kept, indent=1) + "\n")


def complaints(rows: Iterable[Row], file: Path = RECORDED) -> Iterator[str]:
    """One sentence for each row that costs much more than was recorded."""
    recorded = json.loads(file.read_text())
    slower = max(1.0, yardstick_us() / recorded["yardstick_us"])
    for name, now in costs(rows).items():
        before = recorded["rows"].get(name, {})
        limits = {
            "cpu_us": (before.get("cpu_us"), slower * CPU_FACTOR, CPU_SLACK_US, "us of the server's CPU"),
            "requests": (before.get("requests"), REQUESTS_FACTOR, REQUESTS_SLACK, "requests"),
        }
        for what, value in now.items():
            known, factor, slack, unit = limits[what]
            if known is None:
                continue
            limit = known * factor + slack
            if value > limit:
                yield f"{name}: {value:.4g} {unit}, {known:.4g} were recorded, at most {limit:.4g} may be"
