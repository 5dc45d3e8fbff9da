"""`hammer mirror-dump`: a stream as text (`cmd_mirror.c: hammer_cmd_mirror_dump`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from hammerfs.cli.mirror_pipe import MirrorPipe
from hammerfs.errors import StreamError
from hammerfs.ondisk.constants import MAX_TID
from hammerfs.ondisk.element import BASE, LeafElement
from hammerfs.ondisk.mirror import Header, Idle, Pass, Record, Skip, StreamRecord, Sync
from hammerfs.ondisk.pfs import PfsData

_DAY = 24 * 60 * 60


def dump_lines(pipe: MirrorPipe) -> Iterator[str]:
    """The lines of a whole stream."""
    pipe.read()
    while (record := pipe.read()) is not None:
        yield from _lines(record)
        if not isinstance(record, Header | Record | Pass | Skip):
            if not isinstance(record, Sync | Idle):
                print("Mirror-dump: Did not get termination sync record", file=sys.stderr)
            pipe.read()


def header_lines(pipe: MirrorPipe) -> Iterator[str]:
    """The lines of what heads a stream."""
    record = pipe.read()
    if not isinstance(record, Header):
        raise StreamError("the stream does not begin with a PFSD record")
    yield from pfs_lines(record.data)


def pfs_lines(data: PfsData) -> Iterator[str]:
    """A PFS record as hammer(8) prints it, without what depends on where it is mounted."""
    yield f"    sync-beg-tid={data.sync_beg_tid:#018x}"
    yield f"    sync-end-tid={data.sync_end_tid:#018x}"
    yield f"    shared-uuid={data.shared_uuid}"
    yield f"    unique-uuid={data.unique_uuid}"
    yield f'    label="{_text(data.label)}"'
    if _text(data.snapshots):
        yield f'    snapshots="{_text(data.snapshots)}"'
    days, seconds = divmod(data.prune_min, _DAY)
    time = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    yield f"    prune-min={time if not days else f'{days}d/{time}' if seconds else f'{days}d'}"
    yield f"    operating as a {'SLAVE' if data.is_slave else 'MASTER'}"


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _lines(record: StreamRecord) -> Iterator[str]:
    if isinstance(record, Record):
        yield from _element_lines("Record", record.leaf, " (BAD CRC)" if record.damaged else "")
    elif isinstance(record, Pass):
        yield from _element_lines("Pass  ", record.leaf, "")
    elif isinstance(record, Skip):
        yield f"Skip   {_boundary(record.low)} to"
        yield f"       {_boundary(record.high)}"


def _element_lines(word: str, leaf: LeafElement, remark: str) -> Iterator[str]:
    yield (
        f"{word} lo={leaf.localization:08x} obj={leaf.obj_id & MAX_TID:016x} key={leaf.key & MAX_TID:016x} "
        f"rt={leaf.rec_type:02x} ot={leaf.obj_type:02x}{remark}"
    )
    yield f"       tids {leaf.create_tid:016x}:{leaf.delete_tid:016x} data={leaf.data_len}"


def _boundary(base: bytes) -> str:
    obj_id, key, _, _, rec_type, _, _, localization = BASE.unpack(base)
    return f"lo={localization:08x} obj={obj_id & MAX_TID:016x} key={key & MAX_TID:016x} rt={rec_type:02x}"
