"""All versions that the B-tree still holds of one object: attributes, contents, names; with the moments that part them.

HAMMER never changes a record: a change ends one (delete_tid) and begins another (create_tid).  So the history of an
object is the set of its records, dead ones included, and its moments are the TIDs at which one began or ended.  What a
flush has not written yet has no TID and is not here; what was pruned, or overwritten without history, is gone.

An object is told by PFS and object id.  Its past does not depend on the moment at which it is looked at, as in the
original (`hammer_ioctl.c: hammer_ioc_gethistory`, which answers the same for a file and for the file as of a TID).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from hammerfs.errors import CorruptionError
from hammerfs.fs.directory import entry_localization, read_entry
from hammerfs.fs.inode import Inode
from hammerfs.fs.metadata import read_record
from hammerfs.ondisk.address import Localization, ObjId, Tid
from hammerfs.ondisk.constants import (
    INODE_DATA_SIZE,
    LOCALIZE_INODE,
    LOCALIZE_MISC,
    MAX_KEY,
    MAX_TID,
    MIN_KEY,
    OBJTYPE_DBFILE,
    OBJTYPE_DIRECTORY,
    OBJTYPE_REGFILE,
    RECTYPE_DATA,
    RECTYPE_DB,
    RECTYPE_DIRENTRY,
    RECTYPE_INODE,
    XBUFSIZE,
)
from hammerfs.ondisk.direntry import name_key
from hammerfs.ondisk.element import LeafElement, pack_key, unpack_leaf, visible_at
from hammerfs.ondisk.inode import InodeData
from hammerfs.ops.pace import Paced, numbered

if TYPE_CHECKING:
    from hammerfs.fs.context import Context


class Moment(NamedTuple):
    """A TID at which something changed, and when that was, in seconds since 1970."""

    tid: Tid
    seconds: int


class Lifetime(NamedTuple):
    """When a record began, and when it ended; None while it lives."""

    begin: Moment
    end: Moment | None

    def covers(self, tid: Tid) -> bool:
        """Whether the record is visible as of `tid`."""
        return visible_at(self.begin.tid, 0 if self.end is None else self.end.tid, tid)

    @property
    def moments(self) -> tuple[Moment, ...]:
        """One or two."""
        return (self.begin,) if self.end is None else (self.begin, self.end)


class InodeVersion(NamedTuple):
    """An object's attributes for the time between two changes of them."""

    life: Lifetime
    data: InodeData


class EntryVersion(NamedTuple):
    """A name in a directory, from its creation to its removal."""

    life: Lifetime
    name: bytes
    obj_id: ObjId
    localization: Localization
    obj_type: int


class DataVersion(NamedTuple):
    """A piece of a file's contents: bytes `start` to `end`."""

    life: Lifetime
    start: int
    end: int


def inode_versions(ctx: Context, localization: Localization, obj_id: ObjId) -> list[InodeVersion]:
    """All versions of an inode, oldest first; none for an object that never was, or was pruned."""
    versions = []
    for element in _records(ctx, localization | LOCALIZE_INODE, obj_id, RECTYPE_INODE, 0, 0):
        if element.data_len != INODE_DATA_SIZE:
            raise CorruptionError(
                f"inode {obj_id:#x} with {element.data_len} bytes of data", offset=element.data_offset
            )
        versions.append(InodeVersion(_life(element), InodeData.unpack(read_record(ctx, element))))
    return versions


def data_versions(ctx: Context, inode: Inode, low: int = 0, high: int = MAX_KEY) -> Iterator[DataVersion]:
    """All data records of a file that hold a byte from `low` to `high - 1`, by the offset of their end, then by age.

    A record's key is the offset of its end, and none is longer than a large block.
    """
    last = min(high + XBUFSIZE, MAX_KEY)
    for element in _records(ctx, inode.localization | LOCALIZE_MISC, inode.obj_id, RECTYPE_DATA, low + 1, last):
        start = element.key - element.data_len
        if start < high:
            yield DataVersion(_life(element), start, element.key)


def data_ranges(ctx: Context, inode: Inode) -> Paced[list[tuple[int, int]]]:
    """Where a file holds data in the inode's view: from and to which byte, neighbours together, none beyond its end."""
    localization = inode.localization | LOCALIZE_MISC
    low = pack_key(localization, inode.obj_id, RECTYPE_DATA, 1, 1)
    high = pack_key(localization, inode.obj_id, RECTYPE_DATA, MAX_KEY, MAX_TID)
    ranges: list[tuple[int, int]] = []
    for pause, raw in numbered(ctx.tree.scan_as_of(low, high, inode.as_of)):
        if pause:
            yield
        element = unpack_leaf(raw)
        start, end = element.key - element.data_len, min(element.key, inode.data.size)
        if start >= end:
            continue
        if ranges and ranges[-1][1] >= start:
            start = ranges.pop()[0]
        ranges.append((start, end))
    return ranges


