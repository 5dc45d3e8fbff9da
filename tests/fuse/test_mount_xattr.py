"""Extended attributes and POSIX ACLs through a mount with the `xattr` option."""

from __future__ import annotations

import errno
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import SIZE, SMALL
from hammer_mount import HammerMount
from syscalls import NOBODY, as_nobody

from hammerfs.errors import FileOperationError
from hammerfs.vfs.acl import ACCESS_NAME, DEFAULT_NAME, Acl

pytestmark = pytest.mark.mount
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
ACCESS, DEFAULT = ACCESS_NAME.decode(), DEFAULT_NAME.decode()


def acl(*entries: tuple[int, int] | tuple[int, int, int]) -> bytes:
    whole = (entry if len(entry) == 3 else (*entry, 0xFFFFFFFF) for entry in entries)
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in whole)


FOR_NOBODY = acl((USER_OBJ, 7), (USER, 6, NOBODY), (GROUP_OBJ, 5), (MASK, 7), (OTHER, 0))


@pytest.fixture(scope="module")
def module_mount(open_folder: Path) -> Iterator[HammerMount]:
    mount = HammerMount(open_folder, size=SIZE, mkfs=SMALL)
    try:
        mount.mount("allow_other", "xattr")
        yield mount
        mount.umount()
        mount.check()
    finally:
        mount.remove()


def refused(number: int) -> pytest.RaisesExc[OSError]:
    return pytest.RaisesExc(OSError, check=lambda error: error.errno == number)


def test_attributes_are_set_replaced_listed_and_removed(here: Path, module_mount: HammerMount) -> None:
    path = here / "file"
    path.touch()
    values = {f"user.{number}": os.urandom(number * 10) for number in range(40)}
    for name, value in values.items():
        os.setxattr(path, name, b"first")
        os.setxattr(path, name, value)
    os.setxattr(here, "user.of the folder", b"x")
    module_mount.remount()
    assert {name: os.getxattr(path, name) for name in os.listxattr(path)} == values
    assert os.listxattr(here) == ["user.of the folder"]
    os.removexattr(path, "user.7")
    for call in (lambda: os.getxattr(path, "user.7"), lambda: os.removexattr(path, "user.7")):
        with refused(errno.ENODATA):
            call()
    with refused(errno.EEXIST):
        os.setxattr(path, "user.8", b"", os.XATTR_CREATE)
    with refused(errno.ENODATA):
        os.setxattr(path, "user.7", b"", os.XATTR_REPLACE)
    with refused(errno.E2BIG):
        os.setxattr(path, "user.7", bytes(20_000))


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("foo", errno.EOPNOTSUPP),
        ("foo.bar", errno.EOPNOTSUPP),
        ("system.of ours", errno.EOPNOTSUPP),
        ("user.", errno.EINVAL),
        ("security.", errno.EINVAL),
    ],
)
def test_names_outside_of_the_namespaces_are_refused(here: Path, name: str, number: int) -> None:
    for call in (
        lambda: os.setxattr(here, name, b"value"),
        lambda: os.getxattr(here, name),
        lambda: os.removexattr(here, name),
    ):
        with refused(number):
            call()
    assert os.listxattr(here) == []


@needs_root
def test_trusted_attributes_are_shown_to_root_only(here: Path) -> None:
    os.setxattr(here, "trusted.secret", b"x")
    os.setxattr(here, "user.open", b"y")
    assert set(os.listxattr(here)) == {"trusted.secret", "user.open"}
    os.seteuid(NOBODY)
    try:
        assert os.listxattr(here) == ["user.open"]
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("name", [ACCESS, DEFAULT])
def test_an_acl_that_is_not_there_can_be_removed(here: Path, name: str) -> None:
    os.removexattr(here, name)
    assert os.listxattr(here) == []


def test_an_acl_and_the_mode_say_the_same(here: Path, module_mount: HammerMount) -> None:
    path = here / "file"
    path.touch(0o644)
    os.setxattr(path, ACCESS, FOR_NOBODY)
    assert stat.S_IMODE(path.stat().st_mode) == 0o770
    path.chmod(0o640)
    expected = acl((USER_OBJ, 6), (USER, 6, NOBODY), (GROUP_OBJ, 5), (MASK, 4), (OTHER, 0))
    assert os.getxattr(path, ACCESS) == expected
    module_mount.remount()
    assert os.getxattr(path, ACCESS) == expected
    os.setxattr(path, ACCESS, acl((USER_OBJ, 6), (GROUP_OBJ, 4), (OTHER, 4)))
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    with refused(errno.ENODATA):
        os.getxattr(path, ACCESS)


