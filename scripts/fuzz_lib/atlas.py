"""Where everything is in a sound image: what a change may aim at."""

from __future__ import annotations

from dataclasses import dataclass, field

from fuzz_lib.image import Image
from fuzz_lib.layout import INTERNAL, LEAF
from hammerfs.ondisk.address import bigblock_of, encode, to_zone2
from hammerfs.ondisk.constants import (
    BIGBLOCK_SIZE,
    BTREE_INTERNAL,
    BUFSIZE,
    ELEMENT_SIZE,
    HEAD_TYPE_PAD,
    LAYER1_ENTRY_SIZE,
    LAYER2_ENTRY_SIZE,
    NODE_HEADER_SIZE,
    RECTYPE_DATA,
    RECTYPE_DIRENTRY,
    RECTYPE_INODE,
    RECTYPE_PFS,
    UNDO_ALIGN,
    ZONE_FREEMAP,
    ZONE_RAW_VOLUME,
    ZONE_UNDO,
)
from hammerfs.store.fiforeader import FifoReader
from hammerfs.store.recovery import find_range
from hammerfs.store.volumes import VolumeSet

KIND_OF_TYPE = {
    RECTYPE_INODE: "inode",
    RECTYPE_DIRENTRY: "entry",
    RECTYPE_PFS: "pfs",
    RECTYPE_DATA: "data",
}


@dataclass
class Atlas:
    """Offsets of structures by kind, each kind in a fixed order, so that an index names one in every geometry.

    places -- "header", "node", "leaf" and "internal" (elements), "inode", "entry", "pfs", "data" and "other" (what
        records refer to), "layer1", "layer2", "fifo" (records)
    element_of -- the leaf element that refers to a record's data
    sizes -- bytes of record data
    leaf_nodes, internal_nodes -- nodes by kind
    fifo_end, fifo_seq -- zone-3 offset where the active range ends, and the number that continues it
    """

    places: dict[str, list[int]] = field(default_factory=dict)
    element_of: dict[int, int] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    leaf_nodes: list[int] = field(default_factory=list)
    internal_nodes: list[int] = field(default_factory=list)
    objects: list[int] = field(default_factory=list)
    tids: list[int] = field(default_factory=list)
    fifo_end: int = 0
    fifo_seq: int = 0

    def add(self, kind: str, offset: int) -> None:
        """Note a structure."""
        self.places.setdefault(kind, []).append(offset)


def survey(image: Image) -> Atlas:
    """The atlas of a sound image."""
    atlas = Atlas()
    for number in range(len(image.devices)):
        atlas.add("header", encode(ZONE_RAW_VOLUME, number, 0))
    _survey_tree(image, atlas)
    _survey_freemap(image, atlas)
    _survey_fifo(image, atlas)
    return atlas


def _survey_tree(image: Image, atlas: Atlas) -> None:
    waiting = [image.header().vol0_btree_root]
    while waiting:
        node = waiting.pop(0)
        atlas.add("node", node)
        internal = image.read(node + 20, 1)[0] == BTREE_INTERNAL
        (atlas.internal_nodes if internal else atlas.leaf_nodes).append(node)
        elements = image.elements(node)
        for index, raw in enumerate(elements):
            place = node + NODE_HEADER_SIZE + index * ELEMENT_SIZE
            if internal:
                atlas.add("internal", place)
                waiting.append(INTERNAL["subtree"].read(raw))
            else:
                _survey_record(atlas, place, raw)
        if internal:
            atlas.add("internal", node + NODE_HEADER_SIZE + len(elements) * ELEMENT_SIZE)


def _survey_record(atlas: Atlas, place: int, raw: bytes) -> None:
    atlas.add("leaf", place)
    data, size = LEAF["data_offset"].read(raw), LEAF["data_len"].read(raw)
    obj_id, tid = LEAF["obj_id"].read(raw), LEAF["create_tid"].read(raw)
    if obj_id not in atlas.objects:
        atlas.objects.append(obj_id)
    if tid not in atlas.tids:
        atlas.tids.append(tid)
    if size:
        atlas.add(KIND_OF_TYPE.get(LEAF["rec_type"].read(raw), "other"), data)
        atlas.element_of[data] = place
        atlas.sizes[data] = size


def _survey_freemap(image: Image, atlas: Atlas) -> None:
    header = image.header()
    base = header.blockmap(ZONE_FREEMAP).phys_offset
    for number in range(len(image.devices)):
        start = encode(2, number, 0)
        atlas.add("layer1", image.layer1_place(start))
        first = image.layer2_place(start)
        last = (image.end_of(number) - start) // BIGBLOCK_SIZE
        # The last ones here are free, the last of the volume, and behind its end.
        for index in (*range(10), last - 1, last):
            atlas.add("layer2", first + index * LAYER2_ENTRY_SIZE)
    atlas.add("layer1", base + LAYER1_ENTRY_SIZE)


def _survey_fifo(image: Image, atlas: Atlas) -> None:
    volumes = VolumeSet.open(image.devices)
    reader = FifoReader(volumes)
    entry = image.header().blockmap(ZONE_UNDO)
    found = find_range(volumes, reader)
    atlas.fifo_end, atlas.fifo_seq = found.end, found.seq
    before = max(encode(ZONE_UNDO, 0, 0), (entry.first_offset & -UNDO_ALIGN) - UNDO_ALIGN)
    for record in reader.scan(before, found.end - before + 4 * UNDO_ALIGN - found.end % UNDO_ALIGN):
        if record.kind != HEAD_TYPE_PAD:
            atlas.add("fifo", image.fifo_place(record.offset))


def landmarks(image: Image, atlas: Atlas) -> list[int]:
    """Zone-2 addresses worth pointing at."""
    header = image.header()
    places = [to_zone2(place) for kind in ("node", "data", "inode", "entry") for place in atlas.places.get(kind, [])]
    places += [atlas.places["layer1"][0], *atlas.places["layer2"][:8]]
    places += [to_zone2(header.undo_bigblock(0)), bigblock_of(atlas.places["layer2"][0])]
    places += [image.end_of(0), image.end_of(0) - BUFSIZE, image.end_of(0) - 16, encode(2, 1, 0), encode(2, 255, 0)]
    # Behind the others, whose numbers mean the same with one volume.
    for number in range(1, len(image.devices)):
        places += [image.layer2_place(encode(2, number, 0)), image.end_of(number), image.end_of(number) - BUFSIZE]
    return places
