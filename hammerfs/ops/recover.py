"""Finding files on volumes whose B-tree may be broken: every node that lies anywhere is looked at by itself
(`cmd_recover.c`).

A node whose CRC is right tells of records; those that nobody has ended make up the present.  Old copies of nodes lie
around as well, with records in them that were ended since: a record that is ended in one node is ended everywhere, and
of two versions the younger one counts.  One version may be told of with several places for its data, as reblocking
moves data and leaves the rest of the record alone: whichever place still holds what the record's CRC is of has it.
What cannot be placed under a name is found under its object id.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from hammerfs.errors import HammerError
from hammerfs.ondisk import crc
from hammerfs.ondisk import node as ondisk_node
from hammerfs.ondisk.address import Offset, encode, pfs_of, to_zone2
from hammerfs.ondisk.constants import (
    BASE_SYMLINK_SIZE,
    BIGBLOCK_SIZE,
    BTREE_LEAF,
    BTREE_RECORD,
    BUFSIZE,
    FIXKEY_SYMLINK,
    INODE_DATA_SIZE,
    LEAF_ELEMENTS,
    MAX_FILE_SIZE,
    NODE_SIZE,
    OBJTYPE_SOFTLINK,
    RECTYPE_DATA,
    RECTYPE_DIRENTRY,
    RECTYPE_FIX,
    RECTYPE_INODE,
    XBUFSIZE,
    ZONE_BTREE,
    ZONE_RAW_BUFFER,
    ZONE_UNAVAIL,
)
from hammerfs.ondisk.direntry import unpack_entry
from hammerfs.ondisk.element import LeafElement, unpack_leaf
from hammerfs.ondisk.inode import InodeData
from hammerfs.ops.progress import Progress, SilentProgress
from hammerfs.store.buffers import MetaBuffers
from hammerfs.store.freemap import FreeMap
from hammerfs.store.volumes import VolumeSet

Identity = tuple[int, int]
"""PFS id and object id."""
_BUFFERS = 64
_RecordKey = tuple[int, int, int, int]
"""Localization, object id, record type and key."""
_PLACES_MAX = 32
"""Places that are remembered of one record's data, the ones that were met last."""


class Scope(Enum):
    """Which part of the volumes is looked at."""

    USED = "used"
    """Up to the last big-block in use."""
    FULL = "full"
    """All of it."""
    QUICK = "quick"
    """What the freemap gives to the B-tree."""


@dataclass(slots=True)
class Extent:
    """A piece of a file's contents.

    places -- where it may lie, each with its CRC there
    """

    start: int
    size: int
    places: list[tuple[Offset, int]]


@dataclass(slots=True)
class Found:
    """One object, as far as it was found.

    inode -- None when no inode record of it was; target -- a symlink's, None when it was not found
    names -- directories that name it, and by which names; extents -- by where they begin
    """

    identity: Identity
    inode: InodeData | None = None
    target: bytes | None = None
    names: list[tuple[int, bytes]] = field(default_factory=list)
    extents: list[Extent] = field(default_factory=list)


def find_objects(volumes: VolumeSet, scope: Scope, progress: Progress | None = None) -> dict[Identity, Found]:
    """Everything of the present that nodes anywhere on the volumes tell of."""
    records: dict[_RecordKey, list[LeafElement]] = {}
    ended: set[tuple[_RecordKey, int]] = set()
    for raw in _nodes(volumes, scope, progress or SilentProgress()):
        header = ondisk_node.unpack_header(raw)
        if header.kind != BTREE_LEAF or not 0 <= header.element_count <= LEAF_ELEMENTS:
            continue
        for index in range(header.element_count):
            element = unpack_leaf(ondisk_node.element_at(raw, index))
            if element.btype == BTREE_RECORD:
                _take(element, records, ended)
    objects: dict[Identity, Found] = {}
    for key, copies in records.items():
        if (key, copies[0].create_tid) not in ended:
            _understand(volumes, copies, objects)
    return objects


def read_extent(volumes: VolumeSet, extent: Extent) -> bytes | None:
    """A piece's bytes, None when they are not what was written."""
    for place, checksum in extent.places:
        data = _sound_data(volumes, place, extent.size, checksum, RECTYPE_DATA)
        if data is not None:
            return data
    return None


# --- where nodes may be -------------------------------------------------------------------------


def _nodes(volumes: VolumeSet, scope: Scope, progress: Progress) -> Iterator[bytes]:
    bigblocks = list(_bigblocks(volumes, scope))
    progress.phase("looking for B-tree nodes", len(bigblocks))
    for bigblock in bigblocks:
        for start in range(0, BIGBLOCK_SIZE, BUFSIZE):
            try:
                buffer = bytes(volumes.read(bigblock + start, BUFSIZE))
            except HammerError:
                continue
            for place in range(0, BUFSIZE, NODE_SIZE):
                raw = buffer[place : place + NODE_SIZE]
                if raw[:4] != bytes(4) and ondisk_node.crc_ok(volumes.version, raw):
                    yield raw
        progress.advance(1)


