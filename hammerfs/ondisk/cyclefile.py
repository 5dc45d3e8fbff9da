"""What a cycle file holds: the place at which a directive of hammer(8) was interrupted (`cycle.c`).

A B-tree element's first 40 bytes, of which object id and localization count, and a TID that mirroring uses.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from hammerfs.ondisk.address import Localization, ObjId, Tid
from hammerfs.ondisk.constants import BTREE_RECORD
from hammerfs.ondisk.element import BASE

_EXTRA = struct.Struct("<Q")
CYCLE_SIZE = BASE.size + _EXTRA.size
CYCLE_SIZE_MIN = BASE.size
"""Files of the first versions were shorter still; they say nothing any more."""


class Cycle(NamedTuple):
    """The place, and the TID (0 where it has no meaning)."""

    localization: Localization
    obj_id: ObjId
    tid: Tid = 0


def pack_cycle(cycle: Cycle) -> bytes:
    """The bytes of a cycle file."""
    base = BASE.pack(cycle.obj_id, 0, 0, 0, 0, 0, BTREE_RECORD, cycle.localization)
    return base + _EXTRA.pack(cycle.tid)


def unpack_cycle(raw: bytes) -> Cycle | None:
    """What a cycle file says, None when it is none."""
    if len(raw) < CYCLE_SIZE_MIN:
        return None
    fields = BASE.unpack_from(raw)
    tid = _EXTRA.unpack_from(raw, BASE.size)[0] if len(raw) >= CYCLE_SIZE else 0
    return Cycle(fields[7], fields[0], tid)