@needs_root
def test_an_acl_lets_its_user_in(here: Path) -> None:
    path = here / "file"
    path.write_bytes(b"secret")
    path.chmod(0o600)
    assert as_nobody('cat "$1"', path).returncode != 0
    os.setxattr(path, ACCESS, FOR_NOBODY)
    assert as_nobody('cat "$1"', path).stdout == "secret"


@needs_root
@pytest.mark.parametrize(
    ("user", "group", "more", "keeps"),
    [
        (0, 0, "--clear-groups", True),
        (NOBODY, NOBODY, "--groups=4242", True),
        (NOBODY, 4242, "--clear-groups", True),
        (NOBODY, NOBODY, "--clear-groups", False),
    ],
)
@pytest.mark.parametrize("value", [FOR_NOBODY, acl((USER_OBJ, 7), (GROUP_OBJ, 7), (OTHER, 0))], ids=["long", "minimal"])
def test_an_acl_takes_the_sgid_bit_as_chmod_does(
    here: Path, user: int, group: int, more: str, keeps: bool, value: bytes
) -> None:
    """From whoever is not of the file's group: the bit would let others act for a group that its owner is not of."""
    path = here / "file"
    path.touch()
    os.chown(path, NOBODY, 4242)
    path.chmod(0o2755)
    assert stat.S_IMODE(path.stat().st_mode) == 0o2755
    script = f"import os; os.setxattr({os.fspath(path)!r}, {ACCESS!r}, {value!r})"
    command = ["setpriv", f"--reuid={user}", f"--regid={group}", more, sys.executable, "-I", "-c", script]
    subprocess.run(command, check=True, timeout=60, cwd="/")
    assert stat.S_IMODE(path.stat().st_mode) == (0o2770 if keeps else 0o770)


@needs_root
def test_an_acl_that_is_inherited_leaves_the_sgid_bit(here: Path) -> None:
    os.chown(here, NOBODY, 4242)
    here.chmod(0o2777)
    os.setxattr(here, DEFAULT, FOR_NOBODY)
    assert as_nobody('mkdir "$1/folder"', here).returncode == 0
    assert (here / "folder").stat().st_gid == 4242
    assert (here / "folder").stat().st_mode & stat.S_ISGID


def test_the_umask_is_applied_besides_a_default_acl(here: Path) -> None:
    """As mount.hammer(8) has it: FUSE tells us a mode that has lost its bits already."""
    os.setxattr(here, DEFAULT, FOR_NOBODY)
    before = os.umask(0o077)
    try:
        os.mkdir(here / "folder", 0o777)
    finally:
        os.umask(before)
    assert stat.S_IMODE((here / "folder").stat().st_mode) == 0o700
    assert os.getxattr(here / "folder", DEFAULT) == FOR_NOBODY


def test_a_default_acl_is_inherited(here: Path, module_mount: HammerMount) -> None:
    before = os.umask(0)
    try:
        os.setxattr(here, DEFAULT, FOR_NOBODY)
        os.close(os.open(here / "file", os.O_CREAT | os.O_WRONLY, 0o640))
        os.mkdir(here / "folder", 0o777)
        os.mkdir(here / "folder" / "deeper", 0o700)
    finally:
        os.umask(before)
    module_mount.remount()
    file_acl = acl((USER_OBJ, 6), (USER, 6, NOBODY), (GROUP_OBJ, 5), (MASK, 4), (OTHER, 0))
    assert os.getxattr(here / "file", ACCESS) == file_acl
    assert stat.S_IMODE((here / "file").stat().st_mode) == 0o640
    assert os.listxattr(here / "file") == [ACCESS]
    assert os.getxattr(here / "folder", ACCESS) == FOR_NOBODY
    assert os.getxattr(here / "folder" / "deeper", DEFAULT) == FOR_NOBODY
    assert stat.S_IMODE((here / "folder" / "deeper").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x02\x00",
        struct.pack("<I", 1) + acl((USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 0))[4:],
        acl((USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 0))[:-1],
        acl((USER_OBJ, 7), (GROUP_OBJ, 5)),
        acl((USER_OBJ, 7), (USER, 6, 1), (GROUP_OBJ, 5), (OTHER, 0)),
        acl((USER_OBJ, 7), (USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 0)),
        acl((USER_OBJ, 7), (GROUP_OBJ, 5), (OTHER, 0), (64, 0)),
    ],
)
def test_what_is_no_acl_is_refused(value: bytes) -> None:
    with pytest.raises(FileOperationError) as caught:
        Acl.unpack(value)
    assert caught.value.errno == errno.EINVAL
