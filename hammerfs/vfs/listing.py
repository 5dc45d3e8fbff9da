"""READDIR: what a directory shows, each entry with its attributes, and listings prepared to be shown again.

pyfuse3 knows no listing without attributes, and to look up an inode and state these takes several times as long as to
hand them over.  So what a listing showed is kept: for as long as nothing at all changes in the file system, which one
number tells, it may be shown again as it is.  A directory of 1000 names, listed over and over, takes 0.6 us of the
server's CPU an entry so, and 4.3 without.

Kept are directories whose names are remembered, too (`fs/knownnames.py`), for the same reason: nothing but requests
changes them.  Left out is what was damaged, for that is complained about each time, and what is numbered by a table
that counts how often the kernel was told of it.
"""

from __future__ import annotations

import errno
from bisect import bisect_right
from collections.abc import Callable
from typing import Final, TypeAlias

import pyfuse3
from pyfuse3 import EntryAttributes, FileNameT, FUSEError, ReaddirToken

from hammerfs.errors import CorruptionError, HammerError
from hammerfs.fs.directory import Entry
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.vfs.attributes import Attributes, bare_entry
from hammerfs.vfs.nodeids import OBJ_ID_MIN, NodeIds
from hammerfs.vfs.snapdir import Snapdir

_COOKIE_DOT: Final = 1
_COOKIE_DOT_DOT: Final = 2
"""Directory cookies are keys of entries, which are never this small (`name_key`)."""
ROWS_KEPT_MAX: Final = 32768
"""Entries and listings that are kept, of some 300 bytes each."""
ROWS_OF_ONE_MAX: Final = ROWS_KEPT_MAX // 4
"""Entries kept of one directory; the others are looked up each time."""

Complain: TypeAlias = Callable[[tuple[object, ...], Exception], object]


class Prepared:
    """The beginning of a directory's listing, or all of it.

    changes -- how many changes the file system had seen
    rows -- name, attributes and cookie, as pyfuse3 takes them; cookies -- of each row
    is_whole -- nothing comes behind the last row
    """

    __slots__ = ("changes", "cookies", "is_whole", "rows")

    def __init__(self, changes: int) -> None:
        self.changes = changes
        self.rows: list[tuple[FileNameT, EntryAttributes, int]] = []
        self.cookies: list[int] = []
        self.is_whole = False

    @property
    def upto(self) -> int:
        """The last row's cookie."""
        return self.cookies[-1] if self.cookies else _COOKIE_DOT_DOT


class Listings:
    """Answers to READDIR on one mount.

    complain -- is told the request's arguments, without its name, and what went wrong
    """

    def __init__(
        self, fs: FileSystem, node_ids: NodeIds, attributes: Attributes, snapdir: Snapdir, complain: Complain
    ) -> None:
        self._fs = fs
        self._node_ids = node_ids
        self._attributes = attributes
        self._snapdir = snapdir
        self._complain = complain
        self._prepared: dict[int, Prepared] = {}
        self._kept = 0
        # Directories of which a listing that has not come to its end yet left something out.
        self._incomplete: set[int] = set()

    def reply(self, directory: Inode, node_id: int, start_id: int, token: ReaddirToken) -> None:
        """As many entries after the cookie `start_id` as the kernel's buffer takes.

        An entry whose inode cannot be read is listed all the same; one that cannot be read itself is left out, and
        whoever has read the rest of the directory learns that at the end: FUSEError(EIO).
        """
        if start_id <= _COOKIE_DOT and not self._reply_dots(directory, node_id, start_id, token):
            return
        if directory.obj_id < OBJ_ID_MIN and not self._snapdir.reply(directory, start_id, token):
            return
        after = max(start_id, _COOKIE_DOT_DOT)
        prepared = self._prepared_for(directory, node_id)
        if prepared is not None and after < prepared.upto:
            if not _reply_rows(prepared, after, token):
                return
            after = prepared.upto
        if prepared is not None and prepared.is_whole:
            return
        any_entry = self._reply_entries(directory, node_id, after, token, prepared)
        if not any_entry and start_id > _COOKIE_DOT and after == start_id and node_id in self._incomplete:
            self._incomplete.discard(node_id)
            raise FUSEError(errno.EIO)

    def _prepared_for(self, directory: Inode, node_id: int) -> Prepared | None:
        """What may be shown of a directory as it is, perhaps nothing yet; None when nothing may be kept of it."""
        if not self._fs.remembers_names(directory):
            return None
        changes = self._fs.changes
        prepared = self._prepared.get(node_id)
        if prepared is not None and prepared.changes == changes:
            return prepared
        self._drop(node_id)
        while self._kept >= ROWS_KEPT_MAX:
            self._drop(next(iter(self._prepared)))
        prepared = self._prepared[node_id] = Prepared(changes)
        self._kept += 1
        return prepared

    def _drop(self, node_id: int) -> None:
        prepared = self._prepared.pop(node_id, None)
        if prepared is not None:
            self._kept -= 1 + len(prepared.rows)

    def _reply_entries(
        self, directory: Inode, node_id: int, after: int, token: ReaddirToken, prepared: Prepared | None
    ) -> bool:
        """Entries looked up one by one, and kept if they continue what is prepared; whether there were any."""
        keeping = prepared if prepared is not None and prepared.upto == after else None

        def damaged(error: CorruptionError) -> None:
            nonlocal keeping
            keeping = None
            self._complain((node_id,), error)
            self._incomplete.add(node_id)

        reply = pyfuse3.readdir_reply
        any_entry = False
        for item in self._fs.readdir(directory, 0 if after == _COOKIE_DOT_DOT else after, damaged):
            inode = self._inode_of(node_id, directory, item)
            if inode is None:
                keeping = None
                listed = self._node_ids.reference(item.localization, item.obj_id, directory.as_of)
                entry = bare_entry(listed, item.obj_type)
            else:
                entry = self._attributes.referenced(inode)
            name = FileNameT(item.name)
            if not reply(token, name, entry, item.key):
                self._node_ids.forget([(entry.st_ino, 1)])
                return True
            any_entry = True
            if keeping is not None and not self._keep(keeping, name, entry, item.key):
                keeping = None
        if keeping is not None:
            keeping.is_whole = True
        return any_entry

    def _keep(self, prepared: Prepared, name: FileNameT, entry: EntryAttributes, cookie: int) -> bool:
        """Whether the next row may be added to a listing."""
        if entry.st_ino < OBJ_ID_MIN or len(prepared.rows) >= ROWS_OF_ONE_MAX:
            return False
        prepared.rows.append((name, entry, cookie))
        prepared.cookies.append(cookie)
        self._kept += 1
        return True

    def _inode_of(self, node_id: int, directory: Inode, item: Entry) -> Inode | None:
        try:
            return self._fs.inode(item.localization, item.obj_id, directory.as_of)
        except HammerError as error:
            self._complain((node_id, item.name), error)
            return None

    def _reply_dots(self, directory: Inode, node_id: int, start_id: int, token: ReaddirToken) -> bool:
        dot, dot_dot = self._attributes.dots(directory, node_id)
        if not start_id and not pyfuse3.readdir_reply(token, FileNameT(b"."), dot, _COOKIE_DOT):
            return False
        return pyfuse3.readdir_reply(token, FileNameT(b".."), dot_dot, _COOKIE_DOT_DOT)


def _reply_rows(prepared: Prepared, after: int, token: ReaddirToken) -> bool:
    """Show again what is behind a cookie; whether there is room for more."""
    reply = pyfuse3.readdir_reply
    return all(reply(token, *row) for row in prepared.rows[bisect_right(prepared.cookies, after) :])
