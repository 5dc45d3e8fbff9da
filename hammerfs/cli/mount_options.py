"""The words after `-o`: ours, the kernel's, and those that mount(8) passes along and that mean nothing here.

Later words win over earlier ones, as mount(8) has it.  A word that nobody knows is refused: an option that was
misspelled and silently dropped could cost data.
"""

from __future__ import annotations

import dataclasses
import grp
import math
import pwd
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from hammerfs.cli.size import parse_size
from hammerfs.errors import UsageError
from hammerfs.fs.options import MIB, SNAPDIR_HIDDEN, SNAPDIR_OFF, SNAPDIR_VISIBLE, MountOptions
from hammerfs.ondisk.constants import MAX_PFSID, MAX_TID

CACHE_BYTES_MIN: Final = 8 * MIB
FSYNC_MODE_MAX: Final = 4
KEEP_FREE_PERCENT_MAX: Final = 90

_FLAGS: Final[dict[str, dict[str, bool]]] = {
    "ro": {"read_only": True},
    "rw": {"read_only": False},
    "nohistory": {"nohistory": True},
    "nomirror": {"nomirror": True},
    "noatime": {"noatime": True},
    "atime": {"noatime": False},
    "xattr": {"xattr": True},
    "dedup": {"dedup": True},
    "powersave": {"powersave": True},
}
"""Options without a value, and the fields of MountOptions or MountRequest they set."""

_KERNEL: Final = frozenset(
    {
        "allow_other",
        "default_permissions",
        "nosuid",
        "nodev",
        "noexec",
        "suid",
        "dev",
        "exec",
        "sync",
        "async",
        "dirsync",
    }
)
"""Passed to the kernel.  FUSE mounts are nosuid and nodev unless root asks for `suid` and `dev`."""
_OPPOSITE: Final = {"suid": "nosuid", "dev": "nodev", "exec": "noexec", "async": "sync"}
_OPPOSITES: Final = _OPPOSITE | {there: here for here, there in _OPPOSITE.items()}

_DROPPED: Final = frozenset(
    {
        "auto",
        "defaults",
        "diratime",
        "group",
        "iversion",
        "lazytime",
        "loud",
        "mand",
        "noauto",
        "nodiratime",
        "nofail",
        "nogroup",
        "noiversion",
        "nolazytime",
        "nomand",
        "noowner",
        "norelatime",
        "nostrictatime",
        "nouser",
        "nousers",
        "owner",
        "relatime",
        "silent",
        "strictatime",
        "user",
        "users",
        "_netdev",
    }
)
_DROPPED_PREFIXES: Final = ("x-", "X-", "comment=", "user=", "helper=", "uhelper=")


@dataclass(frozen=True, slots=True)
class MountRequest:
    """What the options ask for.

    filesystem -- for the core
    kernel -- mount options to hand to FUSE
    offset -- where the volume begins in each special, bytes
    private -- whether only root can get at the mount, so that the kernel need not check permissions
    powersave -- whether processors may sleep between two requests
    """

    filesystem: MountOptions
    kernel: frozenset[str]
    offset: int
    private: bool = False
    powersave: bool = False


def parse_mount_options(texts: Iterable[str], *, by_root: bool = False) -> MountRequest:
    """Read the values of all `-o` arguments, each a list of words between commas; UsageError for what is wrong.

    The kernel checks permissions (`default_permissions`), except when root mounts for itself: whom FUSE lets in then
    may do everything anyway, and after each change in a directory the check costs a GETATTR.
    """
    fields: dict[str, Any] = {}
    kernel: set[str] = set()
    for word in ",".join(texts).split(","):
        name, equals, value = word.partition("=")
        if word in _FLAGS:
            fields.update(_FLAGS[word])
        elif word in _KERNEL:
            kernel.discard(_OPPOSITES.get(word, ""))
            kernel.add(word)
        elif name in _VALUES:
            if not equals or not value:
                raise UsageError(f"mount option '{name}' needs a value: {name}={_VALUES[name].shape}")
            fields[_VALUES[name].field] = _VALUES[name].parse(name, value)
        elif name == "keepfree":
            fields.update(_parse_keepfree(value))
        elif word == "remount":
            raise UsageError("a mounted file system keeps its options; unmount it and mount it again")
        elif word and word not in _DROPPED and not word.startswith(_DROPPED_PREFIXES):
            raise UsageError(f"unknown mount option '{word}'")
    offset = fields.pop("offset", 0)
    powersave = fields.pop("powersave", False)
    options = dataclasses.replace(MountOptions(), **fields)
    if options.as_of is not None:
        options = dataclasses.replace(options, read_only=True)
    if options.read_only:
        kernel.add("ro")
    if options.noatime:
        kernel.add("noatime")
    private = by_root and kernel.isdisjoint({"allow_other", "default_permissions"})
    if not private:
        kernel.add("default_permissions")
    return MountRequest(options, frozenset(kernel), offset, private, powersave)


