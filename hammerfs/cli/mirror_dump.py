"""`hammer mirror-dump`: a stream as text (`cmd_mirror.c: hammer_cmd_mirror_dump`)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

from hammerfs.cli.directive_pfs import record_lines
from hammerfs.cli.mirror_pipe import MirrorPipe
from hammerfs.errors import StreamError
from hammerfs.ondisk.constants import MAX_TID
from hammerfs.ondisk.element import BASE, LeafElement
from hammerfs.ondisk.mirror import Header, Idle, Pass, Record, Skip, StreamRecord, Sync
from hammerfs.ondisk.pfs import PfsData


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
    yield from record_lines(_fields(record.data))


def _fields(data: PfsData) -> dict[str, Any]:
    """A PFS record as operations tell it."""
    return {
        "slave": data.is_slave,
        "sync_beg_tid": data.sync_beg_tid,
        "sync_end_tid": data.sync_end_tid,
        "shared_uuid": str(data.shared_uuid),
        "unique_uuid": str(data.unique_uuid),
        "label": os.fsdecode(data.label.split(b"\0", 1)[0]),
        "snapshots": os.fsdecode(data.snapshots.split(b"\0", 1)[0]),
        "prune_min": data.prune_min,
    }


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
