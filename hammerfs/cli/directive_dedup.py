"""`hammer dedup`, `dedup-simulate`: let equal data be stored once (`cmd_dedup.c`)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hammerfs.cli.cycle_file import end_cycle, keep_cycle, load_cycle
from hammerfs.cli.directive import Directive, show, usage_error
from hammerfs.cli.directive_status import humanized
from hammerfs.cli.hammer_options import HammerOptions
from hammerfs.cli.reach import reaching, watching
from hammerfs.ondisk.cyclefile import Cycle

_DEDUP = "dedup <filesystem>"
_SIMULATE = "dedup-simulate <filesystem>"


def dedup(options: HammerOptions, arguments: list[str]) -> int:
    """Bring equal data together; `-m` bounds the memory, `-t` the time, `-c` lets the next run go on."""
    if len(arguments) != 1:
        raise usage_error(_DEDUP, _SIMULATE)
    path = arguments[0]
    cycle = load_cycle(options.cycle_path)
    call = {"memory": options.memory_bytes, "crc_begin": 0 if cycle is None else cycle.tid}
    with reaching(options, path, writable=True) as reach, watching(options) as hearing:
        result = reach.call("dedup", call, hearing, options.timeout)
    if result["interrupted"]:
        keep_cycle(options.cycle_path, Cycle(0, 0, result["crc_begin"]))
    else:
        end_cycle(options.cycle_path)
    show(options, "dedup", result, dedup_lines(result, path))
    return 0


def dedup_simulate(options: HammerOptions, arguments: list[str]) -> int:
    """What there would be to gain."""
    if len(arguments) != 1:
        raise usage_error(_DEDUP, _SIMULATE)
    path = arguments[0]
    with reaching(options, path) as reach, watching(options) as hearing:
        result = reach.call("dedup-simulate", {"memory": options.memory_bytes}, hearing, options.timeout)
    lines = ["Dedup-simulate running", f"Dedup-simulate {path} {_ended(result)}"]
    show(options, "dedup-simulate", result, [*lines, f"Simulated dedup ratio = {result['ratio']:.2f}"])
    return 0


def _ended(result: dict[str, Any]) -> str:
    return "interrupted by timer" if result["interrupted"] else "succeeded"


def dedup_lines(result: dict[str, Any], path: str) -> Iterator[str]:
    """What a run did, in the words of hammer(8)."""
    yield "Dedup running"
    yield f"Dedup {path} {_ended(result)}"
    yield f"Dedup ratio = {result['ratio']:.2f} (in this run)"
    yield f"    {humanized(result['referenced']):>8} referenced"
    yield f"    {humanized(result['allocated']):>8} allocated"
    yield f"    {humanized(result['skipped']):>8} skipped"
    yield f"    {result['collisions']:8d} CRC collisions"
    yield f"    {0:8d} SHA collisions"
    yield f"    {result['underflows']:8d} big-block underflows"
    yield f"    {result['records']:8d} new dedup records"
    yield f"    {result['size']:8d} new dedup bytes"


DIRECTIVES = (Directive("dedup", _DEDUP, dedup), Directive("dedup-simulate", _SIMULATE, dedup_simulate))
