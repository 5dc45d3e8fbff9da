"""Mirroring streams: taken from an image, spoiled, and written into a slave."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from fuzz_lib.layout import LEAF
from fuzz_lib.oracle import guarded
from fuzz_lib.walks import attempt, mount
from hammerfs.device.memory import MemoryDevice
from hammerfs.errors import StreamError
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.work import Data, Deaf, Done, Emit, Phase, run_work
from hammerfs.ondisk import crc
from hammerfs.ondisk.constants import VERSION_CRC32C
from hammerfs.ondisk.mirror import Pass, Record, Skip, StreamParser, StreamRecord, Sync, packed
from hammerfs.ops.operation import Call
from hammerfs.ops.registry import begin, find

SLAVE = 2
"""The PFS that streams are written to."""
PIECE = 5000
EDGES = (0, 1, -1, 2, 128, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, 0xFFFF0001, 0x00030002)


class Stream(NamedTuple):
    """A batch up to the TID `end`."""

    end: int
    content: bytes


class _Collecting(Deaf):
    """Keeps the bytes that work delivers."""

    def __init__(self) -> None:
        self.content = bytearray()

    def tell(self, step: Phase | Done | Emit | Data) -> None:
        if isinstance(step, Data):
            self.content += step.content


class _Supplying(Deaf):
    """Gives work a stream in pieces."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def receive(self, limit: int) -> bytes:
        piece, self._content = self._content[:PIECE], self._content[PIECE:]
        return piece


def stream_of(devices: Sequence[MemoryDevice], pfs: int, kinds: set[str]) -> Stream | None:
    """All of a PFS, as far as it can be read; None when nothing of it can."""

    def read() -> Stream:
        fs = mount(guarded(devices, writable=False), read_only=True)
        collecting = _Collecting()
        end = fs.ctx.root.next_tid
        call = Call(fs, fs.root, {"pfs": pfs, "begin": 1, "end": end})
        attempt(lambda: run_work(fs, begin(find("mirror-read"), call), collecting), kinds)
        fs.close_now()
        return Stream(end, bytes(collecting.content) + packed(Sync()))

    return attempt(read, kinds)


def into_slave(fs: FileSystem, stream: Stream, kinds: set[str]) -> None:
    """Write a batch and let readers see it."""
    arguments = {"pfs": SLAVE, "begin": 1, "end": stream.end}
    write, synced = find("mirror-write"), find("mirror-synced")
    supplying = _Supplying(stream.content)
    attempt(lambda: run_work(fs, begin(write, Call(fs, fs.root, arguments)), supplying), kinds)
    told = {"pfs": SLAVE, "tid": stream.end}
    attempt(lambda: run_work(fs, begin(synced, Call(fs, fs.root, told)), Deaf()), kinds)


def mutated(stream: Stream, seed: int) -> Stream:
    """The batch with a few changes, most of them under checksums made right again."""
    draw = random.Random(seed)
    parser = StreamParser()
    parser.feed(stream.content)
    records: list[StreamRecord] = []
    with contextlib.suppress(StreamError):  # what a hostile file system holds may be no record that a stream can have
        while (record := parser.next_record()) is not None:
            records.append(record)
    for _ in range(draw.choice((1, 1, 2, 4))):
        _change(records, draw)
    content = bytearray(b"".join(map(packed, records)))
    if draw.random() < 0.1 and content:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    end = draw.choice((stream.end, stream.end, stream.end, 0, 1, 0x100000020, (1 << 63) - 1))
    return Stream(end, bytes(content))


def _change(records: list[StreamRecord], draw: random.Random) -> None:
    if not records:
        return
    at = draw.randrange(len(records))
    record = records[at]
    match draw.randrange(8):
        case 0:
            del records[at : at + draw.choice((1, 3))]
            records.append(Sync())
        case 1:
            records.insert(at, record)
        case 2:
            other = draw.randrange(len(records))
            records[at], records[other] = records[other], record
        case 3:
            if isinstance(record, Record | Pass):
                low = record.element[:40]
                records.insert(at, Skip(low, draw.choice((low, bytes(40), b"\xff" * 40))))
        case _:
            if isinstance(record, Record):
                records[at] = _spoiled(record, draw)
            elif isinstance(record, Pass):
                records[at] = Pass(_with_field(record.element, draw))


def _spoiled(record: Record, draw: random.Random) -> Record:
    """A record with another field, or with other data and its checksum."""
    if draw.random() < 0.6 or not record.data:
        return replace(record, element=_with_field(record.element, draw))
    data = bytearray(record.data)
    match draw.randrange(3):
        case 0:
            data[draw.randrange(len(data))] ^= draw.randrange(1, 256)
        case 1:
            start = draw.randrange(len(data)) & -4
            data[start : start + 8] = (draw.choice(EDGES) & (1 << 64) - 1).to_bytes(8, "little")[: len(data) - start]
        case _:
            data = data[: draw.randrange(len(data))] if draw.random() < 0.5 else data * draw.choice((2, 200))
    return Record(_described(record.element, bytes(data)), bytes(data))


def _described(element: bytes, data: bytes) -> bytes:
    """The element of such data."""
    raw = bytearray(element)
    rec_type = LEAF["rec_type"].read(element)
    checksum = crc.record_crc(crc.function_for(VERSION_CRC32C), rec_type, data) if data else 0
    for name, value in (("data_len", len(data)), ("data_crc", checksum)):
        field = LEAF[name]
        raw[field.at : field.at + field.size] = field.pack(value)
    return bytes(raw)


def _with_field(element: bytes, draw: random.Random) -> bytes:
    field = LEAF[draw.choice([name for name in LEAF if name != "data_len"])]
    old = field.read(element)
    value = draw.choice((*EDGES, old + 1, old - 1, old ^ 1 << draw.randrange(8 * field.size)))
    return element[: field.at] + field.pack(value) + element[field.at + field.size :]
