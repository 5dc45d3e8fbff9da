"""Pruning, reblocking and rebalancing on file systems in memory: counts, space, damage, and a flush in the middle."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from typing import TypeVar

import pytest
from administration import ask
from small_filesystem import assert_clean, assert_settled, fresh, make, mount, names, read, walk

from hammerfs.errors import CorruptionError, NoSpaceError, PrunedError, UsageError
from hammerfs.fs.cycle import run_steps
from hammerfs.fs.flusher import Flusher
from hammerfs.fs.inode import Inode
from hammerfs.fs.metadata import end_record
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.sync_inode import InodeSync
from hammerfs.fs.work import Work, run_work
from hammerfs.ondisk.address import bigblock_of
from hammerfs.ondisk.constants import (
    BIGBLOCK_SIZE,
    LOCALIZE_INODE,
    NODE_SIZE,
    OBJID_ROOT,
    RECTYPE_DATA,
    RECTYPE_DIRENTRY,
    RECTYPE_INODE,
    RECTYPE_SNAPSHOT,
    UF_NOHISTORY,
)
from hammerfs.ondisk.element import LeafElement, base_key, unpack_leaf
from hammerfs.ops import prune as prune_module
from hammerfs.ops.check import check_devices
from hammerfs.ops.dedup import DedupOutcome, dedup
from hammerfs.ops.operation import Call
from hammerfs.ops.prune import PruneOutcome, prune
from hammerfs.ops.rebalance import rebalance, saturation_of
from hammerfs.ops.reblock import Parts, ReblockOutcome, free_level_of, range_of, reblock
from hammerfs.ops.record_range import FIRST, Position, RecordRange
from hammerfs.ops.registry import begin, find
from hammerfs.ops.retention import BetweenSnapshots, Everything, Rule

MIB = 1024 * 1024
T = TypeVar("T")


def never() -> bool:
    return False


def flusher_of(fs: FileSystem) -> Flusher:
    assert fs.flusher is not None
    return fs.flusher


def flush(fs: FileSystem) -> int:
    """Flush; the TID of that state."""
    flusher_of(fs).flush_now()
    return fs.ctx.root.next_tid


def pruned(fs: FileSystem, rule: Rule | None = None) -> PruneOutcome:
    outcome = run_work(fs, prune(fs, 0, rule or Everything(), never))
    flush(fs)
    return outcome


def reblocked(fs: FileSystem, percentage: int = 100, parts: Parts = Parts.EVERYTHING) -> ReblockOutcome:
    outcome = run_work(fs, reblock(fs, range_of(0, parts), parts, free_level_of(percentage), never))
    flush(fs)
    return outcome


def elements(fs: FileSystem) -> list[LeafElement]:
    reach = RecordRange(0)
    return [unpack_leaf(raw) for raw in fs.ctx.tree.scan(reach.low, reach.high)]


def result_of(work: Work[T]) -> T:
    """Drive work without ever flushing."""
    try:
        while True:
            next(work)
    except StopIteration as end:
        result: T = end.value
        return result


# --- pruning ------------------------------------------------------------------------------------
def test_prune_counts_what_it_looks_at_and_what_it_takes() -> None:
    fs = mount(devices := fresh())
    file = make(fs, fs.root, b"a", b"1" * 20_000)
    flush(fs)
    fs.write(file, 0, b"2" * 20_000)
    make(fs, fs.root, b"b", b"")
    flush(fs)
    fs.unlink(fs.root, b"b")
    flush(fs)
    before = elements(fs)
    outcome = pruned(fs)
    ended = [element for element in before if element.delete_tid]
    assert outcome.scanned == len(before)
    assert outcome.entries == 1
    assert outcome.records == len(ended) - 1
    assert outcome.size == sum(element.data_len for element in ended)
    assert outcome.oldest_tid == min(element.create_tid for element in before)
    assert len(elements(fs)) == len(before) - len(ended)
    assert_clean(devices)


def test_an_interrupted_prune_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prune_module, "_BATCH", 2)
    fs = mount(fresh())
    file = make(fs, fs.root, b"a", b"")
    for number in range(5):
        fs.write(file, 0, bytes([number + 1]) * 100)
        flush(fs)
    total = len(elements(fs))
    outcome = run_work(fs, prune(fs, 0, Everything(), lambda: True))
    assert (outcome.interrupted, outcome.scanned) == (True, 2)
    assert outcome.position == Position(elements(fs)[-1].localization & 0xFFFF, elements(fs)[-1].obj_id)
    rest = run_work(fs, prune(fs, 0, Everything(), never, outcome.position))
    assert not any(element.delete_tid for element in elements(fs))
    assert outcome.records + rest.records == total - len(elements(fs))


def test_a_view_of_what_was_pruned_is_gone_and_a_snapshot_is_whole() -> None:
    fs = mount(fresh())
    file = make(fs, fs.root, b"a", b"one")
    first = flush(fs)
    fs.write(file, 0, b"two")
    second = flush(fs)
    fs.write(file, 0, b"six")
    third = flush(fs)
    fs.write(file, 0, b"ten")
    flush(fs)
    assert read(fs, b"@@0x%016x" % second, b"a") == b"two"
    pruned(fs, BetweenSnapshots([first, third]))
    assert [read(fs, b"@@0x%016x" % tid, b"a") for tid in (first, third)] == [b"one", b"six"]
    inode = walk(fs, b"a").obj_id
    raw = fs.ctx.tree.find_as_of(base_key(LOCALIZE_INODE, inode, RECTYPE_INODE, 0), second)
    assert raw is None


def opened_at(fs: FileSystem, tid: int, name: bytes) -> Inode:
    """A file of the root directory at a moment, held open."""
    inode = walk(fs, b"@@0x%016x" % tid, name)
    fs.opened(inode)
    return inode


@pytest.mark.expect_log("some of that was taken out of history")
def test_reading_on_at_a_moment_that_is_pruned_fails_rather_than_shows_zeros(caplog: pytest.LogCaptureFixture) -> None:
    """Overwriting in place leaves the inode's record alone, so the file is still there, but for its content."""
    fs = mount(devices := fresh())
    file, other = (make(fs, fs.root, name, b"one") for name in (b"a", b"b"))
    tids = [flush(fs)]
    for text in (b"two", b"six", b"ten"):
        fs.write(file, 0, text)
        tids.append(flush(fs))
    held = [opened_at(fs, tid, b"a") for tid in tids]
    untouched = opened_at(fs, tids[1], b"b")
    pruned(fs, BetweenSnapshots([tids[0], tids[2]]))
    assert [fs.read(held[place], 0, 3) for place in (0, 2, 3)] == [b"one", b"six", b"ten"]
    assert fs.read(untouched, 0, 3) == b"one"
    with pytest.raises(PrunedError) as refusal:
        fs.read(held[1], 0, 3)
    assert refusal.value.errno == errno.ESTALE
    assert f"{held[1].obj_id:#x}" in caplog.text
    assert f"{tids[1]:016x}" in caplog.text
    for inode in (*held, untouched):
        fs.released(inode)
    assert other.data.size == 3
    flush(fs)
    assert_clean(devices)


