"""DragonFly's mirroring streams: parsed and packed again, made again from its master, written into a slave of ours."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from judge import Golden, as_tree, closing, differences, problems, view
from small_filesystem import fresh, mount

from hammerfs.device.memory import MemoryDevice
from hammerfs.fs.mirrorread import changes, source_state
from hammerfs.fs.mirrorwrite import BatchWriter, set_sync_tid
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.options import MountOptions
from hammerfs.fs.recorddata import read_data
from hammerfs.fs.rootrecords import save_pfs
from hammerfs.ondisk.address import Localization, pfs_localization
from hammerfs.ondisk.constants import (
    INODE_CRC_SIZE,
    LOCALIZE_MASK,
    MREC_PASS,
    MREC_PFSD,
    MREC_REC,
    MREC_SKIP,
    MREC_SYNC,
    MREC_TERM,
    OBJID_ROOT,
    PFSD_SLAVE,
    RECTYPE_INODE,
)
from hammerfs.ondisk.element import LeafElement, element_key, first_key, last_key, unpack_leaf
from hammerfs.ondisk.mirror import (
    Header,
    Pass,
    Record,
    Skip,
    StreamParser,
    StreamRecord,
    Sync,
    Term,
    packed,
)
from hammerfs.ondisk.pfs import PfsData

STREAMS = ("g5-mirror1.bin", "g5-mirror2.bin")
MASTER, SLAVE = 1, 1
TYPES = {
    Record: MREC_REC,
    Header: MREC_PFSD,
    Sync: MREC_SYNC,
    Skip: MREC_SKIP,
    Pass: MREC_PASS,
    Term: MREC_TERM,
}


def parsed(raw: bytes) -> list[StreamRecord]:
    parser = StreamParser()
    parser.feed(raw)
    records = []
    while (record := parser.next_record()) is not None:
        records.append(record)
    parser.finish()
    return records


def write(fs: FileSystem, records: list[StreamRecord]) -> None:
    """Apply a whole stream to the slave."""
    assert fs.flusher is not None
    headers = [record.data for record in records if isinstance(record, Header)]
    end = headers[-1].sync_end_tid
    writer = BatchWriter(fs.ctx, SLAVE, headers[-1].sync_beg_tid, end)
    for record in records:
        if isinstance(record, Record | Pass | Skip):
            for _ in writer.apply(record):
                pass
    set_sync_tid(fs.ctx, SLAVE, end)
    fs.flusher.flush_now()


def slave_like(devices: list[MemoryDevice], record: PfsData) -> FileSystem:
    """A mounted file system of ours with an empty slave of the same master."""
    fs = mount(devices)
    data = PfsData(bytearray(record.copy()))
    data.sync_end_tid, data.mirror_flags = 0, PFSD_SLAVE
    save_pfs(fs.ctx, SLAVE, data)
    return fs


def contents(fs: FileSystem, localization: Localization) -> Iterator[tuple[LeafElement, bytes]]:
    """Every record of a PFS with its data, without what differs between file systems: where the data lies."""
    low, high = element_key(first_key(localization)), element_key(last_key(localization))
    for raw in fs.ctx.tree.scan(low, high):
        leaf = unpack_leaf(raw)
        yield leaf._replace(data_offset=0, localization=leaf.localization & LOCALIZE_MASK), read_data(fs.ctx, leaf)


@pytest.mark.parametrize("name", STREAMS)
def test_streams_come_back_bit_for_bit(name: str, golden_original: Callable[[str], Path], images: Golden) -> None:
    raw = golden_original(name).read_bytes()
    manifest = images.manifest("g5-pfs")["streams"][f"{name}.zst"]
    assert hashlib.sha256(raw).hexdigest() == manifest["sha256"]
    records = parsed(raw)
    assert b"".join(map(packed, records)) == raw
    counts = Counter(f"{TYPES[type(record)]:#010x}" for record in records)
    assert counts == manifest["record_types"]


def test_reading_the_master_gives_the_stream_of_the_original(
    golden_original: Callable[[str], Path], images: Golden
) -> None:
    begin = int(images.manifest("g5-pfs")["streams"]["g5-mirror2.bin.zst"]["tid_beg"], 16)
    with closing(images.mount("g5-pfs")) as fs:
        state = source_state(fs.ctx, MASTER, fs.ctx.root.next_tid)
        told = [record for record in changes(fs.ctx, MASTER, begin, state.sync_end_tid) if record is not None]
        stream = [Header(state.copy()), Header(state.copy()), *told, Sync(), Term()]
    assert b"".join(map(packed, stream)) == golden_original("g5-mirror2.bin").read_bytes()


def test_reading_all_of_the_master_differs_in_nothing_but_what_happened_since(
    golden_original: Callable[[str], Path], images: Golden
) -> None:
    # The full stream was made before the image was complete; mtime and atime are updated in place.
    theirs = parsed(golden_original("g5-mirror1.bin").read_bytes())
    end = next(record.data.sync_end_tid for record in theirs if isinstance(record, Header))
    with closing(images.mount("g5-pfs")) as fs:
        ours = [record for record in changes(fs.ctx, MASTER, 1, end) if record is not None]
    wanted = [record for record in theirs if isinstance(record, Record)]
    assert [record.element for record in ours if isinstance(record, Record)] == [record.element for record in wanted]
    for mine, his in zip(ours, wanted, strict=True):
        size = INODE_CRC_SIZE if his.leaf.rec_type == RECTYPE_INODE else None
        assert isinstance(mine, Record)
        assert mine.data[:size] == his.data[:size]


def test_writing_the_streams_gives_the_slave_of_the_original(
    golden_original: Callable[[str], Path], images: Golden
) -> None:
    streams = [parsed(golden_original(name).read_bytes()) for name in STREAMS]
    header = streams[0][0]
    assert isinstance(header, Header)
    devices = fresh()
    with closing(slave_like(devices, header.data)) as fs:
        for records in streams:
            write(fs, records)
        mine = list(contents(fs, pfs_localization(SLAVE)))
        root = fs.inode(pfs_localization(SLAVE), OBJID_ROOT, header_end(streams[1]))
        expected = as_tree(images.manifest("g5-slave")["tree_slave"])
        assert not differences(expected, view(fs, root))
    with closing(images.mount("g5-slave")) as fs:
        theirs = list(contents(fs, pfs_localization(SLAVE)))
    assert [element for element, _ in mine] == [element for element, _ in theirs]
    assert [data for _, data in mine] == [data for _, data in theirs]
    assert problems(devices) == []


def header_end(records: list[StreamRecord]) -> int:
    """The TID that a stream leads to."""
    return next(record.data.sync_end_tid for record in records if isinstance(record, Header))


def test_a_slave_of_the_original_goes_on_with_a_stream_of_ours(images: Golden) -> None:
    devices = images.devices("g5-slave")
    with closing(images.mount("g5-pfs")) as source:
        state = source_state(source.ctx, MASTER, source.ctx.root.next_tid)
        end = state.sync_end_tid
        told = [record for record in changes(source.ctx, MASTER, 1, end) if record is not None]
        expected = view(source, source.inode(pfs_localization(MASTER), OBJID_ROOT, end))
        with closing(FileSystem.open(devices, MountOptions())) as fs:
            before = list(contents(fs, pfs_localization(SLAVE)))
            write(fs, [Header(state.copy()), *told])
            assert list(contents(fs, pfs_localization(SLAVE))) == before
            seen = view(fs, fs.inode(pfs_localization(SLAVE), OBJID_ROOT, end))
    assert not differences(expected, seen, {"localization", "mtime_us", "atime_us"})
    assert problems(devices) == []
