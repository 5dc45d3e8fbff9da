"""Programs at random, aimed at what code that trusts a file system would get wrong."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from fuzz_lib.atlas import Atlas
from fuzz_lib.changes import FIELDS, Change, Program
from fuzz_lib.layout import Field
from hammerfs.ondisk.constants import BIGBLOCK_SIZE, BUFSIZE, UNDO_ALIGN, XBUFSIZE, XDEMARC

MORE = 0.45
"""Chance that a program goes on with another change."""
CHANGES_MAX = 8
REDO_SHARE = 0.04
VOLUMES_SHARE = 0.5
"""Of the changes to a base of several volumes, so many are aimed at there being several."""
_ADDRESSES = {"parent", "subtree", "data_offset", "phys", "offset", "redo_offset", "btree_root"}
_SIZES = (0, 1, 15, 16, 24, 25, 127, 128, 129, 255, 4096, BUFSIZE - 1, BUFSIZE, BUFSIZE + 1, XBUFSIZE, XBUFSIZE + 1,
          XDEMARC, XDEMARC + 1, 1 << 31, (1 << 31) - 1, (1 << 32) - 1, 1 << 52, (1 << 60) - 1)  # fmt: skip
_EDGES = (0, -1, 1, 2, (1 << 63) - 1, -(1 << 63), (1 << 63) - XBUFSIZE, (1 << 63) - BUFSIZE, 1 << 62)
_TIDS = (0, 1, 0xFFFFFFFF, 0x100000000, 0x100000001, (1 << 64) - 1, (1 << 63) - 1, 1 << 63)
_SMALL_FIELDS: dict[str, Sequence[int]] = {
    "rec_type": (0, 1, 2, 0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0xFFFF),
    "obj_type": (*range(12), 255),
    "btype": (0, ord("R"), ord("I"), ord("L"), ord("D"), 255),
    "type": (0, ord("R"), ord("I"), ord("L"), ord("D"), 255),
    "count": (0, 1, 2, 3, 61, 62, 63, 64, -1, 1 << 30, -(1 << 31)),
    "cap_flags": (0, 1, 2, 3, 4, 5, 6, 7, 255),
    "localization": (0, 1, 2, 3, 0x10001, 0x10002, 0x20001, 0x30001, 0xFFFF0001, 0xFFFFFFFF, 4),
    "version": (0, 1, 2, 3, 4, 5, 6, 7, 8, 0xFFFFFFFF),
    "zone": (*range(16), 255),
    "flags": (0, 1, 0x80000000, 0x80000001),
    "redo_flags": (0, 1, 2, 4, 8, 16, 3, 0xFFFFFFFF),
    "no": (0, 1, 255, 256, -1),
}
_NAMES = (
    b"", b".", b"..", b"/", b"a/b", b"../../etc", b"\0", b"a\0b", b"small", b"folder", b"x" * 255, b"x" * 256,
    b"x" * 1000, b"@@0x0000000100000000", b"@@PFS00001", b"@@-1:00001", b"name@@", b"\xff\xfe", b"\n", b"new\nline",
    b"-", b"_.~", b"\x7f" * 20, b"deep.file-name",
)  # fmt: skip
_TARGETS = (b"@@PFS00001", b"@@PFS65535", b"@@PFS99999", b"", b"\0", b"x" * 5000, b"/", b"a\0b", b"..")
_OBJECT_TYPES = (0, 1, 2, 7, 8, 200)


class Generator:
    """Draws programs for a set of bases; the same `random` state gives the same program."""

    def __init__(self, atlases: dict[str, Atlas], draw: random.Random) -> None:
        self._atlases = atlases
        self._draw = draw

    def program(self) -> Program:
        """A new one."""
        draw = self._draw
        base = draw.choice(sorted(self._atlases))
        atlas = self._atlases[base]
        changes: list[Change] = []
        while not changes or (len(changes) < CHANGES_MAX and draw.random() < MORE):
            if draw.random() < REDO_SHARE:
                # REDO is only run from a SYNC on.
                changes.append(self._redo_sync(atlas))
                changes += [self._redo(atlas) for _ in range(1 + draw.randrange(3))]
            elif len(atlas.places["header"]) > 1 and draw.random() < VOLUMES_SHARE:
                changes.append(self._family(atlas))
            else:
                changes.append(self._change(atlas))
        return Program(base, changes)

    def _change(self, atlas: Atlas) -> Change:
        makers: list[tuple[int, Callable[[Atlas], Change]]] = [
            (40, self._field), (4, self._bytes), (2, self._remove), (2, self._swap), (8, self._twin),
            (16, self._insert), (8, self._name), (4, self._graft), (2, self._copy), (4, self._undo),
            (6, self._undo_field), (2, self._redo),
            (2, self._redo_sync), (1, self._volumes), (1, self._resize), (1, self._clear),
        ]  # fmt: skip
        return self._one_of(makers, atlas)

    def _family(self, atlas: Atlas) -> Change:
        """What is wrong with one volume beside another, or with what refers to it."""
        makers: list[tuple[int, Callable[[Atlas], Change]]] = [
            (2, self._orders), (5, self._identity), (1, self._lend), (2, self._tear), (1, self._resize_one),
            (14, self._elsewhere), (8, self._freemap_of_one), (5, self._undo_elsewhere), (3, self._undo_freemap_of_one),
        ]  # fmt: skip
        return self._one_of(makers, atlas)

    def _one_of(self, makers: Sequence[tuple[int, Callable[[Atlas], Change]]], atlas: Atlas) -> Change:
        at = self._draw.randrange(sum(weight for weight, _ in makers))
        for weight, maker in makers:
            if at < weight:
                return maker(atlas)
            at -= weight
        raise AssertionError("weights do not add up")

    # --- values ---------------------------------------------------------------------------------
    def _pick(self, numbers: Sequence[int]) -> int:
        return numbers[self._draw.randrange(len(numbers))]

    def _value(self, atlas: Atlas, field: Field) -> list[object]:
        draw = self._draw
        if field.name in ("obj_id", "parent") and field.code == "q" and draw.random() < 0.6:
            return ["=", self._pick(atlas.objects)]
        if field.name in _SMALL_FIELDS and draw.random() < 0.8:
            return ["=", self._pick(_SMALL_FIELDS[field.name])]
        if field.name in ("zone3_first", "zone3_next", "zone3_alloc") and draw.random() < 0.7:
            sectors = draw.randrange(BIGBLOCK_SIZE // UNDO_ALIGN + 2)
            return ["=", (3 << 60) + sectors * UNDO_ALIGN + self._pick((0, 0, 0, 8, 24, 480, 1))]
        address = field.name in _ADDRESSES or field.name.startswith(("zone", "undo"))
        if field.code == "Q" and address and draw.random() < 0.8:
            return self._address()
        match draw.randrange(8):
            case 0:
                return [
                    "+",
                    self._pick((1, -1, 2, -2, 8, -8, 16, -16, 64, 512, -512, 4096, BUFSIZE, -BUFSIZE, 1 << 23)),
                ]
            case 1:
                return ["^", 1 << draw.randrange(8 * field.size)]
            case 2:
                return ["=", self._pick(_EDGES)]
            case 3:
                return ["=", self._pick(_SIZES)]
            case 4:
                return ["=", self._pick(atlas.objects)]
            case 5:
                return ["=", self._pick(atlas.tids) if draw.random() < 0.5 else self._pick(_TIDS)]
            case 6:
                return ["=", draw.getrandbits(8 * field.size)]
        return ["=", -1 if draw.random() < 0.5 else 0]

    def _address(self) -> list[object]:
        draw = self._draw
        zone = self._pick((0, 1, 2, 3, 4, 8, 8, 8, 9, 9, 10, 10, 11, 11, 15))
        if draw.random() < 0.2:
            return ["b", draw.randrange(64), zone]
        return ["@", draw.randrange(64), zone, self._pick((0, 0, 0, 0, 1, -1, 8, 16, -16, 4096, -4096, BUFSIZE - 16))]

    def _key(self, atlas: Atlas) -> int:
        return self._pick((*_EDGES, *_SIZES, 0x10000, 0x20000, 0xFFFF0000, *atlas.objects[:4], 1 << 32))

    def _object(self, atlas: Atlas) -> int:
        return self._pick(atlas.objects) if self._draw.random() < 0.8 else self._pick((*_EDGES, 0xFFFFFFFF, 5))

    def _tid(self, atlas: Atlas) -> int:
        return self._pick(atlas.tids) if self._draw.random() < 0.7 else self._pick(_TIDS)

    def _any_bytes(self, most: int) -> bytes:
        size = self._draw.randrange(most + 1)
        return self._draw.getrandbits(8 * size).to_bytes(size, "little") if size else b""

    # --- changes --------------------------------------------------------------------------------
    def _field(self, atlas: Atlas) -> Change:
        draw = self._draw
        kinds = ("header", "header", "node", "leaf", "leaf", "leaf", "internal", "inode", "inode", "inode", "entry",
                 "pfs", "data", "other", "layer1", "layer2", "layer2", "fifo", "fifo")  # fmt: skip
        kind = draw.choice([name for name in kinds if name in atlas.places])
        fields = FIELDS[kind]
        field = fields[draw.choice(sorted(fields))]
        index = draw.randrange(len(atlas.places[kind]))
        return ["field", kind, index, field.name, self._value(atlas, field), draw.random() < 0.95]

    def _bytes(self, atlas: Atlas) -> Change:
        draw = self._draw
        kind = draw.choice(sorted(atlas.places))
        index = draw.randrange(len(atlas.places[kind]))
        raw = self._any_bytes(self._pick((1, 2, 8, 64))) or b"\0"
        return ["bytes", kind, index, draw.randrange(self._pick((16, 64, 512, 4096))), raw.hex(), draw.random() < 0.8]

    def _remove(self, atlas: Atlas) -> Change:
        return ["remove", self._leaf(atlas), self._draw.randrange(63)]

    def _swap(self, atlas: Atlas) -> Change:
        return ["swap", self._leaf(atlas), self._draw.randrange(63), self._draw.randrange(63)]

    def _twin(self, atlas: Atlas) -> Change:
        draw = self._draw
        fields = FIELDS["leaf"]
        field = fields[draw.choice(sorted(fields))]
        value = self._value(atlas, field)
        return ["twin", self._leaf(atlas), draw.randrange(63), field.name, value, draw.random() < 0.9]

    def _insert(self, atlas: Atlas) -> Change:
        draw = self._draw
        rec_type = self._pick((1, 0x10, 0x10, 0x11, 0x11, 0x13, 0x13, 0x14, 0x15, 0x16, 0x17, 0x99))
        local = self._pick((1, 2, 0x10001, 0x10002, 0x20001, 0xFFFF0001)) if draw.random() < 0.4 else 0
        if not local:
            local = 1 if rec_type in (1, 0x11) else 2
        key, data = self._key(atlas), self._any_bytes(300)
        if rec_type == 1:
            data, key = self._inode_bytes(atlas), key if draw.random() < 0.2 else 0
        elif rec_type == 0x11:
            name = draw.choice(_NAMES)
            data = self._object(atlas).to_bytes(8, "little", signed=True) + bytes(8) + name
        elif rec_type == 0x13 and draw.random() < 0.6:
            # What unfinished work looks like, or an extended attribute.
            data = self._object(atlas).to_bytes(8, "little", signed=True) + (local & 0xFFFF0000).to_bytes(4, "little")
            key = -(1 << 63) | draw.getrandbits(62)
        elif rec_type == 0x14:
            data, key = draw.choice(_TARGETS), 1
        elif rec_type == 0x10 and draw.random() < 0.3:
            data = bytes(self._pick((BUFSIZE, XBUFSIZE, 4096)))
        elif rec_type == 0x15:
            data = self._any_bytes(292).ljust(self._pick((0, 292)), b"\0")
        delete = self._tid(atlas) if draw.random() < 0.2 else 0
        obj_id = self._object(atlas) if rec_type != 0x15 else 1
        create, obj_type = self._tid(atlas), self._pick(_OBJECT_TYPES)
        return ["insert", local, obj_id, rec_type, key, create, delete, obj_type, data.hex()]

    def _inode_bytes(self, atlas: Atlas) -> bytes:
        raw = bytearray(128)
        for field in FIELDS["inode"].values():
            value = self._value(atlas, field)[-1] if self._draw.random() < 0.4 else 1
            assert isinstance(value, int)
            raw[field.at : field.at + field.size] = field.pack(value)
        return bytes(raw)

    def _name(self, atlas: Atlas) -> Change:
        draw = self._draw
        name = draw.choice(_NAMES) if draw.random() < 0.8 else self._any_bytes(300)
        return ["name", draw.randrange(len(atlas.places["entry"])), name.hex(), draw.random() < 0.8]

    def _graft(self, atlas: Atlas) -> Change:
        draw = self._draw
        index = draw.randrange(len(atlas.places.get("internal", "x")))
        return ["graft", index, draw.randrange(len(atlas.places["node"])), draw.random() < 0.8]

    def _copy(self, atlas: Atlas) -> Change:
        draw = self._draw
        nodes = len(atlas.places["node"])
        return ["copy", draw.randrange(nodes), draw.randrange(nodes), draw.random() < 0.5]

    def _undo(self, atlas: Atlas) -> Change:
        target = ["=", self._draw.getrandbits(64)] if self._draw.random() < 0.1 else self._address()
        return ["undo", target, self._any_bytes(self._pick((1, 16, 400, 3000))).hex()]

    def _undo_field(self, atlas: Atlas) -> Change:
        draw = self._draw
        kinds = ("header", "header", "header", "node", "leaf", "inode", "layer1", "layer2")
        kind = draw.choice([name for name in kinds if name in atlas.places])
        field = FIELDS[kind][draw.choice(sorted(FIELDS[kind]))]
        index = draw.randrange(len(atlas.places[kind]))
        return ["undo field", kind, index, field.name, self._value(atlas, field)]

    def _redo(self, atlas: Atlas) -> Change:
        draw = self._draw
        data = self._any_bytes(440)
        size = len(data) if draw.random() < 0.7 else self._pick(_SIZES)
        offset = self._pick((0, 0, 50, 5000, BUFSIZE - 4, *_SIZES, *_EDGES))
        flags = self._pick((1, 1, 1, 2, 2, 4, 8, 16, 3))
        local = self._pick((0, 2, 0x10000, 0x10002, 0xFFFFFFFF))
        return ["redo", self._object(atlas), offset, size, flags, local, data.hex()]

    def _redo_sync(self, atlas: Atlas) -> Change:
        back = self._pick((0, 512, 1024, 4096, 8, 100, 1 << 20, -512, 1 << 60))
        return ["redo sync", back]

    def _volumes(self, atlas: Atlas) -> Change:
        return ["volumes", self._draw.choice([[], [0, 0], [1], [1, 0], [0, 1, 1], [0]])]

    def _resize(self, atlas: Atlas) -> Change:
        return [
            "resize",
            0,
            self._draw.choice([["=", 0], ["=", 1928], ["=", BUFSIZE], ["+", -1], ["+", 1], ["+", -BUFSIZE]]),
        ]

    # --- several volumes ------------------------------------------------------------------------
    def _number(self) -> int:
        """Of a volume that is there, or is not."""
        return self._pick((0, 0, 1, 1, 1, 1, 2, 2, 3, 254, 255))

    def _one(self, atlas: Atlas) -> int:
        return self._draw.randrange(len(atlas.places["header"]))

    def _orders(self, atlas: Atlas) -> Change:
        return ["volumes", self._draw.choice([[1, 0], [1, 0], [1], [0], [1, 1], [0, 0], [0, 1, 1], [1, 0, 0]])]

    def _identity(self, atlas: Atlas) -> Change:
        """What makes a volume one of this file system."""
        draw = self._draw
        name = draw.choice(["no", "count", "fsid", "fstype", "rootvol", "version", "buf_beg", "buf_end", "flags"])
        field = FIELDS["header"][name]
        value: list[object] = (
            ["=", self._number()] if name in ("no", "count", "rootvol") else ["^", 1 << draw.randrange(8)]
        )
        if name.startswith("buf"):
            value = ["+", self._pick((BUFSIZE, -BUFSIZE, BIGBLOCK_SIZE, -BIGBLOCK_SIZE, 512, -3 * BIGBLOCK_SIZE))]
        elif name == "version":
            value = self._value(atlas, field)
        return ["field", "header", self._one(atlas), name, value, draw.random() < 0.95]

    def _lend(self, atlas: Atlas) -> Change:
        source = self._one(atlas)
        return ["lend", source, 1 - source, self._draw.random() < 0.8]

    def _tear(self, atlas: Atlas) -> Change:
        at = self._pick((0, 8, 48, 64, 144, 160, 200, 240, 512, 904, 1024, 1536, 1900))
        return ["tear", self._one(atlas), at, self._draw.random() < 0.5]

    def _resize_one(self, atlas: Atlas) -> Change:
        return ["resize", self._one(atlas), *self._resize(atlas)[2:]]

    def _elsewhere(self, atlas: Atlas) -> Change:
        """An address that leads to the same place of another volume."""
        draw = self._draw
        kinds = ("header", "header", "node", "leaf", "leaf", "internal", "internal", "layer1", "layer1", "fifo", "fifo")
        kind = draw.choice([name for name in kinds if name in atlas.places])
        fields = [
            name
            for name, field in sorted(FIELDS[kind].items())
            if field.code == "Q" and (name in _ADDRESSES or name.startswith(("zone", "undo")))
        ]
        index = draw.randrange(len(atlas.places[kind]))
        return ["field", kind, index, draw.choice(fields), ["v", self._number()], True]

    def _freemap_of_one(self, atlas: Atlas) -> Change:
        """An entry of either layer for one volume, or a neighbour's entry."""
        draw = self._draw
        kind = "layer1" if draw.random() < 0.4 else "layer2"
        places = len(atlas.places[kind])
        # Those of each volume follow those of the one before, and one of layer 1 for no volume comes last.
        each = places // len(atlas.places["header"])
        index = min(self._one(atlas) * each + draw.randrange(each + 1), places - 1)
        field = FIELDS[kind][draw.choice(sorted(FIELDS[kind]))]
        return ["field", kind, index, field.name, self._value(atlas, field), draw.random() < 0.95]

    def _undo_elsewhere(self, atlas: Atlas) -> Change:
        """UNDO for some volume: its header, its freemap, or behind its end."""
        zone = self._pick((1, 2, 2))
        places = (0, 144, 148, 512, 1024, BUFSIZE - 8, BUFSIZE, BIGBLOCK_SIZE, 3 * BIGBLOCK_SIZE, (1 << 52) - 16)
        target = (zone << 60) | (self._number() << 52) | self._pick(places)
        return ["undo", ["=", target], self._any_bytes(self._pick((4, 16, 400))).hex()]

    def _undo_freemap_of_one(self, atlas: Atlas) -> Change:
        change = self._freemap_of_one(atlas)
        return ["undo field", *change[1:5]]

    def _clear(self, atlas: Atlas) -> Change:
        return ["clear", self._address(), self._pick((16, 512, 4096, BUFSIZE))]

    def _leaf(self, atlas: Atlas) -> int:
        return self._draw.randrange(len(atlas.leaf_nodes))