@pytest.mark.expect_log("some of that was taken out of history")
def test_reading_on_at_a_moment_fails_where_nohistory_took_the_content() -> None:
    fs = mount(devices := fresh())
    file = make(fs, fs.root, b"a", b"one")
    file.data.uflags |= UF_NOHISTORY
    held = opened_at(fs, flush(fs), b"a")
    assert fs.read(held, 0, 3) == b"one"
    fs.write(file, 0, b"two")
    flush(fs)
    with pytest.raises(PrunedError):
        fs.read(held, 0, 3)
    assert fs.read(file, 0, 3) == b"two"
    fs.released(held)
    assert_clean(devices)


def test_who_closed_a_moment_before_it_was_pruned_is_not_remembered() -> None:
    fs = mount(fresh())
    file = make(fs, fs.root, b"a", b"one")
    held = opened_at(fs, flush(fs), b"a")
    fs.write(file, 0, b"two")
    flush(fs)
    fs.opened(held)
    fs.released(held)
    assert fs.ctx.inodes.is_held(held)
    fs.released(held)
    assert not fs.ctx.inodes.is_held(held)
    pruned(fs)
    assert not walk(fs, b"a").pruned


def test_pruning_deletes_an_inode_that_lost_its_name_and_was_forgotten() -> None:
    """DragonFly leaves such behind after a crash; the record that would say so is missing."""
    fs = mount(devices := fresh())
    file = make(fs, fs.root, b"a", b"x" * 100_000)
    fs.opened(file)
    flush(fs)
    fs.unlink(fs.root, b"a")
    flush(fs)
    held = pruned(fs)
    assert held.entries == 1
    assert any(element.obj_id == file.obj_id for element in elements(fs))
    crashed = [device.copy() for device in devices]
    fs = mount(crashed)
    for inode in list(fs.ctx.dirty.setup):  # what this mount would finish by itself, as nobody has told it
        fs.ctx.dirty.discard(inode)
        inode.trunc_off = None
        inode.orphaned = False
        fs.ctx.inodes.forget(inode)
    pruned(fs)
    pruned(fs)
    assert not [element for element in elements(fs) if element.obj_id == file.obj_id]
    fs.close_now()


