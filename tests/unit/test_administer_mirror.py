"""Mirroring as operations: what they tell and refuse, beside other requests and alone."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from administration import ask, steps_of
from flusher_control import running
from mirror_pair import batch, make_slave, mirror, settle, slave_root, synced, tree
from small_filesystem import FSID, assert_clean, fresh, make, mount

from hammerfs.errors import (
    BusyError,
    FileOperationError,
    FlushFailedError,
    HammerError,
    StreamError,
    UsageError,
)
from hammerfs.fs.metadata import insert_record
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.work import Data, Done, Emit, Phase, carry_out
from hammerfs.ondisk.address import pfs_localization
from hammerfs.ondisk.constants import LOCALIZE_INODE, MAX_OBJID, RECTYPE_CONFIG
from hammerfs.ondisk.mirror import Record, Skip, StreamParser, Sync, Term, packed
from hammerfs.ondisk.pfs import PfsData
from hammerfs.ops.operation import Call
from hammerfs.ops.registry import begin, find


class Peer:
    """Gives pieces of a stream, and keeps what it gets."""

    def __init__(self, *pieces: bytes) -> None:
        self.content = b""
        self.items: list[dict[str, object]] = []
        self._pieces = list(pieces)

    def tell(self, step: Phase | Done | Emit | Data) -> None:
        if isinstance(step, Data):
            self.content += step.content
        elif isinstance(step, Emit):
            self.items.append(step.item)

    def receive(self, limit: int) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


class DistantPeer(Peer):
    async def tell(self, step: Phase | Done | Emit | Data) -> None:  # type: ignore[override]
        super().tell(step)

    async def receive(self, limit: int) -> bytes:  # type: ignore[override]
        await trio.lowlevel.checkpoint()
        return super().receive(limit)


def filled(count: int = 50) -> FileSystem:
    fs = mount(fresh())
    for number in range(count):
        make(fs, fs.root, b"file%d" % number, b"x" * number * 100)
        settle(fs)
    return fs


def with_slave() -> FileSystem:
    fs = mount(fresh())
    make_slave(fs)
    fs.symlink(fs.root, b"slave", b"@@PFS00001", 0, 0)
    return fs


def test_the_state_of_a_master_includes_what_was_accepted_if_that_is_asked_for() -> None:
    fs = filled()
    make(fs, fs.root, b"late", b"content")
    before = PfsData(bytes.fromhex(ask(fs, "mirror-state")["record"]))
    after = PfsData(bytes.fromhex(ask(fs, "mirror-state", sync=True)["record"]))
    assert before.sync_end_tid < after.sync_end_tid == settle(fs)
    assert after.shared_uuid == FSID
    assert not after.is_slave


def test_a_pfs_is_found_by_number_by_name_and_by_place() -> None:
    fs = with_slave()
    assert ask(fs, "mirror-state", pfs=1)["pfs"] == 1
    assert ask(fs, "mirror-state", name="slave")["pfs"] == 1
    make(fs, fs.root, b"file", b"")
    assert ask(fs, "mirror-state", name="file")["pfs"] == 0
    assert ask(fs, "mirror-state")["pfs"] == 0
    with pytest.raises(UsageError, match="no PFS 7"):
        ask(fs, "mirror-state", pfs=7)
    with pytest.raises(FileOperationError):
        ask(fs, "mirror-state", name="absent")


def test_a_mount_of_one_pfs_gives_access_to_that_one_only() -> None:
    devices = fresh()
    source, target = filled(), mount(devices)
    make_slave(target)
    mirror(source, target)
    target.close_now()
    fs = mount(devices, pfs=1)
    assert ask(fs, "mirror-state")["pfs"] == 1
    with pytest.raises(UsageError, match="not part of what is mounted"):
        ask(fs, "mirror-state", pfs=0)


def test_a_batch_is_read_as_bytes_and_may_be_interrupted() -> None:
    fs = filled()
    end = settle(fs)
    peer = Peer()
    told = ask(fs, "mirror-read", None, peer, begin=1, end=end)
    records = batch(fs, 1, end)
    assert told == {"complete": True, "records": len(records)}
    assert peer.content == b"".join(map(packed, records))
    asked = iter(range(1000))
    cut = Peer()
    told = ask(fs, "mirror-read", None, cut, lambda: next(asked) > 60, begin=1, end=end)
    assert told == {"complete": False, "records": 61}
    assert peer.content.startswith(cut.content)


def test_a_batch_tells_which_object_it_has_come_to() -> None:
    fs = filled()
    end = settle(fs)
    peer = Peer()
    ask(fs, "mirror-read", None, peer, begin=1, end=end)
    last = batch(fs, 1, end)[-1]
    assert not isinstance(last, Skip)
    assert peer.items[-1] == {"at": last.leaf.obj_id}
    later = Peer()
    ask(fs, "mirror-read", None, later, begin=end + 1, end=end + 5)
    assert later.items == [{"at": MAX_OBJID}], "what was passed over counts, too"


def test_a_range_is_cut_at_transactions() -> None:
    fs = filled()
    end = settle(fs)
    told = ask(fs, "mirror-split", begin=1, end=end, bytes=20_000)
    ends = [item["end"] for item in told["batches"]]
    assert ends == sorted(set(ends))
    assert ends[-1] == end
    assert len(ends) > 4
    assert all(20_000 <= item["bytes"] < 40_000 for item in told["batches"][:-1])
    assert sum(item["bytes"] for item in told["batches"]) == told["bytes"]
    parts = []
    first = 1
    for last in ends:
        parts += [record for record in batch(fs, first, last) if isinstance(record, Record)]
        first = last + 1
    whole = [record for record in batch(fs, 1, end) if isinstance(record, Record)]
    assert {record.leaf.packed_key() for record in parts} == {record.leaf.packed_key() for record in whole}
    assert ask(fs, "mirror-split", begin=end + 1, end=end + 5, bytes=5)["batches"] == [{"end": end + 5, "bytes": 0}]


def test_a_stream_that_breaks_the_rules_is_refused_and_leaves_the_slave_as_it_was() -> None:
    source, target = filled(), with_slave()
    end = settle(source)
    stream = b"".join(map(packed, batch(source, 1, end)))
    for given, complaint in (
        (stream + packed(Term()), "only those of the B-tree"),
        (stream + packed(Sync()) + packed(Sync()), "only those of the B-tree"),
        (stream[:-8], "middle of a record"),
        (b"nonsense" * 10, "no mirroring stream"),
    ):
        with pytest.raises(StreamError, match=complaint):
            ask(target, "mirror-write", None, Peer(given), pfs=1, begin=1, end=end)
        assert synced(target) == 0
    with pytest.raises(StreamError, match="is no slave"):
        ask(target, "mirror-write", None, Peer(stream), pfs=0, begin=1, end=end)
    with pytest.raises(StreamError, match="no PFS 3"):
        ask(target, "mirror-synced", pfs=3, tid=end)
    assert not ask(target, "mirror-write", None, Peer(stream), pfs=1, begin=1, end=end)["complete"]


def test_two_batches_do_not_meet_in_one_slave() -> None:
    source, target = filled(), with_slave()
    end = settle(source)
    work = steps_of(target, "mirror-write", pfs=1, begin=1, end=end)
    next(work)
    with pytest.raises(BusyError):
        ask(target, "mirror-write", None, Peer(), pfs=1, begin=1, end=end)
    with pytest.raises(BusyError):
        ask(target, "mirror-synced", pfs=1, tid=end)
    work.close()  # type: ignore[attr-defined]
    ask(target, "mirror-synced", pfs=1, tid=end)


@pytest.mark.trio
async def test_a_busy_mount_is_mirrored_to() -> None:
    """While batches arrive, files come and go beside them and flushes run."""
    source = filled(120)
    devices = fresh()
    target = mount(devices)
    make_slave(target)
    assert target.flusher is not None
    target.flusher.cycle._meta_limit = 256 * 1024
    end = settle(source)
    stream = b"".join(map(packed, [*batch(source, 1, end), Sync()]))
    pieces = [stream[at : at + 3001] for at in range(0, len(stream), 3001)]
    done = trio.Event()

    async def bustle() -> None:
        number = 0
        while not done.is_set():
            make(target, target.root, b"busy%d" % number, b"y" * 3000)
            if number % 5 == 0:
                await target.sync()
            number += 1
            await trio.lowlevel.checkpoint()

    async with running(target), trio.open_nursery() as nursery:
        nursery.start_soon(bustle)
        for operation, peer, arguments in (
            ("mirror-write", DistantPeer(*pieces), {"pfs": 1, "begin": 1, "end": end}),
            ("mirror-synced", DistantPeer(), {"pfs": 1, "tid": end}),
        ):
            work = begin(find(operation), Call(target, target.root, arguments))
            await carry_out(target, work, peer)
        done.set()
    assert tree(target, slave_root(target)) == tree(source, source.root)
    target.close_now()
    assert_clean(devices)


@pytest.mark.trio
async def test_a_busy_mount_is_mirrored_from() -> None:
    source, target = filled(200), with_slave()
    end = settle(source)
    shown = tree(source, source.root)
    peer = DistantPeer()

    async def bustle() -> None:
        for number in range(150):
            source.unlink(source.root, b"file%d" % number)
            make(source, source.root, b"busy%d" % number, b"y" * 3000)
            if number % 10 == 0:
                await source.sync()
            await trio.lowlevel.checkpoint()

    async with running(source), trio.open_nursery() as nursery:
        nursery.start_soon(bustle)
        work = begin(find("mirror-read"), Call(source, source.root, {"begin": 1, "end": end}))
        told = await carry_out(source, work, peer)
    parser = StreamParser()
    parser.feed(peer.content)
    while parser.next_record() is not None:
        pass
    parser.finish()
    assert told["complete"]
    ask(target, "mirror-write", None, Peer(peer.content, packed(Sync())), pfs=1, begin=1, end=end)
    ask(target, "mirror-synced", pfs=1, tid=end)
    assert tree(target, slave_root(target)) == shown


def test_every_refusal_is_a_sentence() -> None:
    fs = filled(1)
    for operation, arguments in (
        ("mirror-read", {}),
        ("mirror-split", {"begin": 1, "end": 5}),
        ("mirror-write", {"begin": "x", "end": 5}),
        ("mirror-synced", {}),
    ):
        with pytest.raises(HammerError):
            ask(fs, operation, **arguments)


# --- waiting for the source ---------------------------------------------------------------------


@pytest.mark.trio
async def test_whoever_waits_for_a_source_hears_of_it_at_once_and_of_nothing_else() -> None:
    fs = filled(3)
    heard: list[int] = []

    async def wait(end: int) -> None:
        work = begin(find("mirror-await"), Call(fs, fs.root, {"end": end}))
        heard.append((await carry_out(fs, work, DistantPeer()))["tid"])

    async with running(fs) as flusher, trio.open_nursery() as nursery:
        end = flusher.cycle.flush_tid1
        nursery.start_soon(wait, end)
        await trio.testing.wait_all_tasks_blocked()
        assert fs.quiet, "a request would take the slow way while somebody waits"
        make(fs, fs.root, b"more", b"content")
        await trio.testing.wait_all_tasks_blocked()
        assert heard == []
        await flusher.sync()
        await trio.testing.wait_all_tasks_blocked()
        assert heard == [flusher.cycle.flush_tid1]
        assert heard[0] > end
        await wait(end)
        assert heard[1] == heard[0]
    assert fs.works == 0


@pytest.mark.trio
async def test_what_happens_elsewhere_is_no_news() -> None:
    """As long as it leaves the leaves of the PFS alone."""
    fs = filled(60)
    heard: list[int] = []

    async def wait(end: int) -> None:
        work = begin(find("mirror-await"), Call(fs, fs.root, {"pfs": 0, "end": end}))
        heard.append((await carry_out(fs, work, DistantPeer()))["tid"])

    def insert(number: int) -> None:
        localization = pfs_localization(9000) | LOCALIZE_INODE
        insert_record(fs.ctx, fs.ctx.alloc_tid(), localization, 1 << 33, RECTYPE_CONFIG, number, 0, b"x")

    for number in range(200):
        insert(number)
    settle(fs)
    async with running(fs) as flusher, trio.open_nursery() as nursery:
        nursery.start_soon(wait, flusher.cycle.flush_tid1)
        await trio.testing.wait_all_tasks_blocked()
        insert(10_000)
        await flusher.sync()
        await trio.testing.wait_all_tasks_blocked()
        assert heard == []
        fs.unlink(fs.root, b"file7")
        await flusher.sync()
        await trio.testing.wait_all_tasks_blocked()
        assert len(heard) == 1


@pytest.mark.trio
@pytest.mark.expect_log("read-only from now on")
async def test_a_flusher_that_fails_ends_the_wait() -> None:
    fs = filled(3)

    async def wait(end: int) -> None:
        with pytest.raises(FlushFailedError, match="as tests want it"):
            await carry_out(fs, begin(find("mirror-await"), Call(fs, fs.root, {"end": end})), DistantPeer())

    async with trio.open_nursery() as nursery, running(fs) as flusher:
        nursery.start_soon(wait, flusher.cycle.flush_tid1)
        await trio.testing.wait_all_tasks_blocked()
        flusher.critical_error(FlushFailedError("as tests want it"))


@pytest.mark.trio
async def test_on_a_read_only_mount_one_waits_for_ever() -> None:
    fs = mount(fresh(), read_only=True)
    work = begin(find("mirror-await"), Call(fs, fs.root, {"end": fs.ctx.root.next_tid}))
    with trio.move_on_after(0) as scope:
        await carry_out(fs, work, DistantPeer())
    assert scope.cancelled_caught
    assert fs.works == 0


def test_what_nobody_has_mounted_is_not_waited_for() -> None:
    with pytest.raises(UsageError, match="does not change"):
        ask(filled(1), "mirror-await", end=0)


# --- within one file system ---------------------------------------------------------------------


def test_batches_within_a_file_system_are_refused_where_the_source_has_no_such_range() -> None:
    fs = with_slave()
    end = settle(fs)
    for source, first, last in ((0, 5, 4), (0, -1, 4), (0, 1, end + 16), (7, 1, end), (-1, 1, end)):
        with pytest.raises(UsageError):
            ask(fs, "mirror-within", pfs=1, source=source, begin=first, end=last)
    with pytest.raises(StreamError, match="no slave"):
        ask(fs, "mirror-within", pfs=0, source=0, begin=1, end=end)
    fs.close_now()
