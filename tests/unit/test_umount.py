"""`hammerfs umount` before it asks anybody to unmount: whose mount it is."""

from __future__ import annotations

import os
from argparse import Namespace
from subprocess import CompletedProcess

import pytest

from hammerfs.cli import umount
from hammerfs.vfs.mounttable import FILESYSTEM_KIND, Mount


@pytest.mark.parametrize(("user", "owner"), [(1001, 1000), (1001, 0)])
def test_a_mount_of_somebody_else_is_refused_in_words_that_say_whose_it_is(
    user: int, owner: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """fusermount3 says that the mount is not in /etc/mtab, which helps nobody."""
    mounted = Mount(device="0:99", path="/mnt", kind=FILESYSTEM_KIND, source="/an.img", owner=owner)
    monkeypatch.setattr(umount, "mount_at", lambda path: mounted)
    monkeypatch.setattr("os.geteuid", lambda: user)
    with pytest.raises(umount.UnmountError, match=f"mounted by user {owner}; only that user and root") as refusal:
        umount.run(Namespace(mountpoint="/mnt"))
    assert refusal.value.exit_code == 1


@pytest.mark.parametrize("said", ["Device or resource busy", "Operation not permitted"])
def test_who_cannot_unmount_learns_what_to_do(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted = Mount(device="0:99", path="/mnt/a b", kind=FILESYSTEM_KIND, source="/an.img", owner=os.geteuid())
    failed = CompletedProcess([], 1, "", f"fusermount3: failed to unmount /mnt/a b: {said}\n")
    monkeypatch.setattr(umount, "GLANCE_SECONDS", 0.0)
    monkeypatch.setattr(umount, "mount_at", lambda path: mounted)
    monkeypatch.setattr(umount, "read_note", lambda path, owner: None)
    monkeypatch.setattr("subprocess.run", lambda *words, **how: failed)
    with pytest.raises(umount.UnmountError) as refusal:
        umount.run(Namespace(mountpoint="/mnt/a b"))
    assert str(refusal.value).startswith(f"cannot unmount /mnt/a b: {said}")
    assert str(refusal.value).endswith(": fuser -vm '/mnt/a b')") == ("busy" in said)