def test_pruning_stops_before_it_gives_back_what_nobody_owns() -> None:
    fs = mount(fresh())
    file = make(fs, fs.root, b"a", b"x" * 100_000)
    flush(fs)
    fs.unlink(fs.root, b"a")
    flush(fs)
    victim = next(e for e in elements(fs) if e.rec_type == RECTYPE_DATA and e.obj_id == file.obj_id)
    fs.ctx.freemap.layer2(bigblock_of(victim.data_offset)).bytes_free = BIGBLOCK_SIZE
    with pytest.raises(CorruptionError):
        run_work(fs, prune(fs, 0, Everything(), never))
    assert fs.failure is None
    assert victim in elements(fs)


def copy_of(fs: FileSystem, victim: LeafElement, **fields: int) -> LeafElement:
    """A damaged copy of a record in the tree: it names the same bytes, but no sound writer made it."""
    copy = victim._replace(**fields)
    fs.ctx.tree.insert(copy.packed_key(), copy.pack(), 0)
    return copy


def data_record(fs: FileSystem, file: Inode) -> LeafElement:
    return next(e for e in elements(fs) if e.rec_type == RECTYPE_DATA and e.obj_id == file.obj_id)


@pytest.mark.parametrize(
    "fields",
    [{"rec_type": 0x0812}, {"rec_type": RECTYPE_SNAPSHOT}, {"key": 5, "data_len": -112}, {"localization": 5}],
    ids=["unknown type", "other type", "size", "localization"],
)
def test_the_damaged_copy_of_a_record_does_not_give_back_what_that_one_needs(fields: dict[str, int]) -> None:
    fs = mount(devices := fresh())
    make(fs, fs.root, b"gone", b"")
    file = make(fs, fs.root, b"a", b"x" * 100)
    flush(fs)
    victim = data_record(fs, file)
    taken = fs.ctx.freemap.layer2(bigblock_of(victim.data_offset)).bytes_free
    tid = fs.ctx.alloc_tid()
    copy = copy_of(fs, victim, delete_tid=tid, **fields)
    fs.unlink(fs.root, b"gone")
    flush(fs)
    outcome = run_work(fs, prune(fs, 0, Everything(), never))
    assert (outcome.damaged, outcome.entries) == (1, 1), "what lies behind it goes all the same"
    with pytest.raises(CorruptionError, match=r"damaged record of object 0x\w+, its space is left alone: "):
        end_record(fs.ctx, tid, copy.pack(), nohistory=True)
    assert fs.failure is None
    assert copy in elements(fs)
    assert fs.ctx.freemap.layer2(bigblock_of(victim.data_offset)).bytes_free == taken
    fs.close_now()
    assert not [problem for problem in check_devices(devices).problems if problem.kind == "accounting"]


