"""An image that is being changed: raw bytes by HAMMER offset, and checksums made right again at the end."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from fuzz_lib.layout import LEAF, NODE, Field
from hammerfs.device.memory import MemoryDevice
from hammerfs.errors import HammerError
from hammerfs.ondisk import crc
from hammerfs.ondisk.address import SHORT_MASK, encode, layer1_offset, layer2_offset, to_zone2, volume_of, zone_of
from hammerfs.ondisk.constants import (
    BIGBLOCK_MASK,
    BIGBLOCK_SIZE,
    BUFMASK,
    BUFSIZE,
    ELEMENT_SIZE,
    INODE_CRC_SIZE,
    LAYER2_ENTRY_SIZE,
    NODE_HEADER_SIZE,
    NODE_SIZE,
    RECTYPE_INODE,
    XBUFSIZE,
    ZONE_FREEMAP,
    ZONE_RAW_VOLUME,
    ZONE_UNDO,
)
from hammerfs.ondisk.freemap import Layer1, Layer2
from hammerfs.ondisk.volume import VolumeHeader

LEAF_MAX = 63


class ImpossibleChange(Exception):
    """A change does not apply to this image; it is left out."""


class Image:
    """The volumes of one file system.

    devices -- by volume number
    version -- of the format, as it was before any change
    touched -- zone-2 offsets of nodes, (layer size, offset) of freemap entries, FIFO records and volumes that need
        their checksums made right
    """

    def __init__(self, devices: Sequence[MemoryDevice]) -> None:
        self.devices = list(devices)
        headers = [VolumeHeader(device.read(0, BUFSIZE)) for device in devices]
        self.version = headers[0].vol_version
        self.starts = [header.vol_buf_beg for header in headers]
        self.checksum = crc.function_for(self.version)
        self._nodes: set[int] = set()
        self._entries: set[tuple[int, int]] = set()
        self._fifo: set[int] = set()
        self._headers: set[int] = set()

    # --- bytes ----------------------------------------------------------------------------------
    def place(self, offset: int) -> tuple[MemoryDevice, int]:
        """Device and byte of an offset: zone 1 counts from the device's start, all others from the buffer area's."""
        number = volume_of(offset)
        if number >= len(self.devices):
            raise ImpossibleChange(f"no volume {number}")
        start = 0 if zone_of(offset) == ZONE_RAW_VOLUME else self.starts[number]
        return self.devices[number], start + (offset & SHORT_MASK)

    def read(self, offset: int, size: int) -> bytes:
        """Bytes at an offset; ImpossibleChange where there are none."""
        device, at = self.place(offset)
        try:
            return device.read(at, size)
        except HammerError as error:
            raise ImpossibleChange(str(error)) from None

    def write(self, offset: int, data: bytes) -> None:
        """Change bytes at an offset, without a thought for checksums."""
        device, at = self.place(offset)
        try:
            device.write(at, data)
        except HammerError as error:
            raise ImpossibleChange(str(error)) from None

    def header(self, number: int = 0) -> VolumeHeader:
        """A volume's header as it stands now, detached."""
        return VolumeHeader(bytearray(self.devices[number].read(0, BUFSIZE)))

    def put_header(self, header: VolumeHeader, number: int = 0) -> None:
        """Write a header."""
        self.devices[number].write(0, header.copy())
        self._headers.add(number)

    # --- what needs its checksum made right ---------------------------------------------------------
    def touch(self, kind: str, offset: int) -> None:
        """Note that a structure was changed."""
        if kind in ("node", "leaf", "internal"):
            self._nodes.add(offset & ~(NODE_SIZE - 1))
        elif kind in ("layer1", "layer2"):
            self._entries.add((32 if kind == "layer1" else 16, offset))
        elif kind == "fifo":
            self._fifo.add(offset)
        elif kind == "header":
            self._headers.add(volume_of(offset))

    def seal(self) -> None:
        """Make all checksums right that changes left wrong."""
        for offset in self._nodes:
            raw = self.read(offset, NODE_SIZE)
            self.write(offset, self.checksum(raw[4:]).to_bytes(4, "little"))
        for size, offset in self._entries:
            raw = self.read(offset, size - 4)
            self.write(offset + size - 4, self.checksum(raw).to_bytes(4, "little"))
        for offset in self._fifo:
            self._seal_record(offset)
        for number in self._headers:
            header = self.header(number)
            version = header.vol_version
            if number == 0:
                for zone in (ZONE_UNDO, ZONE_FREEMAP, 8, 9, 10, 11):
                    header.blockmap(zone).update_crc(version)
            header.update_crc()
            self.devices[number].write(0, header.copy())

    def _seal_record(self, offset: int) -> None:
        room = BUFSIZE - (offset & BUFMASK)
        size = int.from_bytes(self.read(offset + 4, 4), "little")
        if not 24 <= size <= room:
            return
        raw = bytearray(self.read(offset, size))
        # The tail repeats type and size, or no reader would believe the head.
        raw[-6:-4] = raw[2:4]
        raw[-4:] = raw[4:8]
        raw[12:16] = (self.checksum(raw[:12]) ^ self.checksum(raw[16:])).to_bytes(4, "little")
        self.write(offset, bytes(raw))

    def rehash(self, element: int) -> None:
        """Give a leaf element the checksum of the data that it refers to now, wherever that is."""
        raw = self.read(element, ELEMENT_SIZE)
        offset, size = LEAF["data_offset"].read(raw), LEAF["data_len"].read(raw)
        if not 0 < size <= XBUFSIZE:
            return
        data = self.read(to_zone2(offset), size)
        self.write(element + LEAF["data_crc"].at, self.data_crc(LEAF["rec_type"].read(raw), data).to_bytes(4, "little"))

    def data_crc(self, rec_type: int, data: bytes) -> int:
        """The checksum of a record's data."""
        return self.checksum(data[:INODE_CRC_SIZE] if rec_type == RECTYPE_INODE else data)

    # --- nodes ----------------------------------------------------------------------------------
    def elements(self, node: int) -> list[bytes]:
        """The elements that a node's count says it has."""
        raw = self.read(node, NODE_SIZE)
        count = min(max(NODE["count"].read(raw), 0), LEAF_MAX)
        return [raw[at : at + ELEMENT_SIZE] for at in range(NODE_HEADER_SIZE, NODE_HEADER_SIZE + count * 64, 64)]

    def put_elements(self, node: int, elements: Sequence[bytes]) -> None:
        """Replace a leaf's elements and their count."""
        if len(elements) > LEAF_MAX:
            raise ImpossibleChange("a full leaf")
        body = b"".join(elements)
        self.write(node + NODE_HEADER_SIZE, body.ljust(LEAF_MAX * ELEMENT_SIZE, b"\0"))
        self.set(node, NODE["count"], len(elements))
        self.touch("node", node)

    def set(self, offset: int, field: Field, value: int) -> None:
        """Write one field of the structure at an offset."""
        self.write(offset + field.at, field.pack(value))

    # --- space ----------------------------------------------------------------------------------
    def allocate(self, zone: int, data: bytes) -> int:
        """Put `data` where the zone appends, accounted for; its zone-encoded offset."""
        header = self.header()
        entry = header.blockmap(zone)
        size = (len(data) + 15) & ~15
        at = entry.next_offset
        if (at ^ (at + size - 1)) & ~(BUFMASK if size <= BUFSIZE else BIGBLOCK_MASK):
            at = (at + BUFMASK) & ~BUFMASK
        if not at & BIGBLOCK_MASK or (at ^ (at + size - 1)) & ~BIGBLOCK_MASK:
            raise ImpossibleChange(f"no room in zone {zone}")
        where = self.layer2_place(at)
        layer2 = Layer2.unpack(self.read(where, LAYER2_ENTRY_SIZE))
        if layer2.zone != zone:
            raise ImpossibleChange(f"zone {zone} does not own its append point")
        layer2.append_off = (at & BIGBLOCK_MASK) + size
        layer2.bytes_free -= size
        self.write(where, layer2.pack(self.version))
        entry.next_offset = at + size
        entry.update_crc(self.version)
        self.put_header(header)
        self.write(at, data)
        return at

    def layer1_place(self, offset: int) -> int:
        """Zone-2 address of the layer-1 entry for an offset."""
        return self.header().blockmap(ZONE_FREEMAP).phys_offset + layer1_offset(offset)

    def layer2_place(self, offset: int) -> int:
        """Zone-2 address of the layer-2 entry for an offset."""
        layer1 = Layer1.unpack(self.read(self.layer1_place(offset), 32))
        return layer1.phys_offset + layer2_offset(offset)

    def end_of(self, number: int) -> int:
        """Zone-2 offset behind a volume's buffer area."""
        header = self.header(number)
        return encode(2, number, header.vol_buf_end - header.vol_buf_beg)

    def fifo_place(self, offset: int) -> int:
        """Zone-2 address of a zone-3 offset."""
        short = offset & SHORT_MASK
        return to_zone2(self.header().undo_bigblock(short // BIGBLOCK_SIZE)) + (short & BIGBLOCK_MASK)


def name_hash(version: int, name: bytes) -> int:
    """Some positive hash for a name that the format's own hash cannot or should not be used for."""
    return (zlib.crc32(name) & 0x7FFFFFFF) << 32 | version
