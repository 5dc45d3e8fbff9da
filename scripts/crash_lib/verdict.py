"""One image: recovered as the next mount would, checked completely, and looked at from top to bottom."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from crash_lib.memo import ReadingDevice
from crash_lib.mirroring import slave_state
from crash_lib.small import FILE, RECOVERY_US, mount
from crash_lib.twin import State, view_as_of
from hammerfs.device.base import Device
from hammerfs.device.overlay import OverlayDevice
from hammerfs.device.recording import Entry
from hammerfs.errors import HammerError
from hammerfs.fs import rootrecords
from hammerfs.fs.inode import Inode
from hammerfs.fs.metadata import read_record
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.address import Offset, Tid, short_of, to_zone2, volume_of
from hammerfs.ondisk.constants import (
    BIGBLOCK_SIZE,
    BUFSIZE,
    LOCALIZE_INODE,
    MAX_TID,
    OBJTYPE_SOFTLINK,
    RECTYPE_INODE,
    ZONE_UNDO,
)
from hammerfs.ondisk.element import base_key, unpack_leaf
from hammerfs.ondisk.inode import InodeData, uuid_to_id
from hammerfs.ondisk.volume import VolumeHeader
from hammerfs.ops.check import check_devices
from hammerfs.ops.check_freemap import FreemapState, check_freemap
from hammerfs.ops.check_reader import ImageReader
from hammerfs.ops.check_report import Report
from hammerfs.ops.mkfs import is_formatted
from hammerfs.ops.progress import Progress
from hammerfs.store.buffers import MetaBuffers
from hammerfs.store.volumes import VolumeSet

_HEARD: list[str] = []
"""Warnings and errors that recovery logged; an intact image gives no cause for any."""


class _Listener(logging.Handler):
    """Keeps what is worth a warning."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            _HEARD.append(record.getMessage())


Further = Callable[[Sequence[Device]], Iterable[str]]
"""Complaints about a recovered image that only some workloads give cause for; it leaves the devices alone."""
Slot = tuple[int, bytes]
"""A place for a name: the directory's object id, and the name."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one object looks like from outside, and its times as they are stored; those of a recovery are RECOVERY_US.

    attributes -- mode, uid, gid
    """

    kind: int
    content: bytes
    attributes: tuple[int, int, int]
    xattrs: tuple[tuple[bytes, bytes], ...]
    mtime: int
    atime: int
    ctime: int


@dataclass(frozen=True, slots=True)
class Tree:
    """A whole file system: which object has which names, what each object looks like, every snapshot and a slave."""

    slots: dict[Slot, int]
    objects: dict[int, Seen]
    past: dict[Tid, State] = field(default_factory=dict)
    slave: State | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Recovered:
    """What recovery did: its writes and barriers, or why it gave up; `opened` entries were made when the mount was."""

    entries: Sequence[Entry]
    opened: int
    failure: str = ""


@dataclass(frozen=True, eq=False, slots=True)
class Verdict:
    """What is wrong with a recovered image, and what is in it."""

    problems: tuple[str, ...]
    tree: Tree | None


class Contents:
    """What files held in the images of one workload, each kept once: megabytes of them are the same in most."""

    def __init__(self) -> None:
        self._by_size: dict[int, list[bytes]] = {}

    def kept(self, content: bytes) -> bytes:
        """An equal content that was met before, or this one from now on."""
        known = self._by_size.setdefault(len(content), [])
        for other in known:
            if other == content:
                return other
        known.append(content)
        return content


