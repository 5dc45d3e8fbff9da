"""`show`: the B-tree node by node in the lines and columns of hammer(8) show, so that the two can be compared by diff.

Damage is shown by letters, as there: `B` before NODE for a bad CRC, with `I`, `M`, `U`, `C` for input, mirror TID, type
and count; an element's flags are left, right, type, child or parent, mirror TID.  Like the checker, this reads raw
nodes and shares nothing with `hammerfs.btree`.  Source: `cmd_show.c`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, pairwise

from hammerfs.errors import HammerError
from hammerfs.ondisk import crc
from hammerfs.ondisk import node as ondisk_node
from hammerfs.ondisk.address import LONG_MASK, Offset, Tid, layer1_offset, layer2_offset, volume_of, zone_of
from hammerfs.ondisk.constants import (
    BIGBLOCK_MASK,
    BIGBLOCK_SIZE,
    BTREE_DELETED,
    BTREE_INTERNAL,
    BTREE_LEAF,
    BTREE_NONE,
    BTREE_RECORD,
    BUFMASK,
    BUFSIZE,
    ELEMENT_SIZE,
    INODE_DATA_SIZE,
    INTERNAL_ELEMENTS,
    LAYER1_ENTRY_SIZE,
    LAYER2_ENTRY_SIZE,
    LAYER2_SPAN,
    LEAF_ELEMENTS,
    MAX_TID,
    NODE_HEADER_SIZE,
    NODE_SIZE,
    RECTYPE_INODE,
    VERSION_CRC32C,
    ZONE_FREEMAP,
    ZONE_UNAVAIL,
)
from hammerfs.ondisk.element import (
    ROOT_LEFT_BOUNDARY,
    ROOT_RIGHT_BOUNDARY,
    InternalElement,
    LeafElement,
    element_key,
    unpack_internal,
    unpack_leaf,
)
from hammerfs.ondisk.freemap import Layer1, Layer2
from hammerfs.ops.check_btree import DEPTH_MAX
from hammerfs.ops.check_reader import ImageReader
from hammerfs.ops.show_header import header_lines
from hammerfs.ops.show_record import PLAIN, RecordWords, record_lines
from hammerfs.ops.show_search import Search
from hammerfs.ops.zone_statistics import ZoneStatistics
from hammerfs.store.volumes import VolumeSet

_LEFTMOST = element_key(ROOT_LEFT_BOUNDARY)
_RIGHTMOST = element_key(ROOT_RIGHT_BOUNDARY)
_COUNT_MAX = {BTREE_LEAF: LEAF_ELEMENTS, BTREE_INTERNAL: INTERNAL_ELEMENTS}
_SOUGHT = " *"
INDENT_MAX = 9
"""Tabs in front of the deepest nodes, as there."""
_SHOWN_TYPES = (BTREE_INTERNAL, BTREE_LEAF, BTREE_RECORD, BTREE_DELETED)


@dataclass(frozen=True, slots=True)
class ShowOptions:
    """What the report is to say.

    search -- elements sought: they are marked with a `*`, as are those that lead to them
    strict -- True: only nodes that lead to what is sought; False: all nodes; None: down to the first that leads there,
    then everything that follows
    indent -- tabs show the depth of nodes
    records -- with what the data of records says, and how much of it; None: nothing of it
    counts -- also how much was met of each zone, and how much is bad where nothing is
    """

    search: Search | None = None
    strict: bool | None = None
    indent: bool = False
    records: RecordWords | None = PLAIN
    counts: bool = False


EVERYTHING = ShowOptions()


def show_lines(volumes: VolumeSet, options: ShowOptions = EVERYTHING) -> Iterator[str]:
    """The whole report, line by line."""
    yield from header_lines(volumes.root.header)
    if options.search is not None:
        yield options.search.line()
    tree = _Show(ImageReader(volumes), options)
    yield from tree.node(volumes.root.header.vol0_btree_root, MAX_TID, None, 1, 0)
    if options.counts:
        yield from tree.zones.lines()
    for what, count in (("nodes", tree.bad_nodes), ("elms", tree.bad_elements), ("records", tree.bad_records)):
        if count or options.counts:
            yield f"{count} bad {what}"


class _Show:
    """One pass over the tree; counts what was bad, and what it met of each zone."""

    def __init__(self, reader: ImageReader, options: ShowOptions) -> None:
        self._reader = reader
        self._options = options
        self._search = options.search
        self._passes_over = options.search is not None and options.strict is not False
        self._fill = FillColumn(reader)
        self.zones = ZoneStatistics()
        self.bad_nodes = 0
        self.bad_elements = 0
        self.bad_records = 0

    def node(
        self, offset: Offset, mirror_tid: Tid, bounds: tuple[bytes, bytes] | None, siblings: int, depth: int
    ) -> Iterator[str]:
        """A node, then everything below it that was asked for."""
        indent = "\t" * min(depth, INDENT_MAX) if self._options.indent else ""
        lines, elements, count = self._node(offset, mirror_tid, bounds, siblings, depth)
        for line in lines:
            yield indent + line
        for element, following in pairwise(elements):
            if self._passes_over and self._search is not None and not self._search.below(element, following):
                continue
            if element.subtree_offset and depth < DEPTH_MAX:
                limits = element.packed_key(), following.packed_key()
                yield from self.node(element.subtree_offset, element.mirror_tid, limits, count, depth + 1)
                self._passes_over = self._passes_over and self._options.strict is True

    def _node(
        self, offset: Offset, mirror_tid: Tid, bounds: tuple[bytes, bytes] | None, siblings: int, depth: int
    ) -> tuple[Iterable[str], list[InternalElement], int]:
        """A node's own lines, the elements that lead below it, with the right boundary, and its number of elements."""
        try:
            raw = self._reader.read(offset, NODE_SIZE) if offset & BUFMASK <= BUFSIZE - NODE_SIZE else b""
        except HammerError:
            raw = b""
        if not raw:
            self.bad_nodes += 1
            return [f"BI   NODE {offset:016x} (IO ERROR)"], [], 0
        self.zones.add(offset, NODE_SIZE)
        header = ondisk_node.unpack_header(raw)
        count = max(0, min(header.element_count, _COUNT_MAX.get(header.kind, 0)))
        is_internal = header.kind == BTREE_INTERNAL
        elements = [self._internal_at(raw, index) for index in range(count + 1)] if is_internal else []
        leaves = () if is_internal else (unpack_leaf(raw, _start(index)) for index in range(count))
        flags = self._node_flags(raw, header, mirror_tid, siblings)
        kind = chr(header.kind) if 32 <= header.kind < 127 else "?"
        lines = chain(
            (
                f"{flags}   NODE {offset:016x} cnt={header.element_count:02} p={header.parent:016x} type={kind} "
                f"depth={depth} mirror={header.mirror_tid:016x} fill={self._fill.text(offset)} {{",
            ),
            *(self._internal(offset, header, elements, index, bounds) for index in range(len(elements))),
            chain.from_iterable(self._leaf(header, leaf, index, bounds) for index, leaf in enumerate(leaves)),
            ("     }",),
        )
        return lines, elements, count

    @staticmethod
    def _internal_at(raw: bytes, index: int) -> InternalElement:
        return unpack_internal(raw, _start(index))

    def _node_flags(self, raw: bytes, header: ondisk_node.NodeHeader, mirror_tid: Tid, siblings: int) -> str:
        first = " " if ondisk_node.crc_ok(self._reader.version, raw) else "B"
        second = " "
        if header.mirror_tid > mirror_tid:
            first, second = "B", "M"
        limit = _COUNT_MAX.get(header.kind)
        if limit is None:
            first, second = "B", "U"
        elif not 0 <= header.element_count <= limit or (header.element_count == 0 and siblings != 1):
            first, second = "B", "C"
        if first != " ":
            self.bad_nodes += 1
        return first + second

    def _internal(
        self,
        offset: Offset,
        header: ondisk_node.NodeHeader,
        elements: list[InternalElement],
        index: int,
        bounds: tuple[bytes, bytes] | None,
    ) -> Iterator[str]:
        element = elements[index]
        boundary = index == header.element_count
        child = element.subtree_offset
        key = element.packed_key()
        if boundary:
            bad_child = child != 0
            bad_type = element.btype != BTREE_NONE
        else:
            bad_child = not child or self._parent_of(child) != offset
            bad_type = element.btype not in (BTREE_INTERNAL, BTREE_LEAF)
        flags = self._element_flags(
            _left_of(key, bounds),
            not _left_of(key, bounds) and _right_of(key, bounds, boundary),
            bad_type,
            bad_child,
            element.mirror_tid > header.mirror_tid,
        )
        yield _key_line(flags, "RBN" if boundary else "ELM", index, element)
        yield (
            f"{_mark(element, key, index)} del={element.delete_tid:016x} ot={element.obj_type:02x} "
            f"suboff={child:016x} mirror={element.mirror_tid:016x}"
            f"{_SOUGHT if not boundary and self._is_on_the_way(elements, index) else ''}"
        )

    def _is_on_the_way(self, elements: list[InternalElement], index: int) -> bool:
        return self._search is not None and self._search.below(elements[index], elements[index + 1])

    def _leaf(
        self,
        header: ondisk_node.NodeHeader,
        element: LeafElement,
        index: int,
        bounds: tuple[bytes, bytes] | None,
    ) -> Iterator[str]:
        key = element.packed_key()
        mirror = header.mirror_tid
        fresh = header.parent == 0 and header.element_count == 2
        flags = self._element_flags(
            _left_of(key, bounds),
            not _left_of(key, bounds) and _right_of(key, bounds, False),
            element.btype != BTREE_RECORD,
            not element.data_offset or not element.data_len,
            (not mirror and not fresh) or (mirror != 0 and max(element.create_tid, element.delete_tid) > mirror),
        )
        yield _key_line(flags, "ELM", index, element)
        start = (
            f"{' ' * 15}{'d' if element.delete_tid else ' '} del={element.delete_tid:016x} ot={element.obj_type:02x}"
        )
        mark = _SOUGHT if self._search is not None and self._search.matches(key) else ""
        if element.btype != BTREE_RECORD:
            yield f"{start} badtype={element.btype}{mark}"
            return
        self.zones.add(element.data_offset, element.data_len)
        data, which, error = self._data(element)
        if error:
            self.bad_records += 1
        lines = [
            f"{start} dataoff={element.data_offset:016x}/{element.data_len} {which}crc={element.data_crc:08x}"
            f"{f' error={error}' if error else ''} fill={self._fill.text(element.data_offset)}"
        ]
        if data and self._options.records is not None:
            lines += record_lines(element, data, self._options.records)
        lines[-1] += mark
        yield from lines

    def _element_flags(self, left: bool, right: bool, kind: bool, child: bool, mirror: bool) -> str:
        letters = "".join(
            letter if on else "-" for letter, on in zip("LRTCM", (left, right, kind, child, mirror), strict=True)
        )
        bad = left or right or kind or child or mirror
        self.bad_elements += bad
        return f"{'B' if bad else 'G'}-{letters}"

    def _parent_of(self, child: Offset) -> Offset | None:
        try:
            if child & BUFMASK > BUFSIZE - NODE_SIZE:
                return None
            return ondisk_node.unpack_header(self._reader.read(child, NODE_SIZE)).parent
        except HammerError:
            return None

    def _data(self, element: LeafElement) -> tuple[bytes, str, str]:
        """A record's data, which CRC fits ('i' CRC-32C, 'o' CRC-32), and hammer(8)'s letters for what is wrong."""
        offset, size = element.data_offset, element.data_len
        if not offset or size <= 0 or size > BIGBLOCK_SIZE:
            return b"", "", "ZO"
        if element.rec_type == RECTYPE_INODE and size != INODE_DATA_SIZE:
            return b"", "", "BI"
        try:
            data = self._reader.read_uncached(offset, size)
        except HammerError:
            return b"", "", "Bx"
        if self._reader.version >= VERSION_CRC32C and _crc(crc.crc32c, element, data):
            return data, "i", ""
        if _crc(crc.crc32, element, data):
            return data, "o", ""
        return data, "", "BX"


