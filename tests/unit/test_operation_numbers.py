"""Numbers that no record can hold, from a client: they are refused, and never taken for a defect of ours."""

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import Any

import pytest
from administration import ask
from small_filesystem import fresh, make, mount

from hammerfs.errors import HammerError, UsageError
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.work import Deaf

IMPOSSIBLE = (-(1 << 70), -1, 1 << 31, 1 << 32, 1 << 40, 1 << 63, 1 << 64, 1 << 70)
NUMBERS = {
    "prune": ("begin", "links"),
    "prune-plan": ("links",),
    "reblock": ("begin", "percentage"),
    "rebalance": ("begin", "percentage"),
    "dedup": ("memory", "crc_begin"),
    "snapshot-remove": ("tids",),
    "snapshot-folder": ("links",),
    "pfs-create": ("uid", "gid"),
    "pfs-update": ("pfs", "sync_beg_tid", "sync_end_tid", "prune_min"),
    "pfs-status": ("pfs",),
    "mirror-state": ("pfs",),
    "mirror-read": ("pfs", "begin", "end"),
    "mirror-split": ("pfs", "begin", "end", "bytes"),
    "mirror-write": ("pfs", "begin", "end"),
    "mirror-within": ("pfs", "source", "begin", "end"),
    "mirror-synced": ("pfs", "tid"),
    "mirror-await": ("pfs", "end"),
    "version-upgrade": ("version",),
    "history": ("offset",),
    "removal": ("end", "since"),
    "moment": ("time_us",),
}
OTHERS: dict[str, dict[str, Any]] = {
    "reblock": {"parts": "data"},
    "rebalance": {"percentage": 80},
    "mirror-read": {"begin": 1, "end": 2},
    "mirror-split": {"begin": 1, "end": 2, "bytes": 1000},
    "mirror-write": {"pfs": 1, "begin": 1, "end": 2},
    "mirror-within": {"pfs": 1, "source": 0, "begin": 1, "end": 2},
    "mirror-synced": {"pfs": 1, "tid": 5},
    "history": {"path": "file"},
    "removal": {"name": "file", "end": 1, "since": 0},
}


@pytest.fixture
def fs() -> FileSystem:
    fs = mount(fresh())
    make(fs, fs.root, b"file", b"content")
    ask(fs, "pfs-create", slave=True)
    return fs


def arguments_with(operation: str, name: str, number: int) -> list[dict[str, Any]]:
    """What may be sent with a number at that place: positions and links are pairs."""
    pairs = name == "links" or (name == "begin" and not operation.startswith("mirror-"))
    values: list[Any] = [[number, 0], [0, number]] if pairs else [[number] if name == "tids" else number]
    return [{**OTHERS.get(operation, {}), name: value} for value in values]


@pytest.mark.parametrize(("operation", "name"), [(op, name) for op, names in NUMBERS.items() for name in names])
def test_a_number_out_of_range_is_refused_or_of_no_effect(fs: FileSystem, operation: str, name: str) -> None:
    for number in IMPOSSIBLE:
        for arguments in arguments_with(operation, name, number):
            asked = itertools.count()
            with suppress(HammerError):
                # Some wait for what never comes, until somebody stops them.
                ask(fs, operation, None, Deaf(), lambda asked=asked: next(asked) > 20, **arguments)
    assert not fs.ctx.read_only


@pytest.mark.parametrize("begin", [[1 << 40, 0], [-1, 0], [1, 1 << 63], [1, -(1 << 63) - 1], [0x10000, 0]])
@pytest.mark.parametrize("operation", ["prune", "reblock", "rebalance"])
def test_work_does_not_begin_where_no_record_can_lie(fs: FileSystem, operation: str, begin: list[int]) -> None:
    ask(fs, "snapshot-add", label="to be pruned by")
    with pytest.raises(UsageError, match="where work was to begin"):
        ask(fs, operation, begin=begin, **OTHERS.get(operation, {}))


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [("pfs-create", {"uid": 1 << 32}), ("mirror-synced", {"pfs": 1, "tid": 1 << 64}), ("pfs-create", {"gid": -1})],
)
def test_what_a_record_cannot_hold_is_refused(fs: FileSystem, operation: str, arguments: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="has to be between 0 and"):
        ask(fs, operation, **arguments)
