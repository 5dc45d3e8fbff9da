"""The lines that hammer(8) show prints below a leaf element: what its data says, by record type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from hammerfs.ondisk.constants import (
    BUFSIZE,
    FIXKEY_SYMLINK,
    RECTYPE_CONFIG,
    RECTYPE_DATA,
    RECTYPE_DB,
    RECTYPE_DIRENTRY,
    RECTYPE_EXT,
    RECTYPE_FIX,
    RECTYPE_INODE,
    RECTYPE_PFS,
    RECTYPE_SNAPSHOT,
)
from hammerfs.ondisk.direntry import ENTRY_HEADER_SIZE, unpack_entry
from hammerfs.ondisk.element import LeafElement
from hammerfs.ondisk.inode import InodeData
from hammerfs.ondisk.pfs import PFS_DATA_SIZE, SNAPSHOT_DATA_SIZE, PfsData, SnapshotData
from hammerfs.ops.escaping import on_one_line

_INDENT = " " * 17
_CONFIG_INDENT = " " * 29
_DUMP_INDENT = "\t\t  "
_DUMP_COLUMNS = 16


@dataclass(frozen=True, slots=True)
class RecordWords:
    """How much is said of a record.

    obfuscate -- without the names of directory entries
    details -- with the text of configurations, and the bytes of extended attributes and database records
    contents -- with the bytes of files
    """

    obfuscate: bool = False
    details: bool = False
    contents: bool = False


PLAIN = RecordWords()


def record_lines(element: LeafElement, data: bytes, words: RecordWords) -> Iterator[str]:
    """The record's data in words; nothing for types that are not spelled out, or data cut short."""
    kind = element.rec_type
    if kind == RECTYPE_INODE:
        yield from _inode_lines(data)
    elif kind == RECTYPE_DIRENTRY and len(data) >= ENTRY_HEADER_SIZE:
        entry = unpack_entry(data)
        name = "" if words.obfuscate else f' name="{_padded(entry.name)}"'
        yield f"{_INDENT}dir-entry objid={_hex(entry.obj_id)} lo={entry.localization:08x}{name}"
    elif kind == RECTYPE_FIX and element.key == FIXKEY_SYMLINK:
        yield f'{_INDENT}fix-symlink name="{_padded(data)}"'
    elif kind == RECTYPE_PFS:
        yield from _pfs_lines(data)
    elif kind == RECTYPE_SNAPSHOT and len(data) >= SNAPSHOT_DATA_SIZE:
        snapshot = SnapshotData(data)
        yield f'{_INDENT}snapshot tid={snapshot.tid:016x} label="{_c_string(snapshot.label)}"'
    elif kind == RECTYPE_CONFIG and words.details:
        yield from _config_lines(data)
    elif (kind == RECTYPE_DATA and words.contents) or (kind in (RECTYPE_EXT, RECTYPE_DB) and words.details):
        yield from _dump_lines(data)


def _inode_lines(data: bytes) -> Iterator[str]:
    inode = InodeData.unpack(data)
    yield (
        f"{_INDENT}inode size={inode.size} nlinks={inode.nlinks} mode={inode.mode:05o} uflags={inode.uflags:08x} "
        f"caps={inode.cap_flags:02x} pobjid={_hex(inode.parent_obj_id)} ot={inode.obj_type:02x}"
    )
    symlink = f' symlink="{_c_string(inode.symlink)}"' if inode.symlink[:1] != b"\0" else ""
    yield (f"{_INDENT}      ctime={inode.ctime:016x} mtime={inode.mtime:016x} atime={inode.atime:016x}{symlink}")


def _pfs_lines(data: bytes) -> Iterator[str]:
    pfs = PfsData(data.ljust(PFS_DATA_SIZE, b"\0"))
    yield f"{_INDENT}pfs sync_beg_tid={pfs.sync_beg_tid:016x} sync_end_tid={pfs.sync_end_tid:016x}"
    yield f"{_INDENT}    shared_uuid={pfs.shared_uuid}"
    yield f"{_INDENT}    unique_uuid={pfs.unique_uuid}"
    snapshots = f' snapshots="{_c_string(pfs.snapshots)}"' if pfs.snapshots[:1] != b"\0" else ""
    yield f'{_INDENT}    mirror_flags={pfs.mirror_flags:08x} label="{_c_string(pfs.label)}"{snapshots}'


def _config_lines(data: bytes) -> Iterator[str]:
    yield f'{_INDENT}config text="'
    for line in re.split(rb"[\r\n]+", data.split(b"\0", 1)[0]):
        if line:
            yield _CONFIG_INDENT + _text(line)
    yield f'{_CONFIG_INDENT}"'


def _dump_lines(data: bytes) -> Iterator[str]:
    """Offset, bytes and characters of what lies in the first buffer, dots for the rest, and an empty line."""
    for start in range(0, min(len(data), BUFSIZE), _DUMP_COLUMNS):
        row = data[start : start + _DUMP_COLUMNS]
        characters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        yield f"{_DUMP_INDENT}{start:04x}   {row.hex(' '):<47}  |{characters:<16}|"
    if len(data) > BUFSIZE:
        yield f"{_DUMP_INDENT}...."
    yield ""


def _hex(number: int) -> str:
    return f"{number & ((1 << 64) - 1):016x}"


def _text(raw: bytes) -> str:
    return on_one_line(raw.decode("utf-8", "surrogateescape"))


def _padded(raw: bytes) -> str:
    """A name that ends at its length; one cut short by a NUL is padded to it on the left, as printf does."""
    return _text(raw.split(b"\0", 1)[0].rjust(len(raw)))


def _c_string(raw: bytes) -> str:
    return _text(raw.split(b"\0", 1)[0])
