"""POSIX ACLs and modes stay two views of one thing."""

from __future__ import annotations

import pytest
from small_filesystem import DIRECTORY, FILE, assert_clean, fresh, mount, walk

from hammerfs.errors import FileOperationError
from hammerfs.fs.acl import ACCESS, DEFAULT, GROUP, GROUP_OBJ, MASK, OTHER, USER, USER_OBJ, AclEntry, pack, unpack
from hammerfs.fs.inode import Inode
from hammerfs.fs.mount import FileSystem

NOBODY = 0xFFFFFFFF


def minimal(owner: int, group: int, others: int) -> list[AclEntry]:
    return [AclEntry(USER_OBJ, owner, NOBODY), AclEntry(GROUP_OBJ, group, NOBODY), AclEntry(OTHER, others, NOBODY)]


def extended(owner: int, group: int, others: int, mask: int) -> list[AclEntry]:
    return [
        AclEntry(USER_OBJ, owner, NOBODY),
        AclEntry(USER, 7, 99),
        AclEntry(GROUP_OBJ, group, NOBODY),
        AclEntry(GROUP, 5, 77),
        AclEntry(MASK, mask, NOBODY),
        AclEntry(OTHER, others, NOBODY),
    ]


@pytest.fixture
def fs() -> FileSystem:
    return mount(fresh(), xattr=True)


def new_file(fs: FileSystem, mode: int = 0o4640) -> Inode:
    return fs.create(fs.root, b"file", FILE, mode, 0, 0)


def test_an_acl_sets_the_mode_and_its_mask_shows_as_the_group(fs: FileSystem) -> None:
    inode = new_file(fs)
    fs.setxattr(inode, ACCESS, pack(extended(6, 4, 0, mask=7)))
    assert inode.data.mode == 0o4670
    assert unpack(fs.getxattr(inode, ACCESS)) == extended(6, 4, 0, mask=7)


def test_an_acl_that_says_no_more_than_a_mode_is_one(fs: FileSystem) -> None:
    inode = new_file(fs)
    for _ in range(2):  # the first removes the entries that are there, the second finds none
        fs.setxattr(inode, ACCESS, pack(minimal(7, 5, 1)))
        assert inode.data.mode == 0o4751
        assert fs.listxattr(inode) == []
    fs.setxattr(inode, ACCESS, pack(extended(7, 7, 7, mask=7)))
    fs.setxattr(inode, ACCESS, pack(minimal(4, 0, 0)))
    assert inode.data.mode == 0o4400
    assert fs.listxattr(inode) == []


def test_chmod_changes_the_mask_and_not_the_owning_group(fs: FileSystem) -> None:
    inode = new_file(fs)
    fs.setxattr(inode, ACCESS, pack(extended(7, 6, 5, mask=7)))
    fs.setattr(inode, mode=0o641)
    assert unpack(fs.getxattr(inode, ACCESS)) == extended(6, 6, 1, mask=4)


def test_a_default_acl_is_handed_down_as_far_as_the_mode_grants(fs: FileSystem) -> None:
    fs.setxattr(fs.root, DEFAULT, pack(extended(7, 6, 5, mask=7)))
    below = fs.create(fs.root, b"directory", DIRECTORY, 0o750, 0, 0)
    assert unpack(fs.getxattr(below, DEFAULT)) == extended(7, 6, 5, mask=7)
    assert unpack(fs.getxattr(below, ACCESS)) == extended(7, 6, 0, mask=5)
    assert below.data.mode == 0o750
    file = fs.create(below, b"file", FILE, 0o666, 0, 0)
    assert unpack(fs.getxattr(file, ACCESS)) == extended(6, 6, 4, mask=6)
    assert file.data.mode == 0o664
    assert fs.listxattr(file) == [ACCESS]


def test_a_minimal_default_acl_leaves_a_mode_only(fs: FileSystem) -> None:
    fs.setxattr(fs.root, DEFAULT, pack(minimal(7, 0, 0)))
    file = new_file(fs, 0o644)
    assert file.data.mode == 0o600
    assert fs.listxattr(file) == []


def test_acls_last() -> None:
    devices = fresh()
    fs = mount(devices, xattr=True)
    fs.setxattr(new_file(fs), ACCESS, pack(extended(6, 4, 0, mask=5)))
    fs.close_now()
    assert_clean(devices)
    fs = mount(devices, xattr=True)
    file = walk(fs, b"file")
    assert unpack(fs.getxattr(file, ACCESS)) == extended(6, 4, 0, mask=5)
    assert file.data.mode == 0o4650
    fs.close_now()


@pytest.mark.parametrize("value", [b"", b"\1\0\0\0", b"\2\0\0\0\0", pack(minimal(7, 7, 7))[:-1]])
def test_what_is_no_acl_is_refused(fs: FileSystem, value: bytes) -> None:
    inode = new_file(fs)
    with pytest.raises(FileOperationError) as caught:
        fs.setxattr(inode, ACCESS, value)
    assert caught.value.errno == 22
    assert inode.data.mode == 0o4640
