"""A directory tree as plain objects, to hold a file system against.

A model keeps whole contents as bytes, and every time that users are told; `tree` writes it all down in the words of
manifests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from judge import TYPES, Entry, Tree, contents, raw, text, walk

from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.inode import uuid_to_id


class Clock:
    """Time in microseconds that moves only when told."""

    def __init__(self, now: int = 1_800_000_000_000_000) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def tick(self) -> int:
        """A second and a bit later."""
        self.now += 1_000_007
        return self.now


@dataclass(eq=False)
class Node:
    """One object, new at `mtime`; `data` is a file's contents or a symlink's target."""

    type: str
    mode: int
    uid: int
    gid: int
    mtime: int
    data: bytes = b""
    nlink: int = 1
    ctime: int = 0
    device: tuple[int, int] = (0, 0)
    names: dict[bytes, Node] = field(default_factory=dict)
    frozen: bool = False
    digest: str | None = None

    def __post_init__(self) -> None:
        self.ctime = self.mtime

    def put(self, data: bytes, now: int) -> None:
        """New contents."""
        self.data = data
        self.digest = None
        self.mtime = self.ctime = now

    def enter(self, name: bytes, child: Node, now: int) -> None:
        """Put an object into a directory."""
        self.names[name] = child
        self.mtime = self.ctime = now

    def leave(self, name: bytes, now: int) -> Node:
        """Take an object out of a directory."""
        self.mtime = self.ctime = now
        return self.names.pop(name)

    def describe(self, path: str) -> Entry:
        """The node as `judge.shown` describes an inode."""
        entry: Entry = {
            "path": path,
            "type": self.type,
            "mode": f"{self.mode:04o}",
            "uid": self.uid,
            "gid": self.gid,
            "nlink": self.nlink,
            "size": len(self.data),
            "stat_mtime_us": self.mtime,
            "stat_ctime_us": self.ctime,
        }
        if self.type == "file":
            if self.digest is None:
                self.digest = hashlib.sha256(self.data).hexdigest()
            entry["sha256"] = self.digest
        elif self.type == "symlink":
            entry["target"] = text(self.data)
        elif self.type == "dir":
            entry["entries"] = len(self.names)
        elif self.type in ("chr", "blk"):
            entry["rmajor"], entry["rminor"] = self.device
        return entry


class Model:
    """A tree of nodes."""

    def __init__(self, root: Node) -> None:
        self.root = root

    @classmethod
    def of(cls, fs: FileSystem) -> Model:
        """What a file system shows."""
        nodes: dict[int, Node] = {}
        paths: dict[str, Node] = {}
        for path, inode in walk(fs, fs.root):
            node = nodes.get(inode.obj_id)
            if node is None:
                node = nodes[inode.obj_id] = _node_of(fs, inode)
            paths[path] = node
            if path != "/":
                above, name = path.rsplit("/", 1)
                paths[above or "/"].names[raw(name)] = node
        return cls(paths["/"])

    def walk(self) -> Iterator[tuple[str, Node]]:
        """Every path and what is there, the root first."""
        waiting = [("", self.root)]
        while waiting:
            path, node = waiting.pop()
            yield path or "/", node
            waiting += [(f"{path}/{text(name)}", child) for name, child in node.names.items()]

    def tree(self) -> Tree:
        """The model in the words of manifests."""
        return {path: node.describe(path) for path, node in self.walk()}


def _node_of(fs: FileSystem, inode: Inode) -> Node:
    data = inode.data
    kind = TYPES[data.obj_type]
    node = Node(kind, data.mode, uuid_to_id(data.uid), uuid_to_id(data.gid), data.mtime, nlink=data.nlinks)
    if kind == "file":
        node.data = b"".join(contents(fs, inode))
    elif kind == "symlink":
        node.data = fs.readlink(inode)
    elif kind in ("chr", "blk"):
        node.device = (data.rmajor, data.rminor)
    node.ctime = data.ctime
    node.frozen = inode.nohistory
    return node