def _bigblocks(volumes: VolumeSet, scope: Scope) -> Iterator[Offset]:
    freemap = FreeMap(volumes, MetaBuffers(volumes, None, _BUFFERS))
    for number, volume in volumes.volumes.items():
        size = volume.header.vol_buf_end - volume.header.vol_buf_beg
        all_of_it = [encode(ZONE_RAW_BUFFER, number, short) for short in range(0, size, BIGBLOCK_SIZE)]
        if scope is Scope.FULL:
            yield from all_of_it
            continue
        zones = [_zone(freemap, bigblock) for bigblock in all_of_it]
        if scope is Scope.QUICK:
            yield from (bigblock for bigblock, zone in zip(all_of_it, zones, strict=True) if zone == ZONE_BTREE)
        else:
            # What the freemap cannot tell of counts as in use.
            used = [index for index, zone in enumerate(zones) if zone not in (0, ZONE_UNAVAIL)]
            yield from all_of_it[: used[-1] + 1 if used else 0]


def _zone(freemap: FreeMap, bigblock: Offset) -> int:
    """The owner of a big-block, -1 when the freemap is damaged there."""
    try:
        return freemap.layer2(bigblock).zone
    except HammerError:
        return -1


# --- what records tell --------------------------------------------------------------------------


def _take(
    element: LeafElement, records: dict[_RecordKey, list[LeafElement]], ended: set[tuple[_RecordKey, int]]
) -> None:
    """Keep what is told of the youngest version of each record, once for each place of its data."""
    key = (element.localization, element.obj_id, element.rec_type, element.key)
    if element.delete_tid:
        ended.add((key, element.create_tid))
        return
    copies = records.get(key)
    if copies is None or copies[0].create_tid < element.create_tid:
        records[key] = [element]
    elif copies[0].create_tid == element.create_tid and all(_differ(element, copy) for copy in copies):
        copies.append(element)
        del copies[:-_PLACES_MAX]


def _differ(one: LeafElement, other: LeafElement) -> bool:
    return (one.data_offset, one.data_len, one.data_crc) != (other.data_offset, other.data_len, other.data_crc)


def _understand(volumes: VolumeSet, copies: list[LeafElement], objects: dict[Identity, Found]) -> None:
    """Add what one record tells, of which there are copies; nothing when all of its data is damaged."""
    element = copies[0]
    kind = element.rec_type
    identity = (pfs_of(element.localization), element.obj_id)
    if kind == RECTYPE_DATA:
        start = element.key - element.data_len
        if 0 <= start < MAX_FILE_SIZE and 0 < element.data_len <= XBUFSIZE:
            places = [(copy.data_offset, copy.data_crc) for copy in copies if copy.data_len == element.data_len]
            _object(objects, identity).extents.append(Extent(start, element.data_len, places))
        return
    if kind not in (RECTYPE_INODE, RECTYPE_DIRENTRY, RECTYPE_FIX):
        return
    sound = (_record_data(volumes, copy) for copy in copies)
    data = next((data for data in sound if data is not None), None)
    if data is None:
        return
    if kind == RECTYPE_INODE and len(data) == INODE_DATA_SIZE:
        found = _object(objects, identity)
        found.inode = InodeData.unpack(data)
        if found.inode.obj_type == OBJTYPE_SOFTLINK and 0 < found.inode.size <= BASE_SYMLINK_SIZE:
            found.target = found.inode.symlink[: found.inode.size]
    elif kind == RECTYPE_FIX and element.key == FIXKEY_SYMLINK:
        _object(objects, identity).target = data
    elif kind == RECTYPE_DIRENTRY:
        try:
            entry = unpack_entry(data)
        except ValueError:
            return
        named = _object(objects, (pfs_of(entry.localization), entry.obj_id))
        if named.identity[0] == identity[0]:
            named.names.append((element.obj_id, entry.name))


def _object(objects: dict[Identity, Found], identity: Identity) -> Found:
    found = objects.get(identity)
    if found is None:
        found = objects[identity] = Found(identity)
    return found


def _record_data(volumes: VolumeSet, element: LeafElement) -> bytes | None:
    if not 0 < element.data_len <= BUFSIZE:
        return None
    return _sound_data(volumes, element.data_offset, element.data_len, element.data_crc, element.rec_type)


def _sound_data(volumes: VolumeSet, place: Offset, size: int, checksum: int, rec_type: int) -> bytes | None:
    try:
        data = bytes(volumes.read(to_zone2(place), size))
    except HammerError:
        return None
    return data if crc.record_matches(volumes.version, checksum, rec_type, data) else None
