"""`hammerfs umount` before it asks anybody to unmount: whose mount it is."""

from __future__ import annotations

from argparse import Namespace

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