def _crc(function: crc.CrcFunction, element: LeafElement, data: bytes) -> bool:
    return crc.record_crc(function, element.rec_type, data) == element.data_crc


def _start(index: int) -> int:
    return NODE_HEADER_SIZE + index * ELEMENT_SIZE


def _left_of(key: bytes, bounds: tuple[bytes, bytes] | None) -> bool:
    return bounds is not None and key < bounds[0]


def _right_of(key: bytes, bounds: tuple[bytes, bytes] | None, boundary: bool) -> bool:
    return bounds is not None and (key > bounds[1] or (key == bounds[1] and not boundary))


def _key_line(flags: str, label: str, index: int, element: LeafElement | InternalElement) -> str:
    shown = chr(element.btype) if element.btype in _SHOWN_TYPES else "*" if element.btype == BTREE_NONE else "?"
    mask = (1 << 64) - 1
    return (
        f"{flags} {label} {index:2} {shown} lo={element.localization:08x} objid={element.obj_id & mask:016x} "
        f"rt={element.rec_type:02x} key={element.key & mask:016x} tid={element.create_tid:016x}"
    )


def _mark(element: InternalElement, key: bytes, index: int) -> str:
    """The second line's first columns: > and < at the ends of the whole tree, d for deleted."""
    plain = element.obj_type == 0
    if index == 0 and key == _LEFTMOST and element.delete_tid == 1 and plain and element.btype != BTREE_NONE:
        letter = ">"
    elif index and key == _RIGHTMOST and element.delete_tid == 0 and plain and element.btype == BTREE_NONE:
        letter = "<"
    else:
        letter = "d" if element.delete_tid else " "
    return " " * 15 + letter


