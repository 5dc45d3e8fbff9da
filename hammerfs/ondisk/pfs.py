"""Records that hang on a PFS root: PFS data (292 bytes), snapshots (128) and the cleanup configuration (1024)."""

from __future__ import annotations

from hammerfs.ondisk.constants import PFSD_DELETED, PFSD_SLAVE
from hammerfs.ondisk.fields import BytesField, IntField, Structure, UuidField

PFS_DATA_SIZE = 292
SNAPSHOT_DATA_SIZE = 128
CONFIG_DATA_SIZE = 1024


class PfsData(Structure):
    """Mirroring state of a PFS (`hammer_pseudofs_data`); `mirror_flags` says slave or deleted."""

    SIZE = PFS_DATA_SIZE
    __slots__ = ()

    sync_low_tid = IntField("Q", 0)
    sync_beg_tid = IntField("Q", 8)
    sync_end_tid = IntField("Q", 16)
    sync_beg_ts = IntField("Q", 24)
    sync_end_ts = IntField("Q", 32)
    shared_uuid = UuidField(40)
    unique_uuid = UuidField(56)
    mirror_flags = IntField("I", 76)
    label = BytesField(64, 80)
    snapshots = BytesField(64, 144)
    prune_min = IntField("i", 220)
    prune_max = IntField("i", 224)

    @property
    def is_slave(self) -> bool:
        """A slave is read-only and seen as of `sync_end_tid`."""
        return bool(self.mirror_flags & PFSD_SLAVE)

    @property
    def is_deleted(self) -> bool:
        """A destroyed PFS keeps its record with this flag."""
        return bool(self.mirror_flags & PFSD_DELETED)


class SnapshotData(Structure):
    """A named moment (`hammer_snapshot_data`): `ts` in microseconds since 1970."""

    SIZE = SNAPSHOT_DATA_SIZE
    __slots__ = ()

    tid = IntField("Q", 0)
    ts = IntField("Q", 8)
    label = BytesField(64, 32)