def test_the_damaged_copy_of_a_snapshot_cannot_be_removed() -> None:
    fs = mount(devices := fresh())
    make(fs, fs.root, b"a", b"x" * 100)
    flush(fs)
    victim = next(e for e in elements(fs) if e.rec_type == RECTYPE_DIRENTRY)
    copy_of(fs, victim, rec_type=RECTYPE_SNAPSHOT, obj_id=OBJID_ROOT, key=0x100000018)
    with pytest.raises(CorruptionError, match="snapshot record of 17 bytes"):
        ask(fs, "snapshot-remove", tids=[0x100000018])
    fs.close_now()
    assert not [problem for problem in check_devices(devices).problems if problem.kind == "accounting"]


# --- reblocking ---------------------------------------------------------------------------------
def sparse(fs: FileSystem) -> None:
    """Four big-blocks of file data, of which every eighth MiB is left."""
    for number in range(32):
        make(fs, fs.root, b"%02d" % number, bytes([number + 1]) * MIB)
    flush(fs)
    for number in range(32):
        if number % 8:
            fs.unlink(fs.root, b"%02d" % number)
    flush(fs)
    pruned(fs)


def free(fs: FileSystem) -> int:
    return fs.ctx.root.free_bigblocks


def test_reblocking_frees_sparsely_filled_bigblocks() -> None:
    fs = mount(devices := fresh())
    sparse(fs)
    before = free(fs)
    assert reblocked(fs, 10).records_moved == 0
    outcome = reblocked(fs, 50)
    assert outcome.size_moved >= 3 * MIB
    assert free(fs) >= before + 2
    assert names(fs, fs.root) == [b"00", b"08", b"16", b"24"]
    for number in range(0, 32, 8):
        assert read(fs, b"%02d" % number) == bytes([number + 1]) * MIB
    fs.close_now()
    assert_clean(devices)
    fs = mount(devices)
    assert read(fs, b"24") == bytes([25]) * MIB


@pytest.mark.parametrize(
    ("parts", "localizations"),
    [
        (Parts.INODES, (1, 1)),
        (Parts.DIRS, (2, 2)),
        (Parts.DATA, (2, 2)),
        (Parts.BTREE, (0, 0xFFFF)),
        (Parts.EVERYTHING, (0, 0xFFFF)),
    ],
)
def test_only_the_records_that_may_hold_the_parts_are_looked_at(parts: Parts, localizations: tuple[int, int]) -> None:
    reach = range_of(0, parts)
    assert (reach.first.localization, reach.last.localization) == localizations
    later = Position(2, 7)
    assert range_of(0, parts, later).first == later


def test_reblocking_moves_only_the_parts_that_were_asked_for() -> None:
    fs = mount(fresh())
    make(fs, fs.root, b"a", b"x" * 100_000)
    flush(fs)
    places = {e.packed_key(): e.data_offset for e in elements(fs) if e.rec_type != RECTYPE_DATA}
    root = fs.ctx.tree.root_offset
    outcome = reblocked(fs, parts=Parts.DATA)
    assert (outcome.nodes, outcome.records) == (0, 7)
    assert {e.packed_key(): e.data_offset for e in elements(fs) if e.rec_type != RECTYPE_DATA} == places
    outcome = reblocked(fs, parts=Parts.BTREE)
    assert (outcome.nodes_moved, outcome.records) == (1, 0)
    assert fs.ctx.tree.root_offset != root


def test_damaged_data_stays_where_it_is() -> None:
    """A new CRC over it would make it look sound."""
    devices = fresh()
    fs = mount(devices)
    file = make(fs, fs.root, b"a", b"x" * 100_000)
    flush(fs)
    victim = next(e for e in elements(fs) if e.rec_type == RECTYPE_DATA and e.obj_id == file.obj_id)
    fs.ctx.volumes.write(victim.data_offset & (1 << 60) - 1 | 2 << 60, b"y")
    outcome = reblocked(fs)
    assert outcome.damaged == 1
    assert victim in elements(fs)
    with pytest.raises(CorruptionError):
        read(fs, b"a")


