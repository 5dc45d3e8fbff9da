"""`.hammer` in golden images: the original's snapshots by their labels, and PFSs each with one of their own."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pyfuse3
import pytest
import trio
from handlers import USER
from judge import Golden, as_tree, closing, differences, view

from hammerfs.fs.inode import Inode
from hammerfs.vfs.operations import HammerOperations
from hammerfs.vfs.xattroperations import operations_for

ROOT = pyfuse3.InodeT(pyfuse3.ROOT_INODE)


def look(operations: HammerOperations, *path: bytes) -> Inode:
    node = ROOT
    for name in path:
        node = trio.run(operations.lookup, node, pyfuse3.FileNameT(name), USER).st_ino
    return operations.inode_of(node)


def listed(operations: HammerOperations, *path: bytes) -> list[bytes]:
    names = []

    def reply(_token: object, name: bytes, entry: Any, _next_id: int) -> bool:
        names.append(name)
        return True

    inode = look(operations, *path)
    node = operations.node_ids.peek(inode.localization, inode.obj_id, inode.as_of)
    with mock.patch.object(pyfuse3, "readdir_reply", reply):
        trio.run(operations.readdir, pyfuse3.FileHandleT(node), 0, mock.Mock())
    return sorted(set(names) - {b".", b".."})


def test_the_original_s_snapshots_are_directories(images: Golden) -> None:
    manifest = images.manifest("g2-history")
    with closing(images.mount("g2-history")) as fs:
        operations = operations_for(fs)
        labels = [snapshot["label"] for snapshot in manifest["snapshots"]]
        assert listed(operations, b".hammer", b"snapshots") == sorted(label.encode() for label in labels)
        for label in labels:
            top = look(operations, b".hammer", b"snapshots", label.encode())
            assert differences(as_tree(manifest[f"tree_asof_{label}"]), view(fs, top)) == []
        latest = look(operations, b".hammer", b"latest")
        assert differences(as_tree(manifest["current_tree"]), view(fs, latest)) == []


@pytest.mark.parametrize(("pfs", "tree", "is_slave"), [(1, "tree_m1", False), (2, "tree_s1", True)])
def test_each_pfs_has_its_own(pfs: int, tree: str, is_slave: bool, images: Golden) -> None:
    """A slave's latest state is what its root shows already, and a link leads there."""
    with closing(images.mount("g5-pfs")) as fs:
        operations = operations_for(fs)
        root = b"@@-1:%05d" % pfs
        assert listed(operations, root, b".hammer") == [b"latest", b"snapshots", b"tid", b"time"]
        latest = look(operations, root, b".hammer", b"latest")
        if is_slave:
            assert fs.readlink(latest) == b".."
            latest = look(operations, root)
        assert differences(as_tree(images.manifest("g5-pfs")[tree]), view(fs, latest)) == []
