"""The records that a directive works through: those of one PFS or of all, from where an earlier run stopped.

A position is what DragonFly's cycle files hold: the kind of record and an object id.  The upper half of the
localization is left out of it, since it says for which PFS the directive was asked.
"""

from __future__ import annotations

from typing import NamedTuple

from hammerfs.ondisk.address import Localization, ObjId, pfs_localization
from hammerfs.ondisk.constants import (
    LOCALIZE_MASK,
    MAX_KEY,
    MAX_OBJID,
    MAX_PFSID,
    MAX_RECTYPE,
    MAX_TID,
    MIN_KEY,
    MIN_OBJID,
)
from hammerfs.ondisk.element import pack_key, unpack_key


class Position(NamedTuple):
    """A place in the order of records within a PFS."""

    localization: Localization
    obj_id: ObjId


FIRST = Position(0, MIN_OBJID)
LAST = Position(LOCALIZE_MASK, MAX_OBJID)


class RecordRange(NamedTuple):
    """Records from `first` to `last` of PFS `pfs`, or of all PFSs."""

    pfs: int
    first: Position = FIRST
    last: Position = LAST
    all_pfs: bool = False

    @property
    def low(self) -> bytes:
        """The smallest key of the range."""
        localization = self.first.localization | (0 if self.all_pfs else pfs_localization(self.pfs))
        return pack_key(localization, self.first.obj_id, 0, MIN_KEY, 1)

    @property
    def high(self) -> bytes:
        """The greatest key of the range."""
        localization = self.last.localization | pfs_localization(MAX_PFSID if self.all_pfs else self.pfs)
        return pack_key(localization, self.last.obj_id, MAX_RECTYPE, MAX_KEY, MAX_TID)


def position_of(key: bytes) -> Position:
    """The position of a record, given its packed key."""
    parts = unpack_key(key)
    return Position(parts.localization & LOCALIZE_MASK, parts.obj_id)


def key_after(key: bytes) -> bytes:
    """The next packed key."""
    return (int.from_bytes(key, "big") + 1).to_bytes(len(key), "big")


def key_before(key: bytes) -> bytes:
    """The packed key before."""
    return (int.from_bytes(key, "big") - 1).to_bytes(len(key), "big")
