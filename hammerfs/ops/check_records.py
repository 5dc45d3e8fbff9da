"""Phase 4b: every record: its type and place, its lifetime, its data's zone, length and alignment, its CRCs.

Meta-data is read as the walk comes by, through the buffers.  File data is queued and read in batches sorted by place,
so that a disk sees one sweep per batch and memory stays bounded.  Source: `hammer_disk.h` (record types),
`hammer_object.c` (lifetimes), `hammer_data_zone_index`.
"""

from __future__ import annotations

from array import array

from hammerfs.errors import HammerError
from hammerfs.ondisk import crc
from hammerfs.ondisk.address import Offset, Tid, pfs_of
from hammerfs.ondisk.constants import BIGBLOCK_MASK, BUFSIZE
from hammerfs.ondisk.element import LeafElement
from hammerfs.ondisk.recordplace import fault_of
from hammerfs.ondisk.recordsizes import DATA_TYPES
from hammerfs.ops.check_btree import Leaf
from hammerfs.ops.check_namespace import Namespace
from hammerfs.ops.check_reader import ImageReader
from hammerfs.ops.check_report import Owner, Report
from hammerfs.ops.check_usage import Usage

KIND = "record"
DATA = "file data"
BATCH = 1 << 18
"""Data records verified in one sweep: 8 MiB of queue."""
SWEEP = 1 << 20
"""Most bytes read at once in a sweep."""


class RecordChecker:
    """Takes leaves in key order; `finish` completes what was queued.  `highest_tid` is the latest TID seen."""

    def __init__(
        self, reader: ImageReader, usage: Usage, namespace: Namespace, report: Report, verify_data: bool
    ) -> None:
        self._reader = reader
        self._usage = usage
        self._namespace = namespace
        self._report = report
        self._sweep = DataSweep(reader, report) if verify_data else None
        self._previous: LeafElement | None = None
        self.highest_tid: Tid = 0

    def leaf(self, leaf: Leaf) -> None:
        """Check all records of a leaf."""
        for element in leaf.elements:
            self._report.count("records")
            self._check_lifetime(element)
            self._previous = element
            fault = fault_of(element)
            if fault is not None:
                self._complain(element, fault)
                continue
            self._usage.add(element.data_offset, element.data_len)
            self._check_content(element)

    def finish(self) -> None:
        """Verify the file data still queued."""
        if self._sweep is not None:
            self._sweep.run()

    def _complain(self, element: LeafElement, text: str) -> None:
        self._report.problem(KIND, describe(element), text, Owner(pfs_of(element.localization), element.obj_id))

    def _check_lifetime(self, element: LeafElement) -> None:
        create, delete = element.create_tid, element.delete_tid
        latest = max(create, delete)
        if latest > self.highest_tid:
            self.highest_tid = latest
        if not create:
            self._complain(element, "it has no create TID")
        if delete and delete <= create:
            self._complain(element, f"deleted at TID {delete:016x}, not after its creation at {create:016x}")
        before = self._previous
        if (
            before is not None
            and before.obj_id == element.obj_id
            and before.key == element.key
            and before.rec_type == element.rec_type
            and before.localization == element.localization
            and not 0 < before.delete_tid <= create
        ):
            self._complain(
                element,
                f"visible together with its earlier version of TID {before.create_tid:016x}, "
                f"which lives until {before.delete_tid:016x}",
            )

    def _check_content(self, element: LeafElement) -> None:
        if element.rec_type in DATA_TYPES:
            self._namespace.data(element)
            if self._sweep is not None:
                self._sweep.add(element)
            return
        try:
            raw = self._reader.read(element.data_offset, element.data_len)
        except HammerError as error:
            self._complain(element, str(error))
            return
        if not crc.record_matches(self._reader.version, element.data_crc, element.rec_type, raw):
            self._complain(element, f"data CRC mismatch at {element.data_offset:016x}")
            return
        self._namespace.record(element, raw)


class DataSweep:
    """File data waiting for its CRC to be verified, in arrays; one run reads it in the order of the disk."""

    def __init__(self, reader: ImageReader, report: Report) -> None:
        self._reader = reader
        self._report = report
        self._clear()

    def _clear(self) -> None:
        self._offsets = array("Q")
        self._sizes = array("I")
        self._crcs = array("I")
        self._owners = array("q")
        self._keys = array("q")
        self._pfs = array("I")

    def add(self, element: LeafElement) -> None:
        """Queue a record; a full queue runs."""
        self._offsets.append(element.data_offset)
        self._sizes.append(element.data_len)
        self._crcs.append(element.data_crc)
        self._owners.append(element.obj_id)
        self._keys.append(element.key)
        self._pfs.append(element.localization)
        if len(self._offsets) >= BATCH:
            self.run()

    def run(self) -> None:
        """Verify everything queued."""
        offsets, sizes = self._offsets, self._sizes
        order = sorted(range(len(offsets)), key=offsets.__getitem__)
        group: list[int] = []
        start = end = 0
        for index in order:
            offset, stop = offsets[index], offsets[index] + sizes[index]
            near = offset <= end + BUFSIZE and max(stop, end) - start <= SWEEP
            if group and not (near and (offset ^ start) & ~BIGBLOCK_MASK == 0):
                self._verify(group, start, end)
                group = []
            if not group:
                start = end = offset
            group.append(index)
            end = max(end, stop)
        if group:
            self._verify(group, start, end)
        self._clear()

    def _verify(self, group: list[int], start: Offset, end: Offset) -> None:
        """Read one stretch and verify the records in it; one that cannot be read is read piece by piece."""
        try:
            raw: bytes | None = self._reader.read_uncached(start, end - start)
        except HammerError:
            raw = None
        for index in group:
            offset, size = self._offsets[index], self._sizes[index]
            if raw is None:
                try:
                    piece = memoryview(self._reader.read_uncached(offset, size))
                except HammerError as error:
                    self._complain(index, str(error))
                    continue
            else:
                piece = memoryview(raw)[offset - start : offset - start + size]
            self._report.count("bytes of file data", size)
            if not crc.matches(self._reader.version, self._crcs[index], piece):
                self._complain(index, "data CRC mismatch")

    def _complain(self, index: int, text: str) -> None:
        first = self._keys[index] - self._sizes[index]
        self._report.problem(
            DATA,
            self._offsets[index],
            f"{text} in bytes {first} to {self._keys[index] - 1} of object {self._owners[index]:016x}, "
            f"localization {self._pfs[index]:08x}",
            Owner(pfs_of(self._pfs[index]), self._owners[index], first),
        )


def describe(element: LeafElement) -> str:
    """An element's key as hammer(8) writes it."""
    key, obj_id = element.key & ((1 << 64) - 1), element.obj_id & ((1 << 64) - 1)
    return (
        f"lo={element.localization:08x} objid={obj_id:016x} rt={element.rec_type:02x} "
        f"key={key:016x} tid={element.create_tid:016x}"
    )
