"""docs/format.md draws the structures that `ondisk` reads: same fields, same offsets, same sizes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hammerfs.ondisk import element, fifo, inode, node
from hammerfs.ondisk.fields import BytesField, IntField, Structure, UuidField
from hammerfs.ondisk.pfs import PfsData, SnapshotData
from hammerfs.ondisk.volume import BlockmapEntry, VolumeHeader

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "format.md"
CELL = 10
ROW = re.compile(r" *(\d*) \|(.*)\|$")
MORE = re.compile(r"\.\.\. \((\d+) bytes\)")

Drawing = dict[str, tuple[int, int]]


def drawings() -> list[Drawing]:
    """Every drawn structure: offset and size of each field by name."""
    found = []
    for block in re.findall(r"^```\n( +0 +1 +2.*?)\n```$", DOCUMENT.read_text(), re.MULTILINE | re.DOTALL):
        fields: Drawing = {}
        last = ""
        for line in block.splitlines():
            match = ROW.match(line)
            if match is None:
                continue
            start = int(match[1]) if match[1] else None
            place = 0
            for cell in match[2].split("|"):
                size = (len(cell) + 1) // CELL
                name = cell.strip().removesuffix(" ...")
                if more := MORE.fullmatch(name):
                    fields[last] = (fields[last][0], int(more[1]))
                elif name == "...":
                    offset = fields[last][0]
                    known = fields[last][1]
                    fields[last] = (offset, max(known, (start or 0) + place + size - offset))
                else:
                    assert start is not None, line
                    fields[name] = (start + place, size)
                    last = name
                place += size
        found.append(fields)
    return found


def drawing_with(*names: str) -> Drawing:
    """The drawing that has all these fields."""
    matching = [fields for fields in drawings() if all(name in fields for name in names)]
    assert len(matching) == 1, f"{len(matching)} drawings have {names}"
    return matching[0]


def declared(structure: type[Structure]) -> Drawing:
    """Offset and size of each field that a Structure declares."""
    fields: Drawing = {}
    for name, field in vars(structure).items():
        if isinstance(field, IntField):
            fields[name] = (field.offset, field.layout.size)
        elif isinstance(field, BytesField):
            fields[name] = (field.offset, field.length)
        elif isinstance(field, UuidField):
            fields[name] = (field.offset, 16)
    return fields


@pytest.mark.parametrize(
    ("structure", "telling"),
    [
        (VolumeHeader, "vol_signature"),
        (BlockmapEntry, "alloc_offset"),
        (PfsData, "shared_uuid"),
        (SnapshotData, "tid"),
    ],
)
def test_fields_are_drawn_where_they_are(structure: type[Structure], telling: str) -> None:
    drawn = drawing_with(telling)
    fields = declared(structure)
    assert fields
    assert {name: drawn.get(name) for name in fields} == fields
    assert max(offset + size for offset, size in drawn.values()) == structure.SIZE


@pytest.mark.parametrize(
    ("telling", "size"),
    [
        (("nlinks",), inode.LAYOUT.size),
        (("data_crc",), element.LEAF.size),
        (("subtree_offset",), element.INTERNAL.size),
        (("rec_type",), element.BASE.size),
        (("parent",), 4096),
        (("hdr_seq",), fifo.HEAD_SIZE),
        (("tail_size",), fifo.TAIL_SIZE),
        (("layer1_crc",), 32),
        (("append_off",), 16),
    ],
)
def test_structures_are_drawn_in_full(telling: tuple[str, ...], size: int) -> None:
    drawn = sorted(drawing_with(*telling).values())
    position = 0
    for offset, length in drawn:
        assert offset == position, "fields follow each other without gap or overlap"
        position += length
    assert position == size


@pytest.mark.parametrize(
    ("telling", "name", "offset"),
    [
        ("nlinks", "mtime", inode.LAYOUT.size - 16),
        ("data_crc", "data_offset", element.DATA_OFFSET_OFFSET),
        ("rec_type", "delete_tid", element.DELETE_TID_OFFSET),
        ("parent", "elms: 63 elements", node.HEADER.size),
        ("hdr_seq", "hdr_crc", fifo.CRC_OFFSET),
        ("undo_offset", "old bytes, padding, tail", fifo.UNDO_HEAD_SIZE),
        ("redo_flags", "written bytes (WRITE), padding, tail", fifo.REDO_HEAD_SIZE),
    ],
)
def test_a_field_is_drawn_at_its_offset(telling: str, name: str, offset: int) -> None:
    assert drawing_with(telling)[name][0] == offset


def test_links_within_the_document_lead_somewhere() -> None:
    text = DOCUMENT.read_text()
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    links = re.findall(r"\]\(#([^)]+)\)", text)
    assert links
    assert set(links) <= anchors
