"""What `hammer stats` counts: exactly what was done, and nothing for what was not."""

from __future__ import annotations

from administration import ask
from btree_memory import MemoryNodeStore
from small_filesystem import fresh, make, mount

from hammerfs.btree.tree import TreeStatistics
from hammerfs.ondisk.element import pack_key, record_element

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
        "splits",
        "iterations",
        "rootiters",
        "reciters",
    }
    assert after["rootiters"] > before["rootiters"]
    fs.close_now()