def test_the_damaged_copy_of_a_record_stays_where_it_is() -> None:
    fs = mount(devices := fresh())
    file = make(fs, fs.root, b"a", b"x" * 100)
    flush(fs)
    copy = copy_of(fs, data_record(fs, file), localization=5)
    assert reblocked(fs).damaged == 1
    assert copy in elements(fs)
    fs.close_now()
    assert not [problem for problem in check_devices(devices).problems if problem.kind == "accounting"]


def test_without_space_nothing_moves_and_pending_changes_keep_theirs() -> None:
    fs = mount(fresh())
    make(fs, fs.root, b"a", b"x" * 100_000)
    flush(fs)
    fs.ctx.root.free_bigblocks = 0
    with pytest.raises(NoSpaceError):
        run_work(fs, reblock(fs, range_of(0, Parts.DATA), Parts.DATA, 0, never))
    space = fs.ctx.space
    fs.ctx.root.free_bigblocks = 1 + fs.ctx.root.free_bigblocks - fs.ctx.blockmap.allocatable_bigblocks
    assert fs.ctx.blockmap.allocatable_bigblocks == 1
    assert space.can_move(True, pending=False)
    assert not space.can_move(False, pending=False)
    assert not space.can_move(True, pending=True)


def test_a_truncation_in_the_middle_of_its_flush_meets_data_that_was_moved() -> None:
    """The flusher gives way between two records; the one that it goes on with lies elsewhere by then."""
    fs = mount(devices := fresh(), nohistory=True)
    file = make(fs, fs.root, b"a", bytes(range(1, 251)) * 20_000)
    flush(fs)
    fs.setattr(file, size=0)
    flusher = flusher_of(fs)
    group = flusher.queue(None)
    flusher.start_group(group)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hammerfs.fs.sync_inode._RECORDS_PER_STRETCH", 3)
        for inode in iter(lambda: group.work.pop() if group.work else None, None):
            work = InodeSync(fs.ctx, group.tid, inode, never)
            for _ in work.run():
                outcome = result_of(reblock(fs, range_of(0, Parts.DATA), Parts.DATA, 0, never))
                assert outcome.records_moved == outcome.records > 0
            flusher._settle(group, inode, work)
    run_steps(fs.ctx, flusher.cycle.finalize(final=True))
    flusher.end_group(group)
    flusher.finish(group.seq)
    flush(fs)
    assert_settled(fs)
    assert not [e for e in elements(fs) if e.rec_type == RECTYPE_DATA and e.obj_id == file.obj_id]
    fs.close_now()
    assert_clean(devices)


def test_what_is_moved_is_written_before_it_is_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hammerfs.store.datablocks.SPILL_BYTES", 2 * MIB)
    fs = mount(fresh())
    make(fs, fs.root, b"a", b"x" * 8 * MIB)
    flush(fs)
    queued: list[int] = []

    def look() -> bool:
        queued.append(fs.ctx.blocks.queued_bytes)
        return False

    run_work(fs, reblock(fs, range_of(0, Parts.DATA), Parts.DATA, 0, look))
    assert MIB <= max(queued) < 3 * MIB
    assert len(queued) > 8


def test_what_reblocking_could_bring_is_told() -> None:
    fs = mount(fresh())
    call = Call(fs, fs.root, {})
    make(fs, fs.root, b"x", b"x" * 4 * MIB)
    flush(fs)
    assert run_work(fs, begin(find("reclaimable"), call)) == {"reclaimable": 0}
    sparse(fs)
    before = run_work(fs, begin(find("reclaimable"), call))["reclaimable"]
    assert before > 20 * MIB
    reblocked(fs, 90)
    assert run_work(fs, begin(find("reclaimable"), call))["reclaimable"] < before - 16 * MIB


# --- deduplication ------------------------------------------------------------------------------
def deduped(fs: FileSystem, memory: int = 1 << 30) -> DedupOutcome:
    outcome = run_work(fs, dedup(fs, 0, memory, never))
    flush(fs)
    return outcome


def data_places(fs: FileSystem) -> list[int]:
    return [e.data_offset for e in elements(fs) if e.rec_type == RECTYPE_DATA]


