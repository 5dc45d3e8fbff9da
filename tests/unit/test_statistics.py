"""What `hammer stats` counts: exactly what was done, and nothing for what was not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from administration import ask
from btree_memory import MemoryNodeStore
from small_filesystem import fresh, make, mount

from hammerfs.btree.tree import TreeStatistics
from hammerfs.cli import directive_stats, hammer
from hammerfs.errors import UsageError
from hammerfs.ondisk.element import pack_key, record_element
from hammerfs.vfs.mounttable import FILESYSTEM_KIND, Mount

LOCALIZATION = 2
RECTYPE = 0x10
OBJECT = 1 << 32
RECORDS = 300
"""Several leaves."""


def key(number: int) -> bytes:
    return pack_key(LOCALIZATION, OBJECT, RECTYPE, number, 16)


def difference(after: TreeStatistics, before: TreeStatistics) -> tuple[int, int, int, int]:
    return (
        after.searches - before.searches,
        after.descents - before.descents,
        after.visits - before.visits,
        after.scanned - before.scanned,
    )


def test_searches_descents_and_visits() -> None:
    tree = MemoryNodeStore().tree()
    for number in range(RECORDS):
        element = record_element(LOCALIZATION, OBJECT, RECTYPE, number, 16, 1, 0, 0, 0, 0)
        tree.insert(key(number), element, 16)
    tree.sync()
    levels = tree.height + 1
    assert levels > 1
    tree.drop_clean()
    before = tree.statistics()
    tree.lookup(key(0))
    assert difference(tree.statistics(), before) == (1, 1, levels, 0)
    tree.lookup(key(1))
    assert difference(tree.statistics(), before) == (2, 1, levels, 0)
    tree.lookup(key(RECORDS - 1))
    assert difference(tree.statistics(), before) == (3, 2, 2 * levels, 0)
    before = tree.statistics()
    assert len(list(tree.scan(key(RECORDS - 3), key(RECORDS)))) == 3
    seen = difference(tree.statistics(), before)
    assert (seen[0], seen[3]) == (1, 3)


def test_elements_are_counted_as_halving_compares_them() -> None:
    tree = MemoryNodeStore().tree()
    for number in range(5):
        element = record_element(LOCALIZATION, OBJECT, RECTYPE, number, 16, 1, 0, 0, 0, 0)
        tree.insert(key(number), element, 16)
    for seek in (
        lambda: tree.lookup(key(0)),
        lambda: tree.find_as_of(key(3)[:22], 20),
        lambda: list(tree.scan(key(1), key(4))),
        lambda: tree.replace(key(2), tree.lookup(key(2)) or b"", 17),
    ):
        before = tree.statistics().compared
        seek()
        compared = tree.statistics().compared - before
        assert compared
        assert compared % 3 == 0  # five elements: 3 at most
    for number in range(5, RECORDS):
        element = record_element(LOCALIZATION, OBJECT, RECTYPE, number, 16, 1, 0, 0, 0, 0)
        tree.insert(key(number), element, 16)
    tree.sync()
    tree.drop_clean()
    before = tree.statistics().compared
    tree.lookup(key(0))
    from_the_root = tree.statistics().compared - before
    tree.lookup(key(1))
    beside = tree.statistics().compared - before - from_the_root
    assert 0 < beside <= 6 < from_the_root


def test_records_that_reach_the_tree() -> None:
    fs = mount(fresh())

    def counters() -> dict[str, int]:
        told: dict[str, int] = ask(fs, "statistics")["btree"]
        return told

    before = counters()
    make(fs, fs.root, b"file", b"content")
    assert counters()["reciters"] == before["reciters"]
    assert fs.flusher is not None
    fs.flusher.flush_now()
    after = counters()
    # The entry and the data; inodes are no records in memory.
    assert after["reciters"] - before["reciters"] == 2
    assert set(after) == {
        "lookups",
        "searches",
        "inserts",
        "deletes",
        "elements",
        "splits",
        "iterations",
        "rootiters",
        "reciters",
    }
    assert after["rootiters"] > before["rootiters"]
    fs.close_now()


class Mounted:
    """What is mounted for `hammer iostats`: the bytes read on each, look by look; None: it is not there any more."""

    def __init__(self, **looks: list[int | None]) -> None:
        self._looks = {f"/{name}": iter(values) for name, values in looks.items()}

    def mounts(self) -> list[Mount]:
        """The table of mounts."""
        return [Mount(f"0:{number}", path, FILESYSTEM_KIND, "", 0) for number, path in enumerate(self._looks)]

    @contextmanager
    def connected(self, path: str) -> Iterator[Any]:
        """A connection to what is mounted at a path."""
        read = next(self._looks[path], None)
        if read is None:
            raise UsageError(f"{path} does not lie on a mounted HAMMER file system")
        counters = dict.fromkeys(directive_stats._IO.values(), 0) | {"file_read": read}
        (mount,) = [mount for mount in self.mounts() if mount.path == path]
        yield SimpleNamespace(mount=mount, stop=lambda: None, request=lambda *_: {"btree": {}, "io": counters})


def iostats(mounted: Mounted, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(directive_stats, "mounts", mounted.mounts)
    monkeypatch.setattr(directive_stats, "connected", mounted.connected)
    return hammer.main(["iostats", "0.001"])


def test_file_systems_that_go_away_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mounted = Mounted(one=[1000, 1001, None], two=[50, 52, 55, 60, None])
    assert iostats(mounted, monkeypatch) == 2
    shown = capsys.readouterr()
    assert [line.split()[0] for line in shown.out.splitlines()] == ["f_read", "3", "3", "5"]
    assert shown.err == "hammer: /two does not lie on a mounted HAMMER file system\n"


def test_counters_of_what_is_mounted_anew_begin_at_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    iostats(Mounted(one=[1000, 7, 9, None]), monkeypatch)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["f_read", "7", "2"]
