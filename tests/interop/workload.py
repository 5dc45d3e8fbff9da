"""Random changes of a directory tree, made to a mounted file system and to a plain model alike.

Everything follows from the seed.  Time moves by one tick an operation, so the model knows every time.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable
from random import Random

import pytest
from judge import TYPES, contents, find, text
from tree_model import Clock, Model, Node

from hammerfs.errors import FileOperationError
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.namespace import RENAME_EXCHANGE, RENAME_NOREPLACE
from hammerfs.ondisk.constants import (
    OBJTYPE_BDEV,
    OBJTYPE_CDEV,
    OBJTYPE_DIRECTORY,
    OBJTYPE_FIFO,
    OBJTYPE_REGFILE,
    OBJTYPE_SOCKET,
)

MIB = 1024 * 1024
SIZES = [0, 1, 15, 16, 17, 100, 4096, 8191, 8192, 8193, 16383, 16384, 16385, 40000, 65536, 200_001]
EDGES = [0, 1, 4095, 8192, 16384, 16385, 65536, MIB - 1, MIB, MIB + 1, MIB + 65536]
"""File offsets around which the layout of a file changes."""
LARGEST = 3 * MIB
"""Files are not grown beyond this."""
WORDS = [b"aa", b"bb", b"cc", b"dd"]
TWINS = [
    b"collide",
    b"c636fq5e",
    b"c11628t85x",
    b"c14121gfx3",
    b"c14749a5to",
    b"c17618k4sv",
    b"c26302j3jv",
    b"c29476ggjc",
]
"""Names with one CRC-32, hence of one hash in both algorithms; they meet in the root directory."""


class Workload:
    """Changes a mounted file system and its model together."""

    def __init__(self, fs: FileSystem, model: Model, seed: int, clock: Clock) -> None:
        self.fs = fs
        self.model = model
        self.random = Random(seed)
        self.clock = clock
        self._count = seed * 100_000
        self._open: list[tuple[Inode, Node]] = []
        self._changes: list[tuple[Callable[[], None], int]] = [
            (self.create, 8),
            (self.overwrite, 8),
            (self.append, 5),
            (self.write_beyond_the_end, 3),
            (self.truncate, 5),
            (self.unlink, 5),
            (self.unlink_while_open, 2),
            (self.rename, 6),
            (self.rename_over, 4),
            (self.exchange, 2),
            (self.link, 4),
            (self.symlink, 4),
            (self.mkdir, 4),
            (self.rmdir, 3),
            (self.mknod, 2),
            (self.set_attributes, 5),
            (self.be_refused, 3),
        ]

    def run(self, count: int) -> None:
        """Make `count` random changes; flushes when the front end should wait for the flusher."""
        calls = [change for change, _ in self._changes]
        weights = [weight for _, weight in self._changes]
        for change in self.random.choices(calls, weights, k=count):
            self.clock.tick()
            change()
            self.throttle()

    def throttle(self) -> None:
        """What asynchronous callers do by waiting."""
        if self.fs.congested:
            self.flush()

    def flush(self) -> int:
        """Make everything durable; returns a TID as of which the present can be seen."""
        assert self.fs.flusher is not None
        self.fs.flusher.flush_now()
        return self.fs.ctx.root.next_tid

    def release(self) -> None:
        """Close what was unlinked while open."""
        for inode, _ in self._open:
            self.fs.released(inode)
        self._open.clear()

    def fill(self, name: bytes, count: int) -> None:
        """A new directory below the root with many small files."""
        now = self.clock.tick()
        directory = self.fs.create(self.fs.root, name, OBJTYPE_DIRECTORY, 0o755, 0, 0)
        node = self._enter(self.model.root, name, Node("dir", 0o755, 0, 0, now))
        for number in range(count):
            child_name = b"file-%d" % number
            data = b"%d " % number * (number % 50)
            inode = self.fs.create(directory, child_name, OBJTYPE_REGFILE, 0o600, 0, 0)
            if data:
                self.fs.write(inode, 0, data)
            self._enter(node, child_name, Node("file", 0o600, 0, 0, now, data))
            self.throttle()

    def touch(self, name: bytes, mode: int, every: int = 1, first: int = 0) -> None:
        """Change the mode of some files, or all, in a directory below the root."""
        now = self.clock.tick()
        directory = self.fs.lookup(self.fs.root, name)
        for child_name, child in list(self.model.root.names[name].names.items())[first::every]:
            self.fs.setattr(self.fs.lookup(directory, child_name), mode=mode)
            child.mode, child.ctime = mode, now
            self.throttle()

    def thin_out(self, name: bytes, keep_every: int) -> None:
        """Unlink most of the files in a directory below the root."""
        now = self.clock.tick()
        directory = self.fs.lookup(self.fs.root, name)
        node = self.model.root.names[name]
        for index, child_name in enumerate(list(node.names)):
            if index % keep_every:
                self.fs.unlink(directory, child_name)
                node.leave(child_name, now)
                self.throttle()

    # --- choosing -------------------------------------------------------------------------------
    def _entries(self, *types: str) -> list[tuple[str, Node, bytes, Node]]:
        """(directory's path, directory, name, node) of every entry of these types."""
        return [
            (path, node, name, child)
            for path, node in self.model.walk()
            for name, child in node.names.items()
            if child.type in types and not child.frozen
        ]

    def _pick(self, *types: str) -> tuple[str, Node, bytes, Node] | None:
        entries = self._entries(*types)
        return self.random.choice(entries) if entries else None

    def _directory(self) -> tuple[str, Node]:
        return self.random.choice([(path, node) for path, node in self.model.walk() if node.type == "dir"])

    def _place(self) -> tuple[str, Node, bytes]:
        """A directory and a name that is free in it."""
        twins = [name for name in TWINS if name not in self.model.root.names]
        if twins and self.random.random() < 0.25:
            return "/", self.model.root, self.random.choice(twins)
        path, node = self._directory()
        self._count += 1
        kind = self.random.randrange(6)
        if kind == 0:
            name = b"-".join(self.random.sample(WORDS, 4)) + b".%d" % self._count
        elif kind == 1:
            name = (b"long%d-" % self._count).ljust(255, b"x")
        elif kind == 2:
            name = b"\xff\xfe %d\n" % self._count
        else:
            name = b"n%d" % self._count
        return path, node, name

    def _bytes(self, size: int) -> bytes:
        if self.random.random() < 0.2:
            return bytes(size)
        return self.random.randbytes(size)

    # --- changes --------------------------------------------------------------------------------
    def create(self) -> None:
        """A file, written in up to three pieces."""
        path, directory, name = self._place()
        mode = self.random.choice([0o644, 0o600, 0o4755, 0o1777])
        uid, gid = self.random.choice([(0, 0), (1000, 100), (0xFFFFFFFE, 65534)])
        inode = self.fs.create(find(self.fs, path), name, OBJTYPE_REGFILE, mode, uid, gid)
        node = self._enter(directory, name, Node("file", mode, uid, gid, self.clock.now))
        for _ in range(self.random.randrange(4)):
            self._write(inode, node, len(node.data), self._bytes(self.random.choice(SIZES)))

    def _enter(self, directory: Node, name: bytes, node: Node) -> Node:
        """Put a new node into a directory; a setgid directory hands its group down."""
        directory.enter(name, node, self.clock.now)
        if directory.mode & stat.S_ISGID:
            node.gid = directory.gid
            if node.type == "dir":
                node.mode |= stat.S_ISGID
        return node

    def _write(self, inode: Inode, node: Node, offset: int, data: bytes) -> None:
        assert self.fs.write(inode, offset, data) == len(data)
        if data:
            old = node.data.ljust(offset, b"\0")
            node.put(old[:offset] + data + old[offset + len(data) :], self.clock.now)

    def overwrite(self) -> None:
        """Bytes in the middle of a file, possibly beyond its end."""
        if picked := self._pick("file"):
            path, _, name, node = picked
            offset = self.random.randrange(len(node.data) + 1)
            size = min(self.random.choice(SIZES), LARGEST)
            self._write(find(self.fs, f"{path}/{text(name)}"), node, offset, self._bytes(size))

    def append(self) -> None:
        """Bytes at the end of a file."""
        if picked := self._pick("file"):
            path, _, name, node = picked
            if len(node.data) < LARGEST:
                data = self._bytes(self.random.choice(SIZES))
                self._write(find(self.fs, f"{path}/{text(name)}"), node, len(node.data), data)

    def write_beyond_the_end(self) -> None:
        """Bytes that leave a hole behind."""
        if picked := self._pick("file"):
            path, _, name, node = picked
            offset = len(node.data) + self.random.choice(EDGES)
            if offset < LARGEST:
                self._write(find(self.fs, f"{path}/{text(name)}"), node, offset, self._bytes(1000))

    def truncate(self) -> None:
        """Another size, smaller or larger."""
        if picked := self._pick("file"):
            path, _, name, node = picked
            old = len(node.data)
            size = self.random.choice([self.random.randrange(old + 1), *(edge for edge in EDGES if edge <= LARGEST)])
            self.fs.setattr(find(self.fs, f"{path}/{text(name)}"), size=size)
            if size != old:
                node.ctime = self.clock.now
                node.put(node.data[:size].ljust(size, b"\0"), self.clock.now)

    def unlink(self) -> None:
        """One name less."""
        if picked := self._pick("file", "symlink", "fifo", "socket", "chr", "blk"):
            path, directory, name, node = picked
            self.fs.unlink(find(self.fs, path), name)
            self._forget(directory, name, node)

    def unlink_while_open(self) -> None:
        """The name goes, the handle stays and is written to; it is closed some time later."""
        if picked := self._pick("file"):
            path, directory, name, node = picked
            inode = find(self.fs, f"{path}/{text(name)}")
            self.fs.opened(inode)
            self._open.append((inode, node))
            self.fs.unlink(find(self.fs, path), name)
            self._forget(directory, name, node)
        for inode, node in self._open:
            self._write(inode, node, self.random.randrange(len(node.data) + 1), self._bytes(20_000))
            assert b"".join(contents(self.fs, inode)) == node.data
        if len(self._open) > 2:
            self.fs.released(self._open.pop(0)[0])

    def _forget(self, directory: Node, name: bytes, node: Node) -> None:
        directory.leave(name, self.clock.now)
        node.nlink -= 1
        node.ctime = self.clock.now

    def rename(self) -> None:
        """Another name, in any directory that does not lie below."""
        picked = self._pick("file", "symlink", "dir", "fifo", "chr")
        if picked is None:
            return
        path, directory, name, node = picked
        new_path, new_directory, new_name = self._place()
        if f"{new_path}/".startswith(f"{path.rstrip('/')}/{text(name)}/"):
            return
        self.fs.rename(find(self.fs, path), name, find(self.fs, new_path), new_name, RENAME_NOREPLACE)
        self._move(directory, name, new_directory, new_name, node)

    def _move(self, directory: Node, name: bytes, new_directory: Node, new_name: bytes, node: Node) -> None:
        directory.leave(name, self.clock.now)
        new_directory.enter(new_name, node, self.clock.now)
        node.ctime = self.clock.now

    def rename_over(self) -> None:
        """The target goes away."""
        picked = self._pick("file", "symlink")
        target = self._pick("file", "symlink", "fifo")
        if picked is None or target is None or picked[3] is target[3]:
            return
        path, directory, name, node = picked
        new_path, new_directory, new_name, victim = target
        self.fs.rename(find(self.fs, path), name, find(self.fs, new_path), new_name)
        victim.nlink -= 1
        victim.ctime = self.clock.now
        self._move(directory, name, new_directory, new_name, node)

    def exchange(self) -> None:
        """Two objects swap their names."""
        picked, other = self._pick("file", "symlink"), self._pick("file", "symlink", "fifo")
        if picked is None or other is None or picked[3] is other[3]:
            return
        path, directory, name, node = picked
        other_path, other_directory, other_name, other_node = other
        self.fs.rename(find(self.fs, path), name, find(self.fs, other_path), other_name, RENAME_EXCHANGE)
        directory.enter(name, other_node, self.clock.now)
        other_directory.enter(other_name, node, self.clock.now)
        node.ctime = other_node.ctime = self.clock.now

    def link(self) -> None:
        """One name more."""
        if picked := self._pick("file", "symlink"):
            path, _, name, node = picked
            new_path, new_directory, new_name = self._place()
            self.fs.link(find(self.fs, f"{path}/{text(name)}"), find(self.fs, new_path), new_name)
            new_directory.enter(new_name, node, self.clock.now)
            node.nlink += 1
            node.ctime = self.clock.now

    def symlink(self) -> None:
        """Short targets lie in the inode, long ones in a record of their own."""
        path, directory, name = self._place()
        target = b"t/" * self.random.choice([1, 11, 12, 13, 500, 2000])
        self.fs.symlink(find(self.fs, path), name, target, 1000, 100)
        self._enter(directory, name, Node("symlink", 0o777, 1000, 100, self.clock.now, target))

    def mkdir(self) -> None:
        """An empty directory."""
        path, directory, name = self._place()
        self.fs.create(find(self.fs, path), name, OBJTYPE_DIRECTORY, 0o711, 0, 0)
        self._enter(directory, name, Node("dir", 0o711, 0, 0, self.clock.now))

    def rmdir(self) -> None:
        """An empty directory goes."""
        empty = [entry for entry in self._entries("dir") if not entry[3].names]
        if empty:
            path, directory, name, node = self.random.choice(empty)
            self.fs.rmdir(find(self.fs, path), name)
            self._forget(directory, name, node)

    def mknod(self) -> None:
        """Fifos, sockets and devices."""
        path, directory, name = self._place()
        obj_type = self.random.choice([OBJTYPE_FIFO, OBJTYPE_SOCKET, OBJTYPE_CDEV, OBJTYPE_BDEV])
        device = (0, 0) if obj_type in (OBJTYPE_FIFO, OBJTYPE_SOCKET) else (8, self.random.randrange(1 << 20))
        self.fs.create(find(self.fs, path), name, obj_type, 0o640, 0, 0, *device)
        self._enter(directory, name, Node(TYPES[obj_type], 0o640, 0, 0, self.clock.now, device=device))

    def set_attributes(self) -> None:
        """Mode, owner or times, one or more of them."""
        picked = self._pick("file", "dir", "fifo", "symlink")
        if picked is None:
            return
        path, _, name, node = picked
        inode = find(self.fs, f"{path}/{text(name)}")
        node.ctime = self.clock.now
        kind = self.random.randrange(3)
        if kind == 0:
            node.mode = self.random.choice([0o000, 0o777, 0o2755, 0o400])
            self.fs.setattr(inode, mode=node.mode)
        elif kind == 1:
            node.uid, node.gid = self.random.randrange(1 << 32), 7
            self.fs.setattr(inode, uid=node.uid, gid=node.gid)
        else:
            node.mtime = self.random.randrange(1 << 50)
            self.fs.setattr(inode, mtime_us=node.mtime, atime_us=5)

    def be_refused(self) -> None:
        """What must not be done is refused and changes nothing."""
        fs = self.fs
        if picked := self._pick("dir"):
            path, _, name, node = picked
            above, inode = find(fs, path), find(fs, f"{path}/{text(name)}")
            refused(errno.EISDIR, lambda: fs.unlink(above, name))
            refused(errno.EPERM, lambda: fs.link(inode, above, b"linked"))
            refused(errno.EEXIST, lambda: fs.create(above, name, OBJTYPE_REGFILE, 0o644, 0, 0))
            refused(errno.EINVAL, lambda: fs.rename(above, name, inode, b"below-itself"))
            if node.names:
                refused(errno.ENOTEMPTY, lambda: fs.rmdir(above, name))
        if picked := self._pick("file"):
            path, _, name, _ = picked
            above = find(fs, path)
            refused(errno.ENOTDIR, lambda: fs.rmdir(above, name))
            refused(errno.ENOENT, lambda: fs.unlink(above, name + b"?" if len(name) < 255 else b"?"))
            refused(errno.EEXIST, lambda: fs.rename(above, name, above, name, RENAME_NOREPLACE))


def refused(number: int, change: Callable[[], object]) -> None:
    """The change must fail with this errno."""
    with pytest.raises(FileOperationError) as refusal:
        change()
    assert refusal.value.errno == number
