"""Mirroring below the programs: what a source tells, and what a slave makes of it."""

from __future__ import annotations

import pytest
from mirror_pair import SLAVE, apply, batch, complete, lose_data, make_slave, mirror, settle, slave_root, synced, tree
from small_filesystem import assert_clean, fresh, make, mount

from hammerfs.device.memory import MemoryDevice
from hammerfs.errors import FileOperationError, StreamError
from hammerfs.fs.mirrorread import Lost, changes
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.constants import MAX_KEY, MAX_TID, MIN_KEY
from hammerfs.ondisk.element import pack_key, unpack_leaf
from hammerfs.ondisk.mirror import Pass, Record, Skip


@pytest.fixture
def volumes() -> list[list[MemoryDevice]]:
    return [fresh(), fresh()]


def pair(volumes: list[list[MemoryDevice]]) -> tuple[FileSystem, FileSystem]:
    """A source, and a file system with an empty slave."""
    source, target = (mount(devices) for devices in volumes)
    make_slave(target)
    return source, target


def read_in(fs: FileSystem, name: bytes) -> bytes:
    """What a file in the slave holds."""
    inode = fs.lookup(slave_root(fs), name)
    return fs.read(inode, 0, inode.data.size)


def finish(volumes: list[list[MemoryDevice]], *mounts: FileSystem) -> None:
    for fs in mounts:
        fs.close_now()
    for devices in volumes:
        assert_clean(devices)


def test_a_slave_is_what_its_source_was(volumes: list[list[MemoryDevice]]) -> None:
    source, target = pair(volumes)
    folder = make(source, source.root, b"folder")
    files = [make(source, folder, b"file%d" % number, bytes([number]) * (number * 7000)) for number in range(30)]
    source.symlink(source.root, b"link", b"somewhere/" * 10, 0, 0)
    source.setxattr(folder, b"user.note", b"kept")
    mirror(source, target)
    before = tree(source, source.root)
    assert tree(target, slave_root(target)) == before
    source.write(files[20], 5000, b"changed")
    source.unlink(folder, b"file3")
    source.rename(folder, b"file4", source.root, b"moved")
    settle(source)
    assert tree(target, slave_root(target)) == before
    records = mirror(source, target)
    assert tree(target, slave_root(target)) == tree(source, source.root) != before
    assert sum(isinstance(record, Record) for record in records) < 20
    finish(volumes, source, target)


def test_the_history_comes_along(volumes: list[list[MemoryDevice]]) -> None:
    source, target = pair(volumes)
    file = make(source, source.root, b"file", b"one")
    moments = [settle(source)]
    for content in (b"two", b"three"):
        source.write(file, 0, content)
        moments.append(settle(source))
    mirror(source, target)
    views = [target.inode(0x10000, file.obj_id, moment) for moment in moments]
    assert [target.read(view, 0, 10) for view in views] == [b"one", b"two", b"three"]
    finish(volumes, source, target)


def test_a_slave_is_read_only_and_empty_until_its_first_batch(volumes: list[list[MemoryDevice]]) -> None:
    source, target = pair(volumes)
    with pytest.raises(FileOperationError):
        slave_root(target)
    make(source, source.root, b"file", b"content")
    mirror(source, target)
    root = slave_root(target)
    assert root.read_only
    assert target.lookup(root, b"file").read_only
    finish(volumes, source, target)


def test_what_did_not_change_is_skipped_and_the_rest_of_its_leaf_passed(volumes: list[list[MemoryDevice]]) -> None:
    source, target = pair(volumes)
    files = [make(source, source.root, b"file%d" % number, b"content") for number in range(2000)]
    mirror(source, target)
    source.setattr(files[1500], mode=0o600)
    records = mirror(source, target)
    kinds = [type(record) for record in records]
    assert kinds.count(Record) == 1
    assert 1 <= kinds.count(Pass) < 300
    assert kinds.count(Skip) >= 2
    assert tree(target, slave_root(target)) == tree(source, source.root)
    finish(volumes, source, target)


