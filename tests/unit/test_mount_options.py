"""The words after -o."""

from __future__ import annotations

import pytest

from hammerfs.cli.mount_options import MountRequest, parse_mount_options
from hammerfs.errors import UsageError
from hammerfs.fs.options import MountOptions


def parsed(text: str) -> MountOptions:
    return parse_mount_options([text]).filesystem


def test_nothing_asked_for_gives_the_defaults() -> None:
    assert parse_mount_options([]) == MountRequest(MountOptions(), frozenset({"default_permissions", "noatime"}), 0)
    assert parse_mount_options([""]) == parse_mount_options([])


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("ro", "read_only", True),
        ("ro,rw", "read_only", False),
        ("nohistory", "nohistory", True),
        ("nomirror", "nomirror", True),
        ("atime", "noatime", False),
        ("atime,noatime", "noatime", True),
        ("xattr", "xattr", True),
        ("uid=1000", "uid", 1000),
        ("uid=root", "uid", 0),
        ("gid=0", "gid", 0),
        ("fsync=0", "fsync_mode", 0),
        ("fsync=4", "fsync_mode", 4),
        ("flush=0.5", "flush_seconds", 0.5),
        ("flush=30s", "flush_seconds", 30.0),
        ("cache=64M", "cache_bytes", 64 << 20),
        ("cache=1G,cache=16M", "cache_bytes", 16 << 20),
        ("tid=0x0000000100008020", "as_of", 0x100008020),
        ("pfs=12", "pfs", 12),
    ],
)
def test_options_for_the_file_system(text: str, field: str, value: object) -> None:
    assert getattr(parsed(text), field) == value


def test_processors_may_sleep_only_where_that_is_asked_for() -> None:
    assert not parse_mount_options([]).powersave
    assert parse_mount_options(["ro,powersave"]).powersave


def test_the_past_is_read_only() -> None:
    request = parse_mount_options(["rw,tid=0x100008020"])
    assert request.filesystem.read_only
    assert "ro" in request.kernel


def test_several_lists_are_one() -> None:
    assert parse_mount_options(["ro,xattr", "rw"]) == parse_mount_options(["ro,xattr,rw"])


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("allow_other", {"allow_other"}),
        ("nosuid,nodev,noexec", {"nosuid", "nodev", "noexec"}),
        ("noexec,exec", {"exec"}),
        ("suid,nosuid", {"nosuid"}),
        ("sync,dirsync", {"sync", "dirsync"}),
        ("ro", {"ro"}),
        ("default_permissions", {"default_permissions"}),
    ],
)
def test_options_for_the_kernel(text: str, passed: set[str]) -> None:
    assert parse_mount_options([text]).kernel == {"default_permissions", "noatime"} | passed


@pytest.mark.parametrize(
    ("text", "private"), [("", True), ("ro,nosuid", True), ("allow_other", False), ("default_permissions", False)]
)
def test_permissions_are_checked_where_anybody_but_root_gets_in(text: str, private: bool) -> None:
    request = parse_mount_options([text], by_root=True)
    assert (request.private, "default_permissions" in request.kernel) == (private, not private)
    request = parse_mount_options([text])
    assert (request.private, "default_permissions" in request.kernel) == (False, True)


def test_atime_is_not_kept_from_the_kernel() -> None:
    assert parse_mount_options(["atime"]).kernel == {"default_permissions"}


def test_what_mount_passes_along_changes_nothing() -> None:
    text = "defaults,auto,noauto,nofail,user,users,_netdev,x-systemd.automount,X-mount.mkdir,comment=x,relatime,owner"
    assert parse_mount_options([text]) == parse_mount_options([])


def test_the_offset_belongs_to_the_specials() -> None:
    assert parse_mount_options(["offset=0x100000"]).offset == 1 << 20
    assert parse_mount_options(["offset=1M"]).offset == 1 << 20


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nohistroy", "unknown mount option 'nohistroy'"),
        ("ro=1", "unknown mount option 'ro=1'"),
        ("remount", "unmount it"),
        ("uid", "'uid' needs a value"),
        ("tid=", "'tid' needs a value"),
        ("uid=nobody-has-this-name", "no such user"),
        ("gid=nobody-has-this-name", "no such group"),
        ("uid=4294967295", "uid=4294967295"),
        ("fsync=5", "from 0 to 4"),
        ("fsync=-1", "from 0 to 4"),
        ("flush=0", "seconds"),
        ("flush=nan", "seconds"),
        ("flush=soon", "seconds"),
        ("cache=1K", "8M is the least"),
        ("cache=lots", "cache=lots"),
        ("tid=123", "tid=0x"),
        ("tid=0x", "tid=0x"),
        ("tid=0x10000000000000000", "tid=0x"),
        ("pfs=65536", "65535"),
        ("offset=-1", "offset=-1"),
    ],
)
def test_what_is_wrong_is_named(text: str, named: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_mount_options([text])
    assert named in str(caught.value)