def _whole_number(name: str, value: str, lowest: int, highest: int) -> int:
    try:
        number = int(value, 16 if value[:2].lower() == "0x" else 10)
    except ValueError:
        number = -1
    if not lowest <= number <= highest:
        raise UsageError(f"mount option {name}={value}: a whole number from {lowest} to {highest} was expected")
    return number


def _parse_fsync(name: str, value: str) -> int:
    return _whole_number(name, value, 0, FSYNC_MODE_MAX)


def _parse_skip_redo(name: str, value: str) -> int:
    return _whole_number(name, value, 0, 2)


def _parse_pfs(name: str, value: str) -> int:
    return _whole_number(name, value, 0, MAX_PFSID)


def _parse_offset(name: str, value: str) -> int:
    try:
        return parse_size(value)
    except UsageError as error:
        raise UsageError(f"mount option {name}={value}: {error}") from None


def _parse_cache(name: str, value: str) -> int:
    size = _parse_offset(name, value)
    if size < CACHE_BYTES_MIN:
        raise UsageError(f"mount option {name}={value}: {CACHE_BYTES_MIN // MIB}M is the least that works")
    return size


def _parse_flush(name: str, value: str) -> float:
    try:
        seconds = float(value.removesuffix("s"))
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise UsageError(f"mount option {name}={value}: seconds were expected, such as {name}=5")
    return seconds


def _parse_tid(name: str, value: str) -> int:
    try:
        tid = int(value, 16) if value[:2].lower() == "0x" else 0
    except ValueError:
        tid = 0
    if not 0 < tid <= MAX_TID:
        raise UsageError(
            f"mount option {name}={value}: a transaction id was expected, such as {name}=0x0000000123456780"
        )
    return tid


def _parse_keepfree(value: str) -> dict[str, int]:
    """A size or a percentage; the later word wins over the earlier, whichever of them it is."""
    if value.endswith("%"):
        digits = value[:-1]
        if not (digits.isascii() and digits.isdigit() and int(digits) <= KEEP_FREE_PERCENT_MAX):
            raise UsageError(
                f"mount option keepfree={value}: a percentage is a whole number from 0% to {KEEP_FREE_PERCENT_MAX}%"
            )
        return {"keep_free_bytes": 0, "keep_free_percent": int(digits)}
    try:
        return {"keep_free_bytes": parse_size(value), "keep_free_percent": 0}
    except UsageError:
        raise UsageError(
            f"mount option keepfree={value}: a size or a percentage was expected, such as keepfree=10%"
        ) from None


def _parse_snapdir(name: str, value: str) -> str:
    if value not in (SNAPDIR_HIDDEN, SNAPDIR_VISIBLE, SNAPDIR_OFF):
        raise UsageError(f"mount option {name}={value}: one of hidden, visible, off was expected")
    return value


def _parse_uid(name: str, value: str) -> int:
    try:
        return _whole_number(name, value, 0, 0xFFFFFFFE) if value.isdigit() else pwd.getpwnam(value).pw_uid
    except KeyError:
        raise UsageError(f"mount option {name}={value}: there is no such user") from None


def _parse_gid(name: str, value: str) -> int:
    try:
        return _whole_number(name, value, 0, 0xFFFFFFFE) if value.isdigit() else grp.getgrnam(value).gr_gid
    except KeyError:
        raise UsageError(f"mount option {name}={value}: there is no such group") from None


@dataclass(frozen=True, slots=True)
class _Value:
    """An option with a value: the field it sets, how to read it, and what to call it in messages."""

    field: str
    parse: Callable[[str, str], int | float | str]
    shape: str


_VALUES: Final = {
    "uid": _Value("uid", _parse_uid, "UID"),
    "gid": _Value("gid", _parse_gid, "GID"),
    "fsync": _Value("fsync_mode", _parse_fsync, "0..4"),
    "skip_redo": _Value("skip_redo", _parse_skip_redo, "0..2"),
    "flush": _Value("flush_seconds", _parse_flush, "SECONDS"),
    "cache": _Value("cache_bytes", _parse_cache, "SIZE"),
    "tid": _Value("as_of", _parse_tid, "0x..."),
    "pfs": _Value("pfs", _parse_pfs, "ID"),
    "snapdir": _Value("snapdir", _parse_snapdir, "hidden|visible|off"),
    "offset": _Value("offset", _parse_offset, "BYTES"),
}
"""Options with a value."""