def recover(devices: Sequence[ReadingDevice], **options: Any) -> Recovered:
    """Mount for writing, finish what recovery leaves to the first flush, unmount."""
    entries = devices[0].log.entries
    opened = 0
    _HEARD.clear()
    try:
        fs = mount(volumes_among(devices), start_us=RECOVERY_US, **options)
        opened = len(entries)
        fs.close_now()
        assert not _HEARD, f"the log says: {_HEARD[0]}"
    except (HammerError, AssertionError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        return Recovered(entries, opened, f"{type(error).__name__}: {error}")
    return Recovered(entries, opened)


def volumes_among(devices: Sequence[Device]) -> list[Device]:
    """What anybody would try to mount: everything that could be a volume."""
    return [device for device in devices if is_formatted(device)]


def verify(devices: Sequence[Device], contents: Contents, further: Further | None = None) -> Verdict:
    """Check everything, then read everything through a read-only mount; then ask what is to be asked further."""
    try:
        members = volumes_among(devices)
        report = check_devices(members)
        problems = [str(problem) for problem in report.problems]
        if report.recovery_pending:
            problems.append("recovery is pending after recovery")
        fs = mount([OverlayDevice(device) for device in members], xattr=True, read_only=True)
        tree = survey(fs, contents)
        if further is not None and not problems:
            problems += further(members)
        return Verdict(tuple(problems), tree)
    except (HammerError, AssertionError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        return Verdict((f"{type(error).__name__}: {error}",), None)


def survey(fs: FileSystem, contents: Contents) -> Tree:
    """Everything that has a name."""
    tree = Tree({}, {}, slave=slave_state(fs))
    waiting = [fs.root]
    while waiting:
        inode = waiting.pop()
        if inode.obj_id in tree.objects:
            continue
        tree.objects[inode.obj_id] = look_at(fs, inode, contents)
        if inode.is_directory:
            for entry in fs.readdir(inode, 0):
                tree.slots[inode.obj_id, entry.name] = entry.obj_id
                waiting.append(fs.lookup(inode, entry.name))
    tree.past.update(snapshots_of(fs))
    return tree


def snapshots_of(fs: FileSystem) -> dict[Tid, State]:
    """What the snapshots on record show."""
    found = rootrecords.snapshots(fs.ctx, fs.root.localization)
    return {snapshot.tid: view_as_of(fs, snapshot.tid) for snapshot in found}


def look_at(fs: FileSystem, inode: Inode, contents: Contents) -> Seen:
    """One object."""
    data = inode.data
    content = b""
    if data.obj_type == FILE:
        content = fs.read(inode, 0, data.size)
        assert len(content) == data.size, f"{len(content)} of {data.size} bytes of object {inode.obj_id:#x}"
    elif data.obj_type == OBJTYPE_SOFTLINK:
        content = fs.readlink(inode)
    content = contents.kept(content)
    xattrs = tuple(sorted((name, fs.getxattr(inode, name)) for name in fs.listxattr(inode)))
    times = [min(time, RECOVERY_US) for time in stored_times(fs, inode)]
    return Seen(data.obj_type, content, (data.mode, uuid_to_id(data.uid), uuid_to_id(data.gid)), xattrs, *times)


def stored_times(fs: FileSystem, inode: Inode) -> tuple[int, int, int]:
    """mtime, atime and ctime of the inode's record; a read-only mount shows the ctime for all three."""
    raw = fs.ctx.tree.find_as_of(base_key(inode.localization | LOCALIZE_INODE, inode.obj_id, RECTYPE_INODE, 0), MAX_TID)
    assert raw is not None
    data = InodeData.unpack(read_record(fs.ctx, unpack_leaf(raw)))
    return data.mtime, data.atime, data.ctime


@contextmanager
def listening() -> Iterator[None]:
    """Let the log of hammerfs be heard by nobody but `recover`."""
    logger = logging.getLogger("hammerfs")
    handlers, propagate = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [_Listener()], False
    try:
        yield
    finally:
        logger.handlers, logger.propagate = handlers, propagate


@contextmanager
def exact_reads(layers: FreemapLayers) -> Iterator[None]:
    """Read what is asked for, not whole buffers: then what lies beside it makes no difference between two images."""
    with (
        listening(),
        mock.patch.object(ImageReader, "read", _read_exactly),
        mock.patch.object(MetaBuffers, "read", lambda self, offset, size: self._volumes.read(to_zone2(offset), size)),
        mock.patch("hammerfs.store.fiforeader.CHUNK_SIZE", BUFSIZE),
        mock.patch("hammerfs.ops.check_undo._check_sectors", _pass_over),
        mock.patch("hammerfs.ops.check.check_freemap", layers.check),
    ):
        yield


def _pass_over(*_: object) -> None:
    """The FIFO's idle sectors take no part in recovery."""


def _read_exactly(reader: ImageReader, offset: int, size: int) -> bytes:
    return bytes(reader.volumes.read(to_zone2(offset), size))


class FreemapLayers:
    """The check of the freemap, whose thousand buffers are nearly always those of another image.

    It is determined by the buffers of the freemap's big-blocks and by the headers, of which what says where the FIFO is
    and which TID comes next is left out.  Buffers in pages that no image differs in need no comparison.
    """

    def __init__(self, written: set[tuple[int, int]]) -> None:
        self._written = written
        self._known: dict[tuple[object, ...], tuple[FreemapState, Report]] = {}
        self._places: dict[tuple[int, ...], list[Offset]] = {}
        """By the volumes that there are."""
        self._has_learned = False

    def forget(self) -> None:
        """More pages than before differ between images."""
        self._known.clear()
        self._places.clear()

    def has_learned(self) -> bool:
        """Whether the freemap was seen elsewhere since this was asked, so that other places are looked at first."""
        learned, self._has_learned = self._has_learned, False
        return learned

    def check(self, reader: ImageReader, report: Report, progress: Progress) -> FreemapState:
        """`check_freemap`, or what it said before."""
        key = self._key(reader)
        if key not in self._known:
            own = Report()
            state = check_freemap(reader, own, progress)
            places = [place for place in self._buffers(state) if self._differs(reader.volumes, place)]
            volumes = tuple(reader.volumes.volumes)
            self._has_learned = self._has_learned or self._places.get(volumes) != places
            self._places[volumes] = places
            key = self._key(reader)
            self._known[key] = state, own
        state, own = self._known[key]
        for found in own.problems:
            report.problem(found.kind, found.where, found.text)
        for name, count in own.counts.items():
            report.count(name, count)
        return state

    @staticmethod
    def _buffers(state: FreemapState) -> list[Offset]:
        return sorted(place + at for place in state.metadata for at in range(0, BIGBLOCK_SIZE, BUFSIZE))

    def _differs(self, volumes: VolumeSet, place: Offset) -> bool:
        number = volume_of(place)
        start = volumes.volumes[number].header.vol_buf_beg + short_of(place)
        first, last = start // BUFSIZE, (start + BUFSIZE - 1) // BUFSIZE
        return (number, first) in self._written or (number, last) in self._written

    def _key(self, reader: ImageReader) -> tuple[object, ...]:
        headers = []
        for volume in reader.volumes.volumes.values():
            header = VolumeHeader(bytearray(volume.buffer))
            header.vol_crc = header.vol0_next_tid = 0
            fifo = header.blockmap(ZONE_UNDO)
            fifo.first_offset = fifo.next_offset = fifo.entry_crc = 0
            headers.append(bytes(header.raw))
        places = self._places.get(tuple(reader.volumes.volumes), [])
        buffers = [(place, reader.read_uncached(place, BUFSIZE)) for place in places]
        return (*headers, *buffers)