def entry_versions(
    ctx: Context, directory: Inode, name: bytes | None = None, faults: list[CorruptionError] | None = None
) -> Iterator[EntryVersion]:
    """All names that a directory ever held, or the versions of one, by hash, then by age.

    A damaged one is left out and added to `faults`, where that is given.
    """
    low, high = (MIN_KEY, MAX_KEY) if name is None else _keys_of(directory, name)
    localization = entry_localization(directory)
    for element in _records(ctx, localization, directory.obj_id, RECTYPE_DIRENTRY, low, high):
        try:
            entry = read_entry(ctx, element)
        except CorruptionError as error:
            if faults is None:
                raise
            faults.append(error)
            continue
        if name is None or entry.name == name:
            yield EntryVersion(_life(element), entry.name, entry.obj_id, entry.localization, element.obj_type)


def _keys_of(directory: Inode, name: bytes) -> tuple[int, int]:
    try:
        return name_key(directory.data.cap_flags, name)
    except ValueError as error:
        raise CorruptionError(f"directory {directory.obj_id:#x}: {error}") from None


def inode_moments(ctx: Context, localization: Localization, obj_id: ObjId) -> list[Moment]:
    """When an inode changed, as the original lists it when no offset is given: in order, each moment once."""
    return _in_turn(_records(ctx, localization | LOCALIZE_INODE, obj_id, RECTYPE_INODE, 0, 0))


def key_moments(ctx: Context, inode: Inode, key: int) -> list[Moment]:
    """When the record at one offset of a file, or at one key of a directory, changed, in the original's order.

    Records of different length may cover the offset; these come one after the other, so that the moments need not be
    in order, and one may come twice.
    """
    localization, rec_type = _content_place(inode)
    if rec_type == RECTYPE_DIRENTRY:
        return _in_turn(_records(ctx, localization, inode.obj_id, rec_type, key, key))
    last = min(key + XBUFSIZE, MAX_KEY)
    found = _records(ctx, localization, inode.obj_id, rec_type, min(key + 1, MAX_KEY), last)
    return _in_turn(element for element in found if element.key - element.data_len <= key)


def content_moments(ctx: Context, inode: Inode) -> Paced[list[Moment]]:
    """When any data of a file, or any name in a directory, came or went: each TID once, in order.

    Other objects have no contents of this kind, hence no such moments.
    """
    if inode.data.obj_type not in (OBJTYPE_REGFILE, OBJTYPE_DBFILE, OBJTYPE_DIRECTORY):
        return []
    localization, rec_type = _content_place(inode)
    moments: dict[Tid, int] = {}
    for pause, element in numbered(_records(ctx, localization, inode.obj_id, rec_type, MIN_KEY, MAX_KEY)):
        if pause:
            yield
        for moment in _life(element).moments:
            moments.setdefault(*moment)
    return [Moment(tid, moments[tid]) for tid in sorted(moments)]


def _content_place(inode: Inode) -> tuple[Localization, int]:
    """Where an object's contents are in the B-tree."""
    if inode.is_directory:
        return entry_localization(inode), RECTYPE_DIRENTRY
    rec_type = RECTYPE_DB if inode.data.obj_type == OBJTYPE_DBFILE else RECTYPE_DATA
    return inode.localization | LOCALIZE_MISC, rec_type


def _records(
    ctx: Context, localization: Localization, obj_id: ObjId, rec_type: int, low: int, high: int
) -> Iterator[LeafElement]:
    """Records dead and alive with keys from `low` to `high`; what has a create_tid of 0 was never visible."""
    first = pack_key(localization, obj_id, rec_type, low, 1)
    last = pack_key(localization, obj_id, rec_type, high, MAX_TID)
    for raw in ctx.tree.scan(first, last):
        element = unpack_leaf(raw)
        if element.create_tid:
            yield element


def _life(element: LeafElement) -> Lifetime:
    end = Moment(element.delete_tid, element.delete_ts) if element.delete_tid else None
    return Lifetime(Moment(element.create_tid, element.create_ts), end)


def _in_turn(elements: Iterable[LeafElement]) -> list[Moment]:
    """Beginnings and ends as they come; a version that begins where the last one ended adds one moment, not two."""
    moments: list[Moment] = []
    for element in elements:
        for moment in _life(element).moments:
            if not moments or moments[-1].tid != moment.tid:
                moments.append(moment)
    return moments
