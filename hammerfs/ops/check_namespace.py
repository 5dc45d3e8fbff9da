"""Phase 4c and 6: names and inodes.  Records come in key order while the tree is walked; what refers to inodes that
come later waits for `finish`.

In key order a directory's inode precedes its entries, a file's inode its data, and the root's PFS records precede every
other PFS.  Source: `hammer_object.c`, `hammer_inode.c`, `hammer_vnops.c: hammer_vop_nresolve` (entries, PFS softlinks),
`hammer_direntry_namekey`.
"""

from __future__ import annotations

from hammerfs.errors import HammerError
from hammerfs.ondisk.address import pfs_localization, pfs_of
from hammerfs.ondisk.constants import (
    BASE_SYMLINK_SIZE,
    CAP_DIR_LOCAL_INO,
    FIXKEY_SYMLINK,
    LOCALIZE_INODE,
    LOCALIZE_MASK,
    LOCALIZE_MISC,
    OBJID_ROOT,
    OBJTYPE_DIRECTORY,
    OBJTYPE_SOCKET,
    OBJTYPE_SOFTLINK,
    RECTYPE_DIRENTRY,
    RECTYPE_EXT,
    RECTYPE_FIX,
    RECTYPE_INODE,
    RECTYPE_PFS,
    ROOT_PFSID,
)
from hammerfs.ondisk.direntry import EntryData, name_key, unpack_entry
from hammerfs.ondisk.element import LeafElement
from hammerfs.ondisk.inode import InodeData
from hammerfs.ondisk.pfs import PFS_DATA_SIZE, PfsData
from hammerfs.ops.check_inodes import NO_INODE, EntryList, EntryRow, InodeTable, PfsTable
from hammerfs.ops.check_links import check_links
from hammerfs.ops.check_paths import Paths
from hammerfs.ops.check_reader import ImageReader
from hammerfs.ops.check_report import Owner, Report
from hammerfs.ops.progress import Progress

ENTRY = "directory entry"
INODE = "inode"
_PFS_LINK = b"@@PFS"