def test_a_batch_shows_its_end_even_if_the_source_goes_on(volumes: list[list[MemoryDevice]]) -> None:
    source, target = pair(volumes)
    doomed = make(source, source.root, b"doomed", b"still here")
    end = settle(source)
    source.unlink(source.root, b"doomed")
    make(source, source.root, b"young", b"not yet")
    settle(source)
    apply(target, batch(source, 1, end), end)
    assert target.read(target.inode(0x10000, doomed.obj_id, end), 0, 99) == b"still here"
    records = batch(source, 1, end)
    assert all(not record.leaf.delete_tid and record.leaf.create_tid <= end for record in records)  # type: ignore[union-attr]
    later = settle(source)
    records = batch(source, end + 1, later)
    assert any(isinstance(record, Pass) and record.leaf.delete_tid for record in records)
    apply(target, records, later)
    with pytest.raises(FileOperationError):
        target.inode(0x10000, doomed.obj_id, later)
    finish(volumes, source, target)


def test_the_source_may_change_while_it_is_read(volumes: list[list[MemoryDevice]]) -> None:
    source, target = pair(volumes)
    for number in range(500):
        make(source, source.root, b"file%d" % number, b"x" * number)
    end = settle(source)
    before = tree(source, source.root)
    records = []
    told = (record for record in changes(source.ctx, 0, 1, end) if record is not None)
    for number, record in enumerate(told):
        records.append(record)
        if number % 40 == 0:
            source.unlink(source.root, b"file%d" % (number // 40))
            make(source, source.root, b"new%d" % number, b"young")
            settle(source)
    keys = [record.leaf.packed_key() for record in records if not isinstance(record, Skip)]
    assert keys == sorted(set(keys))
    apply(target, records, end)
    root = target.inode(0x10000, 1, end)
    assert tree(target, root).keys() == before.keys()
    finish(volumes, source, target)


def test_what_is_gone_without_history_is_deleted_at_the_slave(volumes: list[list[MemoryDevice]]) -> None:
    source, target = mount(volumes[0], nohistory=True), mount(volumes[1])
    make_slave(target)
    for number in range(1000):
        make(source, source.root, b"file%d" % number, b"content")
    mirror(source, target)
    for number in range(100, 900):
        source.unlink(source.root, b"file%d" % number)
    mirror(source, target)
    assert tree(target, slave_root(target)) == tree(source, source.root)
    finish(volumes, source, target)


def test_what_is_gone_behind_everything_else_is_deleted_too(volumes: list[list[MemoryDevice]]) -> None:
    source, target = mount(volumes[0], nohistory=True), mount(volumes[1])
    make_slave(target)
    make(source, source.root, b"first", b"content")
    last = make(source, source.root, b"last", b"content")
    mirror(source, target)
    source.unlink(source.root, b"last")
    mirror(source, target)
    high = pack_key(0x10002, last.obj_id, 0xFFFF, MAX_KEY, MAX_TID)
    left = list(target.ctx.tree.scan_as_of(pack_key(0x10001, last.obj_id, 0, MIN_KEY, 1), high, MAX_TID))
    assert all(unpack_leaf(raw).obj_id != last.obj_id for raw in left)
    finish(volumes, source, target)


def test_a_batch_that_was_cut_off_comes_again(volumes: list[list[MemoryDevice]]) -> None:
    source, target = pair(volumes)
    for number in range(100):
        make(source, source.root, b"file%d" % number, b"x" * 20000)
    end = settle(source)
    records = batch(source, 1, end)
    for part in (1, 50, 200, 400):
        apply(target, records[:part], end)
        settle(target)
        assert synced(target) == 0
    mirror(source, target)
    assert tree(target, slave_root(target)) == tree(source, source.root)
    finish(volumes, source, target)


def test_a_long_batch_takes_many_cycles(volumes: list[list[MemoryDevice]]) -> None:
    source, target = pair(volumes)
    for number in range(1000):
        make(source, source.root, b"a rather long name of a file %d" % number, b"content")
    assert target.flusher is not None
    target.flusher.cycle._meta_limit = 256 * 1024
    cycles = target.ctx.blockmap.cycle
    mirror(source, target)
    assert target.ctx.blockmap.cycle > cycles + 3
    assert tree(target, slave_root(target)) == tree(source, source.root)
    finish(volumes, source, target)


def test_a_stream_that_cannot_belong_here_is_refused(volumes: list[list[MemoryDevice]]) -> None:
    source, target = pair(volumes)
    make(source, source.root, b"file", b"content")
    end = settle(source)
    records = batch(source, 1, end)
    with pytest.raises(StreamError, match="out of order"):
        apply(target, reversed(records), end)
    with pytest.raises(StreamError, match="holds a record of TID"):
        apply(target, records, 5)
    with pytest.raises(StreamError, match="impossible TID"):
        apply(target, records, MAX_TID - 1)
    make(source, source.root, b"other", b"content")
    end = settle(source)
    last = next(record for record in reversed(batch(source, 1, end)) if isinstance(record, Record) and record.data)
    with pytest.raises(StreamError, match="damaged data"):
        apply(target, [Record(last.element, bytes(len(last.data)))], end)
    odd = last.leaf._replace(rec_type=0x99).pack()
    with pytest.raises(StreamError, match="type 0x99"):
        apply(target, [Record(odd, last.data)], end)
    local = last.leaf._replace(localization=3).pack()
    with pytest.raises(StreamError, match="localization 0x10003"):
        apply(target, [Record(local, last.data)], end)
    finish(volumes, source, target)


def test_data_that_was_damaged_at_the_source_is_left_out(volumes: list[list[MemoryDevice]]) -> None:
    source, target = pair(volumes)
    make(source, source.root, b"file", b"content")
    end = settle(source)
    records = batch(source, 1, end)
    last = records[-1]
    assert isinstance(last, Record)
    assert apply(target, [*records[:-1], Record(last.element, last.data, damaged=True)], end).damaged == 1
    finish(volumes, source, target)


@pytest.mark.parametrize(
    "fields",
    [{"data_offset": 5 << 60}, {"data_len": -8}, {"data_len": 1 << 30}, {"rec_type": 0x0812}],
    ids=["zone", "negative", "huge", "type"],
)
def test_a_record_with_impossible_data_goes_without_and_all_others_arrive(
    volumes: list[list[MemoryDevice]], fields: dict[str, int]
) -> None:
    source, target = pair(volumes)
    for name in (b"early", b"hurt", b"late"):
        make(source, source.root, name, name * 100)
    end = settle(source)
    intact = batch(source, 1, end)
    lose_data(source, source.root, b"hurt", **fields)
    (lost,) = [record for record in changes(source.ctx, 0, 1, end) if isinstance(record, Lost)]
    assert lost.why
    told = batch(source, 1, end)
    assert len(told) == len(intact)
    complete(target, told, end)
    for name in (b"early", b"late"):
        assert read_in(target, name) == name * 100
    assert read_in(target, b"hurt") == bytes(400)
    complete(target, intact, end)
    assert read_in(target, b"hurt") == b"hurt" * 100
    complete(target, told, end)
    assert read_in(target, b"hurt") == b"hurt" * 100, "what the slave has is better than what the source has"
    target.close_now()
    assert_clean(volumes[1])


@pytest.mark.parametrize("versions", [(6, 7), (7, 6), (1, 7), (7, 2)])
def test_between_versions(versions: tuple[int, int]) -> None:
    volumes = [fresh(version) for version in versions]
    source, target = pair(volumes)
    folder = make(source, source.root, b"folder")
    for number in range(20):
        make(source, folder, b"file%d" % number, b"x" * 9000)
    mirror(source, target)
    assert tree(target, slave_root(target)) == tree(source, source.root)
    finish(volumes, source, target)


def test_from_slave_to_slave(volumes: list[list[MemoryDevice]]) -> None:
    source, target = pair(volumes)
    third = mount(fresh())
    make_slave(third)
    make(source, source.root, b"file", b"content")
    mirror(source, target)
    end = synced(target)
    apply(third, batch(target, 1, end, SLAVE), end)
    assert tree(third, third.inode(0x10000, 1, end)) == tree(source, source.root)
    finish(volumes, source, target)