def test_equal_data_is_stored_once_and_counted_for_each_reference() -> None:
    fs = mount(devices := fresh())
    for name in (b"a", b"b", b"c"):
        make(fs, fs.root, name, b"same" * 16384 + name * 16384)
    flush(fs)
    simulated = run_work(fs, dedup(fs, 0, 1 << 30, never, simulate=True))
    assert len(set(data_places(fs))) == 15
    outcome = deduped(fs)
    assert (outcome.records, outcome.size) == (simulated.records, simulated.size) == (11, 11 * 16384)
    assert (outcome.referenced, outcome.allocated) == (15 * 16384, 4 * 16384)
    assert outcome.ratio == simulated.ratio == 3.75
    assert len(set(data_places(fs))) == 4
    assert deduped(fs).records == 0
    assert [read(fs, name) for name in (b"a", b"b", b"c")] == [
        b"same" * 16384 + name * 16384 for name in (b"a", b"b", b"c")
    ]
    assert_clean(devices)
    fs.unlink(fs.root, b"a")
    flush(fs)
    pruned(fs)
    assert_clean(devices)
    assert read(fs, b"c") == b"same" * 16384 + b"c" * 16384


def test_a_bigblock_may_owe_more_than_it_holds() -> None:
    fs = mount(devices := fresh())
    for number in range(20):
        make(fs, fs.root, b"%02d" % number, b"x" * MIB)
    flush(fs)
    outcome = deduped(fs)
    assert outcome.allocated == 16384
    place = data_places(fs)[0]
    assert fs.ctx.freemap.layer2(bigblock_of(place)).bytes_free == BIGBLOCK_SIZE - 20 * MIB
    assert_clean(devices)
    for number in range(20):
        fs.unlink(fs.root, b"%02d" % number)
    flush(fs)
    pruned(fs)
    assert fs.ctx.freemap.layer2(bigblock_of(place)).zone == 0
    assert_clean(devices)


def test_different_data_of_equal_crc_stays_apart() -> None:
    fs = mount(fresh())
    collision = same_crc(fs)
    make(fs, fs.root, b"a", collision[0])
    make(fs, fs.root, b"b", collision[1])
    make(fs, fs.root, b"c", collision[1])
    flush(fs)
    outcome = deduped(fs)
    assert (outcome.collisions, outcome.records) == (2, 1)
    assert [read(fs, name) for name in (b"a", b"b", b"c")] == [*collision, collision[1]]


def same_crc(fs: FileSystem) -> tuple[bytes, bytes]:
    """Two contents of one CRC: it is linear, so 33 changes of one byte each depend on each other."""
    size = 16384
    zero = fs.ctx.checksum(bytes(size))
    rows: list[tuple[int, int]] = []
    for place in range(40):
        changed = bytearray(size)
        changed[place] = 1
        value, mask = fs.ctx.checksum(bytes(changed)) ^ zero, 1 << place
        for other, other_mask in rows:
            if value ^ other < value:
                value, mask = value ^ other, mask ^ other_mask
        if not value:
            found = bytearray(size)
            for bit in range(40):
                found[bit] = mask >> bit & 1
            return bytes(size), bytes(found)
        rows.append((value, mask))
        rows.sort(reverse=True)
    raise AssertionError("no CRC has more than 32 bits")


def test_little_memory_takes_several_passes_and_can_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hammerfs.ops.dedup._ENTRIES_MIN", 4)
    fs = mount(devices := fresh())
    for number in range(12):
        make(fs, fs.root, b"a%02d" % number, bytes([number + 1]) * 16384)
        make(fs, fs.root, b"b%02d" % number, bytes([number + 1]) * 16384)
    flush(fs)
    calls = iter([False, True])
    first = run_work(fs, dedup(fs, 0, 0, lambda: next(calls)))
    assert first.interrupted
    assert first.crc_begin > 0
    second = run_work(fs, dedup(fs, 0, 0, never, crc_begin=first.crc_begin))
    assert first.records + second.records == 12
    assert len(set(data_places(fs))) == 12
    flush(fs)
    assert_clean(devices)


