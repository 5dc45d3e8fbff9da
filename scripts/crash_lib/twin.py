"""A file system and a model of it in plain dictionaries, put through the same operations and compared.

The model knows POSIX and nothing of HAMMER.  Inodes are looked up anew for every operation, as the FUSE adapter does,
so that whatever the inode cache forgets too early shows.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from crash_lib.small import DIRECTORY, FILE
from hammerfs.errors import FileOperationError
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.address import Tid
from hammerfs.ondisk.constants import MAX_TID, OBJID_ROOT, OBJTYPE_SOFTLINK
from hammerfs.ondisk.inode import uuid_to_id

NOREPLACE, EXCHANGE = 1, 2
UID, GID = 1000, 100

State = tuple[Any, ...]
"""Everything about an object and what is below it, as values that compare."""


@dataclass(eq=False)
class Node:
    """One object of the model."""

    kind: int
    obj_id: int = 0
    mode: int = 0o755
    uid: int = UID
    gid: int = GID
    content: bytes = b""
    xattrs: dict[bytes, bytes] = field(default_factory=dict)
    entries: dict[bytes, Node] = field(default_factory=dict)
    parent: Node | None = None
    nlinks: int = 1
    opens: int = 0

    @property
    def is_directory(self) -> bool:
        return self.kind == DIRECTORY

    def state(self) -> State:
        children = tuple((name, node.state()) for name, node in sorted(self.entries.items()))
        xattrs = tuple(sorted(self.xattrs.items()))
        return (self.kind, self.mode, (self.uid, self.gid), self.nlinks, self.content, xattrs, children)

    def below(self, path: tuple[bytes, ...] = ()) -> Iterator[tuple[tuple[bytes, ...], Node]]:
        """Every path at or under this node, with what is there."""
        yield path, self
        for name, child in self.entries.items():
            yield from child.below((*path, name))


def view(fs: FileSystem, inode: Inode) -> State:
    """The same of the file system, from the top of `inode`."""
    data = inode.data
    children: tuple[tuple[bytes, State], ...] = ()
    if inode.is_directory:
        listed = [entry.name for entry in fs.readdir(inode, 0)]
        assert len(listed) == len(set(listed)), "a name is listed twice"
        children = tuple((name, view(fs, fs.lookup(inode, name))) for name in sorted(listed))
    content = b""
    if data.obj_type == FILE:
        content = fs.read(inode, 0, data.size)
        assert len(content) == data.size
    elif data.obj_type == OBJTYPE_SOFTLINK:
        content = fs.readlink(inode)
    xattrs = tuple(sorted((name, fs.getxattr(inode, name)) for name in fs.listxattr(inode)))
    owner = uuid_to_id(data.uid), uuid_to_id(data.gid)
    return (data.obj_type, data.mode, owner, data.nlinks, content, xattrs, children)


def view_as_of(fs: FileSystem, tid: Tid) -> State:
    """The whole file system as it was."""
    return view(fs, fs.inode(fs.root.localization, OBJID_ROOT, tid))


class Twin:
    """`fs` and `root`, the model's root, kept equal; `handles` are open objects, some of them without a name.

    slave -- what readers of a slave PFS in this file system see, where there is one
    """

    def __init__(self, fs: FileSystem) -> None:
        self.fs = fs
        self.root = Node(DIRECTORY, OBJID_ROOT, mode=0o755, uid=0, gid=0)
        self.handles: list[Node] = []
        self.slave: State | None = None

    def compare(self) -> None:
        assert view(self.fs, self.inode(self.root)) == self.root.state()
        for node in self.handles:
            inode = self.inode(node)
            assert inode.data.nlinks == node.nlinks
            if node.kind == FILE:
                assert self.fs.read(inode, 0, inode.data.size) == node.content

    def inode(self, node: Node) -> Inode:
        return self.fs.inode(self.fs.root.localization, node.obj_id, MAX_TID)

    def directories(self) -> list[Node]:
        return [node for _, node in self.root.below() if node.is_directory]

    def files(self) -> list[Node]:
        found = {node: None for _, node in self.root.below() if node.kind == FILE}
        found |= {node: None for node in self.handles if node.kind == FILE}
        return list(found)

    def nodes(self) -> list[Node]:
        """Every object with a name, and the root."""
        return [node for _, node in self.root.below()]

    def _expect(self, wanted: int, call: Callable[[], Any]) -> Any:
        """Run `call`, which shall raise FileOperationError(wanted); no error when `wanted` is 0."""
        if not wanted:
            return call()
        found = 0
        try:
            call()
        except FileOperationError as error:
            found = error.errno
        assert found == wanted, f"{errno.errorcode.get(found)} instead of {errno.errorcode[wanted]}"
        return None

    # --- names ----------------------------------------------------------------------------------
    def create(self, parent: Node, name: bytes, kind: int = FILE) -> Node | None:
        wanted = errno.EEXIST if name in parent.entries else 0
        directory = self.inode(parent)
        inode = self._expect(wanted, lambda: self.fs.create(directory, name, kind, 0o644, UID, GID))
        if inode is None:
            return None
        inherited = parent.mode & stat.S_ISGID if kind == DIRECTORY else 0
        node = Node(kind, inode.obj_id, 0o644 | inherited, gid=_gid_in(parent))
        self._enter(parent, name, node)
        return node

    def symlink(self, parent: Node, name: bytes, target: bytes) -> None:
        wanted = errno.EEXIST if name in parent.entries else 0
        directory = self.inode(parent)
        inode = self._expect(wanted, lambda: self.fs.symlink(directory, name, target, UID, GID))
        if inode is not None:
            self._enter(parent, name, Node(OBJTYPE_SOFTLINK, inode.obj_id, 0o777, gid=_gid_in(parent), content=target))

    def link(self, node: Node, parent: Node, name: bytes) -> None:
        wanted = errno.EPERM if node.is_directory else errno.EEXIST if name in parent.entries else 0
        wanted = wanted or (errno.ENOENT if not node.nlinks else 0)
        inode, directory = self.inode(node), self.inode(parent)
        self._expect(wanted, lambda: self.fs.link(inode, directory, name))
        if not wanted:
            parent.entries[name] = node
            node.nlinks += 1

    def remove(self, parent: Node, name: bytes) -> None:
        """unlink(2) or rmdir(2), as fits."""
        node = parent.entries.get(name)
        directory = self.inode(parent)
        if node is None:
            self._expect(errno.ENOENT, lambda: self.fs.unlink(directory, name))
        elif node.is_directory:
            self._expect(errno.EISDIR, lambda: self.fs.unlink(directory, name))
            wanted = errno.ENOTEMPTY if node.entries else 0
            self._expect(wanted, lambda: self.fs.rmdir(directory, name))
            if not wanted:
                self._leave(parent, name)
        else:
            self._expect(errno.ENOTDIR, lambda: self.fs.rmdir(directory, name))
            self._expect(0, lambda: self.fs.unlink(directory, name))
            self._leave(parent, name)

    def rename(self, parent: Node, name: bytes, new_parent: Node, new_name: bytes, flags: int = 0) -> None:
        wanted = self._rename_errno(parent, name, new_parent, new_name, flags)
        source, target = self.inode(parent), self.inode(new_parent)
        self._expect(wanted, lambda: self.fs.rename(source, name, target, new_name, flags))
        if wanted:
            return
        node, victim = parent.entries[name], new_parent.entries.get(new_name)
        if node is victim:
            return
        if flags & EXCHANGE:
            assert victim is not None
            parent.entries[name], new_parent.entries[new_name] = victim, node
            victim.parent = parent
        else:
            if victim is not None:
                self._leave(new_parent, new_name)
            del parent.entries[name]
            new_parent.entries[new_name] = node
        node.parent = new_parent

    @staticmethod
    def _rename_errno(parent: Node, name: bytes, new_parent: Node, new_name: bytes, flags: int) -> int:
        node, victim = parent.entries.get(name), new_parent.entries.get(new_name)
        if node is None or (flags & EXCHANGE and victim is None):
            return errno.ENOENT
        if flags & NOREPLACE and victim is not None:
            return errno.EEXIST
        if node is victim and not flags & EXCHANGE:
            return 0
        if contains(node, new_parent) or (victim is not None and flags & EXCHANGE and contains(victim, parent)):
            return errno.EINVAL
        if flags & EXCHANGE or victim is None:
            return 0
        if node.is_directory and not victim.is_directory:
            return errno.ENOTDIR
        if victim.is_directory and not node.is_directory:
            return errno.EISDIR
        return errno.ENOTEMPTY if victim.entries else 0

    @staticmethod
    def _enter(parent: Node, name: bytes, node: Node) -> None:
        parent.entries[name] = node
        node.parent = parent

    @staticmethod
    def _leave(parent: Node, name: bytes) -> None:
        parent.entries.pop(name).nlinks -= 1

    # --- contents and attributes ----------------------------------------------------------------
    def write(self, node: Node, offset: int, data: bytes) -> None:
        assert self.fs.write(self.inode(node), offset, data) == len(data)
        content = node.content.ljust(offset, b"\0")
        node.content = content[:offset] + data + content[offset + len(data) :]

    def truncate(self, node: Node, size: int) -> None:
        self.fs.setattr(self.inode(node), size=size)
        node.content = node.content[:size].ljust(size, b"\0")

    def chmod(self, node: Node, mode: int, uid: int, gid: int) -> None:
        """chmod(2) and chown(2) in one request."""
        self.fs.setattr(self.inode(node), mode=mode, uid=uid, gid=gid)
        node.mode, node.uid, node.gid = mode, uid, gid

    def touch(self, node: Node, atime_us: int | None, mtime_us: int | None) -> None:
        """utimensat(2)."""
        inode = self.inode(node)
        atime, mtime = inode.data.atime, inode.data.mtime
        self.fs.setattr(inode, atime_us=atime_us, mtime_us=mtime_us)
        wanted = atime if atime_us is None else atime_us, mtime if mtime_us is None else mtime_us
        assert (inode.data.atime, inode.data.mtime) == wanted

    def touch_as_written(self, node: Node) -> None:
        """What the kernel tells of the times of writes that it kept to itself."""
        now = self.fs.ctx.clock()
        self.fs.setattr(self.inode(node), mtime_us=now, ctime_us=now)

    def set_xattr(self, node: Node, name: bytes, value: bytes) -> None:
        self.fs.setxattr(self.inode(node), name, value)
        node.xattrs[name] = value

    def remove_xattr(self, node: Node, name: bytes) -> None:
        wanted = 0 if name in node.xattrs else errno.ENODATA
        inode = self.inode(node)
        self._expect(wanted, lambda: self.fs.removexattr(inode, name))
        node.xattrs.pop(name, None)

    # --- handles --------------------------------------------------------------------------------
    def open(self, node: Node) -> None:
        self.fs.opened(self.inode(node))
        node.opens += 1
        self.handles.append(node)

    def release(self, node: Node) -> None:
        self.handles.remove(node)
        node.opens -= 1
        self.fs.released(self.inode(node))

    def release_all(self) -> None:
        while self.handles:
            self.release(self.handles[-1])


def _gid_in(parent: Node) -> int:
    """The group of what is created there."""
    return parent.gid if parent.mode & stat.S_ISGID else GID


def contains(node: Node, other: Node) -> bool:
    """Whether `other` is `node` or somewhere below it."""
    above: Node | None = other
    while above is not None:
        if above is node:
            return True
        above = above.parent
    return False
