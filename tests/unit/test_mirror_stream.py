"""Mirroring streams: records come back as they went, in pieces of any size, and nothing unsound comes through."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hammerfs.errors import StreamError
from hammerfs.ondisk.constants import BTREE_RECORD, MAX_TID, MIN_KEY, MIN_OBJID, XBUFSIZE
from hammerfs.ondisk.element import BASE, LeafElement
from hammerfs.ondisk.mirror import (
    HEAD_SIZE,
    RECORD_SIZE_MAX,
    Header,
    Idle,
    Pass,
    Record,
    Skip,
    StreamParser,
    StreamRecord,
    Sync,
    Term,
    Update,
    packed,
    padded,
)
from hammerfs.ondisk.pfs import PFS_DATA_SIZE

PFS = bytes(range(256)) + bytes(PFS_DATA_SIZE - 256)
LEAF = LeafElement(0x10000, 5, 0x100, 0, 0x10, 2, BTREE_RECORD, 0x10002, 1, 0, 0xB000000000000010, 3, 99)
LOW = BASE.pack(MIN_OBJID, MIN_KEY, 1, 0, 0, 0, 0, 0x10000)
HIGH = BASE.pack(7, 7, 7, 0, 1, 0, ord("L"), 0x10001)
EACH = [
    Header(PFS),
    Record(LEAF.pack(), b"abc"),
    Record(LEAF.pack(), b"abc", damaged=True),
    Record(LEAF._replace(data_len=0, data_offset=0, delete_tid=MAX_TID).pack(), b""),
    Record(LEAF._replace(data_len=XBUFSIZE).pack(), bytes(XBUFSIZE)),
    Pass(LEAF.pack()),
    Skip(LOW, HIGH),
    Update(0x1234),
    Sync(),
    Idle(),
    Term(),
]
SENT = b"".join(map(packed, EACH))

pieces = st.lists(st.integers(1, 300), min_size=1, max_size=20)


def parsed(pieces: Iterator[bytes] | list[bytes]) -> list[StreamRecord]:
    parser = StreamParser()
    records = []
    for piece in pieces:
        parser.feed(piece)
        while (record := parser.next_record()) is not None:
            records.append(record)
    parser.finish()
    return records


def cut(raw: bytes, sizes: list[int]) -> Iterator[bytes]:
    """`raw` in pieces of these sizes, over and over."""
    at = 0
    while at < len(raw):
        for size in sizes:
            yield raw[at : at + size]
            at += size


def sealed(kind: int, body: bytes, size: int | None = None, signature: int = 0x4DD97272) -> bytes:
    """A record as the format says, without any care for what is in it."""
    tail = struct.pack("<II", HEAD_SIZE + len(body) if size is None else size, kind) + body
    return struct.pack("<II", signature, zlib.crc32(tail)) + tail + bytes(-len(tail) % 8)


@given(pieces)
def test_a_stream_comes_through_in_pieces_of_any_size(sizes: list[int]) -> None:
    assert parsed(cut(SENT, sizes)) == EACH


def test_records_have_the_sizes_of_the_original() -> None:
    assert [struct.unpack_from("<4I", packed(record))[2:] for record in EACH] == [
        (316, 2),
        (83, 1),
        (83, 0xC0000001),
        (80, 1),
        (80 + 65536, 1),
        (80, 6),
        (96, 5),
        (24, 3),
        (24, 4),
        (24, 8),
        (24, 7),
    ]
    assert all(len(packed(record)) % 8 == 0 for record in EACH)
    assert padded(83) == 88
    assert RECORD_SIZE_MAX == 80 + 65536


@pytest.mark.parametrize("end", [1, HEAD_SIZE - 1, HEAD_SIZE, 100, len(packed(Header(PFS))) - 1])
def test_a_stream_that_was_cut_off_is_told(end: int) -> None:
    with pytest.raises(StreamError, match="in the middle of a record"):
        parsed([SENT[:end]])


@given(st.integers(0, len(packed(EACH[1])) - 1), st.integers(1, 255))
def test_a_changed_byte_never_comes_through(at: int, change: int) -> None:
    raw = bytearray(packed(EACH[1]))
    raw[at] ^= change
    try:
        records = parsed([bytes(raw)])
    except StreamError:
        return
    assert at >= 83, "only padding may change unnoticed"
    assert records == [EACH[1]]


@given(st.binary(max_size=400))
def test_garbage_is_refused_or_waited_for(raw: bytes) -> None:
    with pytest.raises(StreamError):
        parsed([bytes(16) + raw])


HOSTILE = {
    "no mirroring stream": sealed(4, bytes(8), signature=0x12345678),
    "the other byte order": sealed(4, bytes(8), signature=0x7272D94D),
    "unknown type 9": sealed(9, bytes(8)),
    "unknown type 0": sealed(0, b""),
    "type 1 with an impossible size of 65617": sealed(1, bytes(65601)),
    "type 1 with an impossible size of 79": sealed(1, bytes(63)),
    "type 2 with an impossible size of 315": sealed(2, bytes(299)),
    "type 4 with an impossible size of 0": sealed(4, bytes(8), size=0),
    "type 5 with an impossible size of 80": sealed(5, bytes(64)),
    "type 6 with an impossible size of 4294967295": sealed(6, bytes(64), size=0xFFFFFFFF),
    "unknown version 2": sealed(2, struct.pack("<II", 2, 0) + PFS),
    "2 bytes of data instead of 3": sealed(1, LEAF.pack() + b"ab"),
    "0 bytes of data instead of 3": sealed(0x10000001, LEAF.pack()),
    "0 bytes of data instead of -1": sealed(1, LEAF._replace(data_len=-1).pack()),
    "element of type 0x44": sealed(6, LEAF._replace(btype=0x44).pack()),
    "from TID 0000000000000000 to": sealed(6, LEAF._replace(create_tid=0).pack()),
    "to 0000000000000100": sealed(6, LEAF._replace(delete_tid=0x100).pack()),
}


@pytest.mark.parametrize("complaint", HOSTILE)
def test_what_is_unsound_is_refused_in_one_sentence(complaint: str) -> None:
    with pytest.raises(StreamError, match=complaint) as refusal:
        parsed([HOSTILE[complaint]])
    assert "\n" not in str(refusal.value)