class FillColumn:
    """How full the big-block around an offset is: `z8:v0:0:3:4096=1%`, an error code of the lookup instead of the
    share when zone and freemap disagree (`print_bigblock_fill`, `blockmap_lookup_save`)."""

    def __init__(self, reader: ImageReader) -> None:
        self._reader = reader

    def text(self, offset: Offset) -> str:
        """The column for a zone-encoded offset."""
        index = offset & LONG_MASK
        place = (
            f"z{zone_of(offset)}:v{volume_of(offset)}:{index // LAYER2_SPAN}:{index % LAYER2_SPAN // BIGBLOCK_SIZE}"
            f":{offset & BIGBLOCK_MASK}"
        )
        return f"{place}={self._share(offset)}"

    def _share(self, offset: Offset) -> str:
        if zone_of(offset) <= 1:
            return "B-1"
        root = self._reader.volumes.root.header
        try:
            where = root.blockmap(ZONE_FREEMAP).phys_offset + layer1_offset(offset)
            layer1 = Layer1.unpack(self._reader.read(where, LAYER1_ENTRY_SIZE))
            if not layer1.available:
                return "B-6"
            where = layer1.phys_offset + layer2_offset(offset)
            layer2 = Layer2.unpack(self._reader.read(where, LAYER2_ENTRY_SIZE))
        except HammerError:
            return "B-7"
        if layer2.zone != zone_of(offset) or layer2.zone == ZONE_UNAVAIL:
            return "B-8"
        return f"{100 - int(layer2.bytes_free * 100 / BIGBLOCK_SIZE)}%"
