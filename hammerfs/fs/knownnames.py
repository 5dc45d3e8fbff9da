"""Names that directories are known to have, so that nobody has to ask the B-tree for them again.

Finding a name costs a descent, the entry's record and its CRC; that a name is missing costs a descent, too, before
every creation.  The kernel remembers names as well, but asks again for each change of one: a file that `rm -r` removes
was listed a moment before.

For the present only, and only where nothing but the front end changes names.  What must hold: a name here is the
directory's, with what memory adds and takes away; and each entry with a key up to `upto` is here.  So a whole listing,
or a directory that is new, tells for every name whether it is there.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hammerfs.fs.directory import Entry
    from hammerfs.fs.inode import Inode


class KnownNames:
    """Those of one directory.

    by_name, by_key -- entries that are known
    upto -- all entries with keys up to this one are
    doubtful -- the directory is damaged: nothing is remembered of it
    """

    __slots__ = ("_order", "by_key", "by_name", "doubtful", "upto")

    def __init__(self, upto: int) -> None:
        self.by_name: dict[bytes, Entry] = {}
        self.by_key: dict[int, Entry] = {}
        self.upto = upto
        self.doubtful = False
        self._order: list[int] | None = None

    def add(self, entry: Entry) -> None:
        """One more; it replaces what was known of that name, and of that key."""
        self.remove(entry.name)
        standing = self.by_key.get(entry.key)
        if standing is not None:
            self.remove(standing.name)
        self.by_name[entry.name] = self.by_key[entry.key] = entry
        if self._order is not None:
            insort(self._order, entry.key)

    def remove(self, name: bytes) -> bool:
        """No such entry any more; False when it was not known."""
        entry = self.by_name.pop(name, None)
        if entry is None:
            return False
        del self.by_key[entry.key]
        if self._order is not None:
            del self._order[bisect_left(self._order, entry.key)]
        return True

    def after(self, key: int) -> Iterator[Entry]:
        """Those with greater keys, in order; entries may come and go meanwhile, and new ones are left out."""
        if self._order is None:
            self._order = sorted(self.by_key)
        for position in self._order[bisect_right(self._order, key) :]:
            entry = self.by_key.get(position)
            if entry is not None:
                yield entry


class NameCache:
    """The names of all directories of a mount, at most `limit` and of one directory a quarter of that.

    unchanging -- nothing can change on this mount, so that read-only directories keep their names, too
    """

    def __init__(self, limit: int, *, unchanging: bool) -> None:
        self._limit = limit
        self._unchanging = unchanging
        self._directories: dict[Inode, None] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def begin(self, directory: Inode, upto: int) -> KnownNames:
        """Remember from now on what a directory has; it has nothing up to the key `upto`."""
        known = directory.known = KnownNames(upto)
        self._directories[directory] = None
        return known

    def of(self, directory: Inode) -> KnownNames | None:
        """What is known of a directory, to be added to; None where nothing may be."""
        known = directory.known
        if known is None and directory.live and (self._unchanging or not directory.read_only):
            known = self.begin(directory, 0)
        return known

    def note(self, directory: Inode, entry: Entry) -> None:
        """The directory has this entry."""
        known = self.of(directory)
        if known is None or known.doubtful or known.by_name.get(entry.name) == entry:
            return
        before = len(known.by_name)
        known.add(entry)
        self._count += len(known.by_name) - before
        if len(known.by_name) > self._limit // 4:
            self.forget(directory)
        elif self._count > self._limit:
            self._make_room(directory)

    def note_absence(self, directory: Inode, name: bytes) -> None:
        """The directory has no entry of that name any more."""
        if directory.known is not None and directory.known.remove(name):
            self._count -= 1

    def distrust(self, directory: Inode) -> None:
        """Ask the B-tree about this directory every time, as it has entries that should not be."""
        self.forget(directory)
        self.begin(directory, 0).doubtful = True

    def forget(self, directory: Inode) -> None:
        """Know nothing of a directory."""
        if directory.known is not None:
            self._count -= len(directory.known.by_name)
            directory.known = None
            del self._directories[directory]

    def _make_room(self, spared: Inode) -> None:
        """Forget directories, in the order in which they became known, until a quarter is free."""
        for directory in list(self._directories):
            if self._count <= self._limit * 3 // 4:
                return
            if directory is not spared:
                self.forget(directory)
