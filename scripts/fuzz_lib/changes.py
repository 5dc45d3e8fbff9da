"""The changes that make an image hostile: each a list that JSON can hold, applied to an `Image`.

A program is the name of a base image and a list of changes.  Structures are named by kind and index in the base's
`Atlas`, values by how they are computed, so that a program means the same in both geometries.  A change that does not
apply (to a record that the program removed before, say) is left out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from fuzz_lib.atlas import Atlas, landmarks
from fuzz_lib.image import Image, ImpossibleChange
from fuzz_lib.layout import ENTRY, FIFO, HEADER, INODE, INTERNAL, LAYER1, LAYER2, LEAF, NODE, PFS, Field
from hammerfs.device.memory import MemoryDevice
from hammerfs.errors import HammerError
from hammerfs.ondisk.address import bigblock_of, encode
from hammerfs.ondisk.constants import (
    BTREE_INTERNAL,
    BTREE_RECORD,
    BUFMASK,
    BUFSIZE,
    ELEMENT_SIZE,
    NODE_HEADER_SIZE,
    NODE_SIZE,
    RECTYPE_DATA,
    UNDO_ALIGN,
    ZONE_LARGE_DATA,
    ZONE_META,
    ZONE_RAW_VOLUME,
    ZONE_SMALL_DATA,
    ZONE_UNDO,
)
from hammerfs.ondisk.direntry import name_key
from hammerfs.ondisk.element import element_key
from hammerfs.ondisk.fifo import RedoBody, pad_record, redo_record, undo_record
from hammerfs.ondisk.volume import VOLUME_HEADER_SIZE, VolumeHeader

Change: TypeAlias = list[Any]
FIELDS: dict[str, dict[str, Field]] = {
    "header": HEADER,
    "node": NODE,
    "leaf": LEAF,
    "internal": INTERNAL,
    "inode": INODE,
    "entry": ENTRY,
    "pfs": PFS,
    "data": {"first": Field("first", 0, "Q")},
    "other": {"first": Field("first", 0, "Q"), "second": Field("second", 8, "Q")},
    "layer1": LAYER1,
    "layer2": LAYER2,
    "fifo": FIFO,
}
RECORD_KINDS = ("inode", "entry", "pfs", "data", "other")
_MASK64 = (1 << 64) - 1


@dataclass
class Program:
    """A hostile image: the base it is made from, and what is changed."""

    base: str
    changes: list[Change]

    def as_json(self) -> list[Any]:
        """For `from_json`."""
        return [self.base, self.changes]

    @classmethod
    def from_json(cls, saved: list[Any]) -> Program:
        """A program that was saved."""
        return cls(saved[0], saved[1])


class Editor:
    """Applies changes to a copy of a base.

    devices -- what is to be opened, normally the image's volumes in order
    """

    def __init__(self, image: Image, atlas: Atlas) -> None:
        self.image = image
        self.atlas = atlas
        self.devices: list[MemoryDevice] = list(image.devices)
        self.fifo_end = atlas.fifo_end
        self.fifo_seq = atlas.fifo_seq
        self._unsealed: list[tuple[int, bytes]] = []

    def place(self, kind: str, index: int) -> int:
        """Where the structure of that name is."""
        places = self.atlas.places.get(kind)
        if not places:
            raise ImpossibleChange(f"there is no {kind}")
        return places[index % len(places)]

    def value(self, spec: list[Any], old: int) -> int:
        """What a value's description comes to."""
        match spec:
            case ["=", number]:
                return int(number)
            case ["+", number]:
                return old + int(number)
            case ["^", number]:
                return old ^ int(number)
            case ["@", index, zone, delta]:
                places = landmarks(self.image, self.atlas)
                address = (places[int(index) % len(places)] & ((1 << 60) - 1)) + int(delta)
                return encode(int(zone), 0, 0) | (address & ((1 << 60) - 1))
            case ["v", number]:
                return encode(0, int(number), 0) | (old & ~encode(0, 255, 0))
            case ["b", index, zone]:
                places = landmarks(self.image, self.atlas)
                return encode(int(zone), 0, 0) | (bigblock_of(places[int(index) % len(places)]) & ((1 << 60) - 1))
        raise ImpossibleChange(f"no value: {spec}")

    def run(self, changes: list[Change]) -> list[MemoryDevice]:
        """Apply all that can be applied; the devices to open."""
        for change in changes:
            try:
                OPERATIONS[change[0]](self, *change[1:])
            except (ImpossibleChange, HammerError):
                continue
        with contextlib.suppress(ImpossibleChange, HammerError):  # the device may have become too short for it
            self.image.seal()
        for offset, data in self._unsealed:
            with contextlib.suppress(ImpossibleChange):
                self.image.write(offset, data)
        return self.devices

    # --- changes --------------------------------------------------------------------------------
    def field(self, kind: str, index: int, name: str, spec: list[Any], sealed: bool = True) -> None:
        """One field; unless `sealed`, no checksum is made right for it."""
        at = self.place(kind, index)
        field = FIELDS[kind][name]
        old = field.read(self.image.read(at, field.at + field.size))
        new = field.pack(self.value(spec, old))
        if not sealed or name == "crc":
            self._unsealed.append((at + field.at, new))
            return
        self.image.write(at + field.at, new)
        self._touched(kind, at)
        if kind == "leaf" and name in ("data_offset", "data_len", "rec_type"):
            self.image.rehash(at)

    def _touched(self, kind: str, at: int) -> None:
        if kind in RECORD_KINDS:
            element = self.atlas.element_of[at]
            self.image.rehash(element)
            self.image.touch("leaf", element)
        else:
            self.image.touch(kind, at)

    def bytes_(self, kind: str, index: int, at: int, data: str, sealed: bool = True) -> None:
        """Bytes anywhere in a structure, or close behind it."""
        start = self.place(kind, index)
        raw = bytes.fromhex(data)
        room = BUFSIZE - (start & BUFMASK)
        at = min(at, room - len(raw))
        if not sealed:
            self._unsealed.append((start + at, raw))
            return
        self.image.write(start + at, raw)
        self._touched(kind, start)

    def remove(self, leaf: int, index: int) -> None:
        """Take a record out of a leaf."""
        node, elements = self._leaf(leaf)
        if not elements:
            raise ImpossibleChange("an empty leaf")
        del elements[index % len(elements)]
        self.image.put_elements(node, elements)

    def swap(self, leaf: int, one: int, two: int) -> None:
        """Exchange two records of a leaf."""
        node, elements = self._leaf(leaf)
        if len(elements) < 2:
            raise ImpossibleChange("nothing to exchange")
        one, two = one % len(elements), two % len(elements)
        elements[one], elements[two] = elements[two], elements[one]
        self.image.put_elements(node, elements)

    def twin(self, leaf: int, index: int, name: str, spec: list[Any], ordered: bool) -> None:
        """A second record like one that is there but for one field; in its place by its key, or right behind."""
        node, elements = self._leaf(leaf)
        if not elements:
            raise ImpossibleChange("an empty leaf")
        index %= len(elements)
        field = LEAF[name]
        raw = bytearray(elements[index])
        raw[field.at : field.at + field.size] = field.pack(self.value(spec, field.read(raw)))
        elements.insert(index + 1, bytes(raw))
        if ordered:
            elements.sort(key=element_key)
        self.image.put_elements(node, elements)

    def insert(
        self, local: int, obj_id: int, rec_type: int, key: int, create: int, delete: int, obj_type: int, data: str
    ) -> None:
        """A new record with its data, where it belongs."""
        raw = bytes.fromhex(data)
        zone = ZONE_META
        if rec_type == RECTYPE_DATA:
            zone = ZONE_LARGE_DATA if len(raw) >= BUFSIZE else ZONE_SMALL_DATA
        offset = self.image.allocate(zone, raw) if raw else 0
        fields = {
            "localization": local, "obj_id": obj_id, "rec_type": rec_type, "key": key, "create_tid": create,
            "delete_tid": delete, "obj_type": obj_type, "btype": BTREE_RECORD, "data_offset": offset,
            "data_len": len(raw), "data_crc": self.image.data_crc(rec_type, raw) if raw else 0,
        }  # fmt: skip
        element = bytearray(ELEMENT_SIZE)
        for name, value in fields.items():
            field = LEAF[name]
            element[field.at : field.at + field.size] = field.pack(value)
        self._insert(bytes(element))

    def _insert(self, element: bytes) -> None:
        packed = element_key(element)
        node = self.image.header().vol0_btree_root
        for _ in range(8):
            elements = self.image.elements(node)
            if self.image.read(node + NODE["type"].at, 1)[0] != BTREE_INTERNAL:
                self.image.put_elements(node, sorted([*elements, element], key=element_key))
                return
            below = [raw for raw in elements if element_key(raw) <= packed] or elements[:1]
            if not below:
                break
            node = INTERNAL["subtree"].read(below[-1])
        raise ImpossibleChange("no leaf")

    def name(self, index: int, name: str, hashed: bool) -> None:
        """Another name for a directory entry; `hashed` moves the entry to where the name belongs."""
        data = self.place("entry", index)
        element = self.atlas.element_of[data]
        node = element & ~(NODE_SIZE - 1)
        elements = self.image.elements(node)
        at = (element - node - NODE_HEADER_SIZE) // ELEMENT_SIZE
        if at >= len(elements):
            raise ImpossibleChange("the entry is gone")
        raw = self.image.read(data, 16) + bytes.fromhex(name)
        record = bytearray(elements.pop(at))
        offset = self.image.allocate(ZONE_META, raw)
        values = {
            "data_offset": offset,
            "data_len": len(raw),
            "data_crc": self.image.data_crc(LEAF["rec_type"].read(record), raw),
        }
        if hashed:
            values["key"] = name_key(1 if self.image.version >= 6 else 0, bytes.fromhex(name))[0]
        for field_name, value in values.items():
            field = LEAF[field_name]
            record[field.at : field.at + field.size] = field.pack(value)
        elements.insert(at, bytes(record))
        self.image.put_elements(node, sorted(elements, key=element_key) if hashed else elements)

    def graft(self, index: int, node: int, adopted: bool) -> None:
        """Let an internal element refer to some node; `adopted` makes that name it as its parent."""
        element = self.place("internal", index)
        child = self.place("node", node)
        self.image.set(element, INTERNAL["subtree"], child)
        kind = self.image.read(child + NODE["type"].at, 1)[0]
        self.image.set(element, INTERNAL["btype"], kind)
        self.image.touch("node", element)
        if adopted:
            self.image.set(child, NODE["parent"], element & ~(NODE_SIZE - 1))
            self.image.touch("node", child)

    def copy(self, source: int, target: int, whole: bool) -> None:
        """Put one node's bytes in the place of another; unless `whole`, the header stays."""
        one, two = self.place("node", source), self.place("node", target)
        start = 0 if whole else NODE_HEADER_SIZE
        self.image.write(two + start, self.image.read(one + start, NODE_SIZE - start))
        self.image.touch("node", two)

    def undo(self, spec: list[Any], data: str) -> None:
        """Append an UNDO record that restores `data` anywhere."""
        target = self.value(spec, 0) & _MASK64
        self._append(undo_record(self.image.version, self.fifo_seq, target, bytes.fromhex(data)))

    def undo_field(self, kind: str, index: int, name: str, spec: list[Any]) -> None:
        """Append an UNDO record that restores a field to what it never was; and a sealed structure, where need be."""
        at = self.place(kind, index)
        field = FIELDS[kind][name]
        size = {"node": NODE_SIZE, "layer1": 32, "layer2": 16}.get(kind, 0)
        if kind in ("leaf", "internal"):
            start, size = at & ~(NODE_SIZE - 1), NODE_SIZE
        elif size:
            start = at
        else:
            start, size = at + field.at, field.size
        raw = bytearray(self.image.read(start, size))
        place = at + field.at - start
        old = int.from_bytes(raw[place : place + field.size], "little")
        raw[place : place + field.size] = field.pack(self.value(spec, old))
        if size == NODE_SIZE:
            raw[:4] = self.image.checksum(bytes(raw[4:])).to_bytes(4, "little")
        elif kind in ("layer1", "layer2"):
            raw[-4:] = self.image.checksum(bytes(raw[:-4])).to_bytes(4, "little")
        target = start if kind == "header" else encode(2, 0, 0) | (start & ((1 << 60) - 1))
        piece = UNDO_ALIGN - 48
        for done in range(0, size, piece):
            chunk = bytes(raw[done : done + piece])
            self._append(undo_record(self.image.version, self.fifo_seq, target + done, chunk))

    def redo(self, obj_id: int, offset: int, size: int, flags: int, local: int, data: str) -> None:
        """Append a REDO record."""
        body = RedoBody(
            _signed(obj_id, 64), offset & _MASK64, _signed(size, 32), flags, local & 0xFFFFFFFF, bytes.fromhex(data)
        )
        self._append(redo_record(self.image.version, self.fifo_seq, body))

    def redo_sync(self, back: int) -> None:
        """Append a REDO_SYNC that asks for everything from `back` bytes before the end on."""
        at = (self.fifo_end - back) & _MASK64
        self._append(redo_record(self.image.version, self.fifo_seq, RedoBody(0, at, 0, 0x10, 0, b"")))

    def _append(self, record: bytes) -> None:
        """Lay a record down at the end of the active range, in a sector of its own."""
        start = (self.fifo_end + UNDO_ALIGN - 1) & -UNDO_ALIGN
        end = start + ((len(record) + UNDO_ALIGN - 1) & -UNDO_ALIGN)
        header = self.image.header()
        if end > header.blockmap(ZONE_UNDO).alloc_offset or (start ^ (end - 1)) & ~BUFMASK:
            raise ImpossibleChange("no room in the FIFO")
        pad = end - start - len(record)
        place = self.image.fifo_place(start)
        self.image.write(place, record + (pad_record(pad) if pad else b""))
        self.fifo_end = end
        self.fifo_seq = (self.fifo_seq + 1) & 0xFFFFFFFF
        header.blockmap(ZONE_UNDO).next_offset = end
        self.image.put_header(header)

    def volumes(self, order: list[int]) -> None:
        """Open these volumes, in this order; one may be given twice."""
        self.devices = [self.image.devices[number % len(self.image.devices)] for number in order]

    def lend(self, source: int, target: int, numbered: bool) -> None:
        """Give one volume another's header; `numbered` lets it keep its own number."""
        header = self.image.header(self._volume(source))
        number = self._volume(target)
        if numbered:
            header.vol_no = number
        self.image.put_header(header, number)

    def tear(self, number: int, at: int, sealed: bool) -> None:
        """Lose the end of a volume's header, as if less of it had ever been written."""
        at %= VOLUME_HEADER_SIZE
        if not sealed:
            self._unsealed.append((encode(ZONE_RAW_VOLUME, self._volume(number), at), bytes(VOLUME_HEADER_SIZE - at)))
            return
        raw = self.image.header(self._volume(number)).copy()
        self.image.put_header(VolumeHeader(raw[:at] + bytes(BUFSIZE - at)), self._volume(number))

    def _volume(self, number: int) -> int:
        return number % len(self.image.devices)

    def resize(self, number: int, spec: list[Any]) -> None:
        """Make a device shorter or longer than its header says."""
        if not self.devices:
            raise ImpossibleChange("no volume")
        device = self.devices[number % len(self.devices)]
        device._size = min(max(self.value(spec, device.size), 0), 1 << 62)

    def clear(self, spec: list[Any], size: int) -> None:
        """Zero bytes anywhere."""
        self._unsealed.append((self.value(spec, 0), bytes(min(size, BUFSIZE))))

    def _leaf(self, index: int) -> tuple[int, list[bytes]]:
        node = self.atlas.leaf_nodes[index % len(self.atlas.leaf_nodes)]
        return node, self.image.elements(node)


def _signed(value: int, bits: int) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


OPERATIONS: dict[str, Callable[..., None]] = {
    "field": Editor.field,
    "bytes": Editor.bytes_,
    "remove": Editor.remove,
    "swap": Editor.swap,
    "twin": Editor.twin,
    "insert": Editor.insert,
    "name": Editor.name,
    "graft": Editor.graft,
    "copy": Editor.copy,
    "undo": Editor.undo,
    "undo field": Editor.undo_field,
    "redo": Editor.redo,
    "redo sync": Editor.redo_sync,
    "volumes": Editor.volumes,
    "resize": Editor.resize,
    "lend": Editor.lend,
    "tear": Editor.tear,
    "clear": Editor.clear,
}
