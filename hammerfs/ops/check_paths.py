"""The paths of what a check found something about, from the directory entries that it collected anyway.

Only as many names are read as the paths have: one pass over the entries for the objects themselves, one for the
directories above them, whose inodes name their parents.  Damage on the way leaves an object without a path.
"""

from __future__ import annotations

from collections.abc import Iterable

from hammerfs.errors import HammerError
from hammerfs.ondisk.address import pfs_of
from hammerfs.ondisk.constants import OBJID_ROOT, ROOT_PFSID
from hammerfs.ondisk.direntry import PATH_MAX, path_text, unpack_entry
from hammerfs.ops.check_inodes import NO_INODE, EntryList, PfsTable
from hammerfs.ops.check_reader import ImageReader


class Paths:
    """Paths of the objects `wanted`, given as pairs of PFS and object id."""

    def __init__(
        self, reader: ImageReader, entries: EntryList, tables: PfsTable, wanted: Iterable[tuple[int, int]]
    ) -> None:
        self._reader = reader
        self._holders: dict[tuple[int, int], tuple[int, bytes]] = {}
        self._collect(entries, {target for target in wanted if target[1] != OBJID_ROOT})
        self._collect(entries, self._above(tables))

    def text(self, pfs_id: int, obj_id: int) -> str | None:
        """The path of an object from the root of PFS 0, through the name by which a mount reaches its PFS."""
        names: list[bytes] = []
        size = 0
        while obj_id != OBJID_ROOT:
            holder = self._holders.get((pfs_id, obj_id))
            if holder is None:
                return None
            obj_id, name = holder
            names.append(name)
            # A circle of directories ends here, too.
            size += len(name) + 1
            if size > PATH_MAX:
                return None
        if pfs_id != ROOT_PFSID:
            names.append(b"@@-1:%05d" % pfs_id)
        return path_text(reversed(names))

    def _collect(self, entries: EntryList, wanted: set[tuple[int, int]]) -> None:
        """Note who holds the objects wanted, under which name; of several names the first that can be read."""
        if not wanted:
            return
        for row in entries:
            target = pfs_of(row.target_localization), row.target
            if target not in wanted or target in self._holders:
                continue
            try:
                name = unpack_entry(self._reader.read(row.data_offset, row.data_len)).name
            except HammerError:
                continue
            self._holders[target] = row.directory, name

    def _above(self, tables: PfsTable) -> set[tuple[int, int]]:
        """All directories above the ones that hold what was wanted."""
        found: set[tuple[int, int]] = set()
        for (pfs_id, _), (directory, _) in self._holders.items():
            table = tables.table(pfs_id)
            at = table.find(directory)
            while directory != OBJID_ROOT and at != NO_INODE and (pfs_id, directory) not in found:
                found.add((pfs_id, directory))
                directory = table.parent[at]
                at = table.find(directory)
        return found