def test_dedup_leaves_damaged_data_alone() -> None:
    fs = mount(fresh())
    make(fs, fs.root, b"a", b"x" * 16384)
    make(fs, fs.root, b"b", b"x" * 16384)
    flush(fs)
    fs.ctx.volumes.write(data_places(fs)[0] & (1 << 60) - 1 | 2 << 60, b"y")
    outcome = deduped(fs)
    assert (outcome.skipped, outcome.records) == (16384, 0)
    assert read(fs, b"b") == b"x" * 16384


def test_dedup_leaves_the_damaged_copy_of_a_record_alone() -> None:
    """Data in the wrong zone: nothing else says whether it is the copy's own."""
    fs = mount(devices := fresh())
    content = b"x" * (3 * 16384)
    files = [make(fs, fs.root, name, content) for name in (b"a", b"b")]
    flush(fs)
    one, other = (data_record(fs, file) for file in files)
    odd = one._replace(data_len=32768, data_crc=fs.ctx.checksum(content[:32768]), data_offset=one.data_offset + 8)
    copies = [copy_of(fs, odd, key=1 << 20), copy_of(fs, odd, key=1 << 21, data_offset=other.data_offset + 24)]
    outcome = deduped(fs)
    assert outcome.skipped == 32768
    assert all(copy in elements(fs) for copy in copies)
    fs.close_now()
    assert not [problem for problem in check_devices(devices).problems if problem.kind == "accounting"]


def test_dedup_needs_version_5() -> None:
    fs = mount(fresh(4))
    with pytest.raises(UsageError):
        run_work(fs, dedup(fs, 0, 1 << 30, never))


def test_a_crowded_bigblock_takes_no_more_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hammerfs.ops.dedup.BYTES_FREE_MIN", BIGBLOCK_SIZE - 4 * 16384)
    fs = mount(devices := fresh())
    make(fs, fs.root, b"a", b"x" * 16384 * 4)
    flush(fs)
    outcome = deduped(fs)
    assert outcome.underflows > 0
    assert outcome.records == 0
    assert_clean(devices)


# --- rebalancing --------------------------------------------------------------------------------
def tree_nodes(fs: FileSystem) -> int:
    """Nodes as the freemap counts them."""
    bigblocks: Iterable[int] = {bigblock_of(fs.ctx.tree.root_offset)}
    return sum((BIGBLOCK_SIZE - fs.ctx.freemap.layer2(bigblock).bytes_free) // NODE_SIZE for bigblock in bigblocks)


def test_rebalancing_needs_fewer_nodes_for_the_same_records() -> None:
    fs = mount(devices := fresh())
    for number in range(1500):
        make(fs, fs.root, b"%04d" % number, b"")
    flush(fs)
    for number in range(1500):
        if number % 5:
            fs.unlink(fs.root, b"%04d" % number)
    flush(fs)
    pruned(fs)
    before, nodes = elements(fs), tree_nodes(fs)
    outcome = run_work(fs, rebalance(fs, RecordRange(0), saturation_of(85), never))
    flush(fs)
    assert elements(fs) == before
    assert outcome.removed > 0
    assert tree_nodes(fs) == nodes - outcome.removed
    assert tree_nodes(fs) <= -(-len(before) // 52) + 2
    again = run_work(fs, rebalance(fs, RecordRange(0), saturation_of(85), never))
    assert again.removed == 0
    fs.close_now()
    assert_clean(devices)


def test_an_interrupted_rebalance_says_where() -> None:
    fs = mount(fresh())
    for number in range(300):
        make(fs, fs.root, b"%04d" % number, b"")
    flush(fs)
    answers = iter([False, True])
    outcome = run_work(fs, rebalance(fs, RecordRange(0), saturation_of(100), lambda: next(answers)))
    assert outcome.interrupted
    assert outcome.position > FIRST


@pytest.mark.parametrize(("percentage", "saturation"), [(85, 52), (100, 62), (50, 31), (1, 31), (1000, 62)])
def test_saturation(percentage: int, saturation: int) -> None:
    assert saturation_of(percentage) == saturation