class Namespace:
    """Collects inodes and entries; `data` and `record` take sound records, `finish` compares.

    complete -- false once part of the tree was lost: an inode not met may then exist after all
    undeleted_inodes -- what the volume header counts; at a slave those count, too, that its readers do not see yet
    """

    def __init__(self, reader: ImageReader, report: Report) -> None:
        self._reader = reader
        self._report = report
        self.complete = True
        self.undeleted_inodes = 0
        self._pfs = PfsTable()
        self._entries = EntryList()
        # Localization and object of the last live data record, and where its bytes ended.
        self._owner = (-1, 0)
        self._data_end = 0
        # What a crash left to be finished (hammerfs/fs/unfinished.py): the root's EXT records with negative keys.
        self._unfinished: set[bytes] = set()
        # Localization, directory and hash of the last live entry, and the names met with that hash.
        self._names_at: tuple[int, int, int] = (0, 0, -1)
        self._names: set[bytes] = set()

    def record(self, element: LeafElement, raw: bytes) -> None:
        """A record other than file data, its CRC verified."""
        kind = element.rec_type
        if kind == RECTYPE_INODE:
            self._inode(element, InodeData.unpack(raw))
        elif kind == RECTYPE_DIRENTRY:
            self._entry(element, raw)
        elif kind == RECTYPE_PFS:
            self._pfs_record(element, raw)
        elif kind in (RECTYPE_EXT, RECTYPE_FIX):
            at = self._live_owner(element)
            if kind == RECTYPE_EXT and at != NO_INODE and element.key < 0:
                self._unfinished.add(raw)
            if at != NO_INODE and kind == RECTYPE_FIX and element.key == FIXKEY_SYMLINK:
                self._pfs.table(pfs_of(element.localization)).has_fix[at] = 1

    def data(self, element: LeafElement) -> None:
        """A data record: it needs an inode now, lies within its size and overlaps no other."""
        table = self._pfs.table(pfs_of(element.localization))
        if not table.visible(element):
            return
        start = element.key - element.data_len
        owner = (element.localization, element.obj_id)
        if owner != self._owner:
            self._owner, self._data_end = owner, 0
        if start < self._data_end:
            self._complain("file data", element, f"bytes {start} to {element.key - 1} overlap others or begin below 0")
        self._data_end = element.key
        at = self._live_owner(element)
        if at != NO_INODE and start >= table.size[at] and not self._is_unfinished(element):
            self._complain("file data", element, f"bytes from {start} on lie beyond the size {table.size[at]}")

    def _is_unfinished(self, element: LeafElement) -> bool:
        """Whether the next mount will end what lies beyond the size: a truncation too large for one cycle."""
        pfs = pfs_localization(pfs_of(element.localization))
        name = element.obj_id.to_bytes(8, "little", signed=True) + pfs.to_bytes(4, "little")
        return name in self._unfinished

    def finish(self, progress: Progress) -> None:
        """Compare entries, link counts and PFSs, once everything has been seen."""
        progress.phase("names", len(self._entries))
        for row in self._entries:
            self._resolve(row)
            progress.advance(1)
        for pfs_id, table in sorted(self._pfs.inodes.items()):
            check_links(pfs_id, table, self._report)
            self._check_symlinks(pfs_id, table)
        self._check_pfs()

    def name_findings(self) -> None:
        """Tell the paths of the objects that findings are about, as far as sound entries lead to them."""
        wanted = self._report.owners()
        if wanted:
            self._report.name(Paths(self._reader, self._entries, self._pfs, wanted).text)

    def _complain(self, kind: str, element: LeafElement, text: str) -> None:
        owner = Owner(pfs_of(element.localization), element.obj_id)
        self._report.problem(kind, place(element.localization, element.obj_id), text, owner)

    def _live_owner(self, element: LeafElement) -> int:
        """The live inode that a live record hangs on; a problem when there is none, nothing for records of the past."""
        table = self._pfs.table(pfs_of(element.localization))
        if not table.visible(element):
            return NO_INODE
        at = table.find_live(element.obj_id)
        if at == NO_INODE and self.complete:
            self._complain("record", element, f"a live record of type {element.rec_type:02x} has no inode")
        return at

    def _inode(self, element: LeafElement, inode: InodeData) -> None:
        self._report.count("inode versions")
        self.undeleted_inodes += not element.delete_tid
        if inode.obj_type != element.obj_type or not OBJTYPE_DIRECTORY <= inode.obj_type <= OBJTYPE_SOCKET:
            self._complain(INODE, element, f"object type {inode.obj_type}, its element says {element.obj_type}")
        if element.key:
            self._complain(INODE, element, f"its key is {element.key:016x}, not 0")
        self._pfs.table(pfs_of(element.localization)).put(element, inode)
        if element.delete_tid == 0 and inode.obj_type == OBJTYPE_SOFTLINK and inode.symlink.startswith(_PFS_LINK):
            number = inode.symlink[len(_PFS_LINK) :].split(b"\0", 1)[0]
            if number.isdigit():
                self._pfs.links.add(int(number))

    def _pfs_record(self, element: LeafElement, raw: bytes) -> None:
        pfs_id = pfs_of(element.key)
        if element.key != pfs_localization(pfs_id):
            self._complain("PFS", element, f"a PFS record with the key {element.key:016x}")
        elif element.delete_tid == 0 and pfs_of(element.localization) == ROOT_PFSID:
            # A slave of the root PFS holds copies of its records, which say nothing about this file system.
            self._pfs.records[pfs_id] = PfsData(raw.ljust(PFS_DATA_SIZE, b"\0"))

    # --- directory entries -----------------------------------------------------------------------

    def _entry(self, element: LeafElement, raw: bytes) -> None:
        self._report.count("entry versions")
        entry = unpack_entry(raw)
        pfs_id = pfs_of(element.localization)
        table = self._pfs.table(pfs_id)
        name = entry.name
        if name in (b".", b"..") or b"/" in name or b"\0" in name:
            self._complain(ENTRY, element, f"the name {shown(name)} is not possible")
        if entry.localization != pfs_localization(pfs_id):
            self._complain(ENTRY, element, f"{shown(name)} refers to localization {entry.localization:08x}")
        at = table.find(element.obj_id)
        if at == NO_INODE:
            if self.complete and not table.destroyed:
                self._complain(ENTRY, element, f"{shown(name)} is in a directory without inode")
            return
        first = self._check_hash(element, name, table.obj_type[at], table.cap_flags[at])
        if not table.visible(element):
            return
        if not table.live[at]:
            self._complain(ENTRY, element, f"{shown(name)} is in a deleted directory")
        self._check_twin(element, first, name)
        self._entries.append(
            EntryRow(
                entry.obj_id,
                entry.localization,
                element.obj_type,
                element.obj_id,
                element.localization,
                element.data_offset,
                element.data_len,
            )
        )

    def _check_hash(self, element: LeafElement, name: bytes, obj_type: int, cap_flags: int) -> int:
        """Key and localization against the directory's flags; returns the first key the name may have."""
        if obj_type != OBJTYPE_DIRECTORY:
            self._complain(ENTRY, element, f"{shown(name)} is in an object of type {obj_type}")
        wanted = LOCALIZE_INODE if cap_flags & CAP_DIR_LOCAL_INO else LOCALIZE_MISC
        if element.localization & LOCALIZE_MASK != wanted:
            self._complain(ENTRY, element, f"{shown(name)} is not where its directory's flags {cap_flags:02x} say")
        try:
            first, last = name_key(cap_flags, name)
        except ValueError as error:
            self._complain(ENTRY, element, f"{shown(name)}: {error}")
            return element.key
        if not first <= element.key <= last:
            self._complain(ENTRY, element, f"{shown(name)} has the key {element.key:016x}, its hash is {first:016x}")
        return first

    def _check_twin(self, element: LeafElement, first: int, name: bytes) -> None:
        """Live entries with one hash are neighbours: two with one name show there."""
        where = (element.localization, element.obj_id, first)
        if where != self._names_at:
            self._names_at = where
            self._names = set()
        if name in self._names:
            self._complain(ENTRY, element, f"{shown(name)} exists twice")
        self._names.add(name)

    def _resolve(self, row: EntryRow) -> None:
        """One entry against the inode it names."""
        self._report.count("entries")
        table = self._pfs.table(pfs_of(row.target_localization))
        at = table.find_live(row.target)
        if at == NO_INODE:
            self._blame(row, f"refers to object {row.target:016x}, which does not exist")
            return
        if table.obj_type[at] != row.obj_type:
            self._blame(row, f"says object type {row.obj_type}, its inode says {table.obj_type[at]}")
        table.entries[at] += 1
        table.holder[at] = row.directory
        if table.obj_type[at] == OBJTYPE_DIRECTORY and table.parent[at] != row.directory:
            self._blame(row, f"names a directory whose inode gives {table.parent[at]:016x} as its parent")

    def _blame(self, row: EntryRow, text: str) -> None:
        try:
            raw = self._reader.read(row.data_offset, row.data_len)
            name = shown(EntryData(*unpack_entry(raw)).name)
        except HammerError:
            name = "(unreadable name)"
        owner = Owner(pfs_of(row.localization), row.directory)
        self._report.problem(ENTRY, place(row.localization, row.directory), f"{name} {text}", owner)

    # --- what only the whole shows ---------------------------------------------------------------

    def _check_symlinks(self, pfs_id: int, table: InodeTable) -> None:
        for at, obj_type in enumerate(table.obj_type):
            if obj_type != OBJTYPE_SOFTLINK or not table.live[at]:
                continue
            if table.size[at] > BASE_SYMLINK_SIZE and not table.has_fix[at]:
                self._report.problem(
                    INODE,
                    place(pfs_localization(pfs_id), table.obj_id[at]),
                    f"a symlink of {table.size[at]} bytes has no record with its target",
                    Owner(pfs_id, table.obj_id[at]),
                )

    def _check_pfs(self) -> None:
        report = self._report
        for pfs_id, table in sorted(self._pfs.inodes.items()):
            if pfs_id not in self._pfs.records and any(table.live):
                severity = report.problem if pfs_id else report.note
                severity("PFS", f"{pfs_localization(pfs_id):08x}", "it has inodes but no PFS record")
        for pfs_id, record in sorted(self._pfs.records.items()):
            report.count("PFSs")
            where = f"{pfs_localization(pfs_id):08x}"
            table = self._pfs.table(pfs_id)
            # A slave is empty until its first batch is complete, though inodes may have arrived.
            awaited = record.is_deleted or (record.is_slave and not any(table.live))
            if not awaited and table.find_live(OBJID_ROOT) == NO_INODE:
                report.problem("PFS", where, "its root directory does not exist")
            if pfs_id and not record.is_deleted and pfs_id not in self._pfs.links:
                report.note("PFS", where, f"no link @@PFS{pfs_id:05d} leads to it")
        for pfs_id in sorted(self._pfs.links - self._pfs.records.keys()):
            report.note("PFS", f"{pfs_localization(pfs_id):08x}", "a link leads to it, but it does not exist")


def place(localization: int, obj_id: int) -> str:
    """An object's name in findings."""
    return f"lo={localization:08x} objid={obj_id & ((1 << 64) - 1):016x}"


def shown(name: bytes) -> str:
    """A file name fit for a line of text."""
    return repr(name.decode("utf-8", "backslashreplace"))
