"""Cycle files (`-c`): where a directive stopped, so that the next run goes on there (`cycle.c`)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hammerfs.ondisk.constants import LOCALIZE_MASK
from hammerfs.ondisk.cyclefile import CYCLE_SIZE, Cycle, pack_cycle, unpack_cycle


def load_cycle(path: str | None) -> Cycle | None:
    """Where to go on; None where a directive begins at its beginning."""
    if path is None:
        return None
    try:
        with open(path, "rb") as file:
            raw = file.read(CYCLE_SIZE)
    except FileNotFoundError:
        return None
    except OSError as error:
        print(f"cycle-file {path}: read failed {error.strerror}", file=sys.stderr)
        return None
    cycle = unpack_cycle(raw)
    if cycle is None:
        print(f"cycle-file {path}: clearing old version", file=sys.stderr)
        end_cycle(path)
    return cycle


def begin_numbers(path: str | None) -> list[int]:
    """The argument `begin` of operations."""
    cycle = load_cycle(path)
    return [] if cycle is None else [cycle.localization & LOCALIZE_MASK, cycle.obj_id]


def keep_position(path: str | None, interrupted: bool, position: Sequence[int]) -> None:
    """Note where a run was interrupted, or that it came to its end."""
    if interrupted:
        keep_cycle(path, Cycle(position[0], position[1]))
    else:
        end_cycle(path)


def keep_cycle(path: str | None, cycle: Cycle) -> None:
    """Write a cycle file; a directive that cannot has done its work all the same."""
    if path is None:
        return
    try:
        Path(path).write_bytes(pack_cycle(cycle))
    except OSError as error:
        print(f"Warning: Unable to write to {path}: {error.strerror}", file=sys.stderr)


def end_cycle(path: str | None) -> None:
    """The next run begins at the beginning."""
    if path is not None:
        with suppress(FileNotFoundError):
            Path(path).unlink()
