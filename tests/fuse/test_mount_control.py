"""Administration of a mounted file system: its server is found from any path on it, and answers beside requests."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hammer_mount import HammerMount, hammerfs

from hammerfs.errors import UsageError
from hammerfs.vfs.controlclient import connected

pytestmark = pytest.mark.mount

Maker = Callable[[], HammerMount]
NOBODY = 65534
HAMMER = [sys.executable, "-m", "hammerfs.cli.hammer"]


def hammer(*words: str | Path, cwd: Path | None = None) -> str:
    """What `hammer` prints; it has to succeed."""
    done = subprocess.run([*HAMMER, *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_synctid_names_the_moment_of_the_call(here: Path) -> None:
    (here / "file").write_bytes(b"old")
    tid = hammer("synctid", here / "file").strip()
    (here / "file").write_bytes(b"new")
    assert (here / f"file@@{tid}").read_bytes() == b"old"
    (here / "sub").mkdir()
    assert int(hammer("synctid", ".", "quick", cwd=here / "sub"), 16) > int(tid, 16)


def test_both_commands_take_the_same_words(here: Path, module_mount: HammerMount) -> None:
    (here / "link").symlink_to(module_mount.path)
    told = json.loads(hammer("--json", "info", here / "link"))["filesystems"][0]
    assert told["volumes"] == [{"number": 0, "device": str(module_mount.image)}]
    assert told == json.loads(hammerfs("--json", "info", here / "link"))["filesystems"][0]
    assert f"\tFSID                {told['fsid']}\n" in hammer("info", here)
    everywhere = subprocess.run([*HAMMER, "info"], capture_output=True, text=True, check=False, timeout=60)
    assert told["fsid"] in everywhere.stdout


def test_what_is_mounted_and_what_is_not_say_the_same(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    mount.mount()
    (mount.path / "d").mkdir()
    hammer("synctid", mount.path)
    live = hammer("info", mount.path)
    mount.umount()
    assert hammer("-f", mount.image, "info", "/d") == live
    assert int(hammer("-f", mount.image, "synctid", "d"), 16)


def test_what_does_not_lie_on_a_mount_is_refused() -> None:
    done = subprocess.run([*HAMMER, "synctid", "/proc"], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (2, "hammer: /proc does not lie on a mounted HAMMER file system\n")


def test_a_mounted_image_is_not_opened_beside_its_server(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    mount.mount()
    done = subprocess.run([*HAMMER, "-f", mount.image, "info"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "is in use by process" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_another_user_is_refused(here: Path) -> None:
    os.seteuid(NOBODY)
    try:
        with pytest.raises(UsageError, match="only that user and root"), connected(str(here)):
            pass
    finally:
        os.seteuid(0)


def test_the_socket_goes_with_the_server(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    mount.mount()
    fsid = json.loads(hammer("--json", "info", mount.path))["filesystems"][0]["fsid"]
    folder = Path("/run/hammerfs") if os.geteuid() == 0 else Path(f"/run/user/{os.geteuid()}/hammerfs")
    assert (folder / f"{fsid}.sock").is_socket()
    mount.umount()
    assert not (folder / f"{fsid}.sock").exists()


def test_a_server_that_was_killed_is_told_in_a_sentence(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    mount.mount()
    mount.kill()
    done = subprocess.run([*HAMMER, "synctid", mount.path], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    mount.take_away()
    mount.mount()
    assert int(hammer("synctid", mount.path), 16)


def test_snapshots_of_a_mounted_file_system(here: Path, module_mount: HammerMount) -> None:
    (here / "file").write_bytes(b"old")
    hammer("snap", here / "root", "a note")
    hammer("snaplo", here / "this")
    path = hammer("snapq", here).strip()
    (here / "file").write_bytes(b"new")
    assert os.readlink(here / "root").startswith(f"{module_mount.path}/@@0x")
    for folder in (here / "root" / here.name, here / "this", Path(path)):
        assert (folder / "file").read_bytes() == b"old"
    tid = os.readlink(here / "root").rpartition("@@")[2]
    assert f"{tid}\t" in hammer("snapls", here)
    hammer("snaprm", "root", cwd=here)
    assert not (here / "root").is_symlink()
    assert f"{tid}\t" not in hammer("snapls", here)


def test_links_to_the_root_of_a_mount_lead_into_it(module_mount: HammerMount) -> None:
    """The name of a mount point lies in another file system, where it can take no suffix."""
    root = Path(module_mount.path)
    (root / "of the root").write_bytes(b"old")
    hammer("snaplo", root / "by its path")
    hammer("snaplo", "from inside", cwd=root)
    hammer("snaplo", ".", cwd=root)
    (by_folder,) = root.glob("snap-*")
    told = hammer("snapq", root).strip()
    (root / "of the root").write_bytes(b"new")
    links = [root / "by its path", root / "from inside", by_folder]
    for folder in (*links, Path(told)):
        assert (folder / "of the root").read_bytes() == b"old"
    hammer("snaprm", *links)
    assert not any(link.is_symlink() for link in links)
    (root / "of the root").unlink()


def test_a_pfs_of_a_mounted_file_system(here: Path) -> None:
    link = here / "pfs"
    hammer("pfs-master", link, "label=eins")
    (link / "dir").mkdir()
    (link / "dir" / "file").write_bytes(b"old")
    hammer("snap", link, "inside")
    (snapshot,) = link.glob("snap-*")
    (link / "dir" / "file").write_bytes(b"new")
    assert (snapshot / "dir" / "file").read_bytes() == b"old"
    hammer("pfs-downgrade", link)
    assert (link / "dir" / "file").read_bytes() == b"new"
    with pytest.raises(OSError, match="Read-only"):
        (link / "new").touch()
    hammer("pfs-upgrade", link)
    (link / "new").touch()
    open_file = (link / "dir" / "file").open("rb")
    with open_file:
        busy = subprocess.run([*HAMMER, "-dy", "pfs-destroy", link], capture_output=True, text=True, check=False)
    assert "files in it are open" in busy.stderr
    assert (link / "dir" / "file").read_bytes() == b"new"
    hammer("-dy", "pfs-destroy", link)
    assert not link.is_symlink()
    hammer("pfs-master", link)
    assert list(link.iterdir()) == []


def test_nothing_is_asked_before_a_destruction_that_cannot_be(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    mount.mount()
    hammer("pfs-master", mount.path / "pfs")
    mount.umount()
    mount.mount("ro")
    words = [*HAMMER, "-y", "pfs-destroy", mount.path / "pfs"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=4)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "hammer: the file system is read-only\n")


def test_a_working_directory_without_a_path_is_still_a_place(here: Path, module_mount: HammerMount) -> None:
    """The root of a PFS that became a slave is another directory for the kernel, and getcwd(3) fails in the old one."""
    pfs = module_mount.path / f"pfs-{here.name}"
    hammer("pfs-master", pfs)
    script = f'"$@" pfs-downgrade ../{pfs.name} >&2; "$@" pfs-status; "$@" snapls ../{here.name}'
    words = ["sh", "-c", script, "sh", *HAMMER]
    done = subprocess.run(words, cwd=pfs, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    assert done.stdout.startswith(".\tPFS#")
    assert "operating as a SLAVE" in done.stdout
    assert f"Snapshots on ../{here.name}\tPFS#0" in done.stdout
    hammer("-dy", "pfs-destroy", pfs)


def test_a_link_that_fails_takes_its_snapshot_back(here: Path, tmp_path: Path) -> None:
    before = hammer("snapls", here)
    (here / "change").touch()
    long = here / ("x" * 300)
    for words in (["snap", long], ["snaplo", long], ["snapshot", here, long], ["snapshot", here, "/proc/link"]):
        done = subprocess.run([*HAMMER, *words], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 2
        assert done.stderr.startswith(f"hammer: cannot make the softlink {words[-1]}: ")
        assert done.stderr.endswith("; no snapshot was made\n")
    assert hammer("snapls", here) == before


def test_a_pfs_is_destroyed_beside_a_writer(hammer_mount: Maker) -> None:
    mount = hammer_mount()
    mount.mount()
    link = mount.path / "pfs"
    hammer("pfs-master", link)
    for number in range(300):
        (link / f"file{number}").write_bytes(b"x" * 5000)
    with subprocess.Popen([*HAMMER, "-dy", "pfs-destroy", link], stdout=subprocess.DEVNULL) as destroyer:
        written = 0
        while destroyer.poll() is None:
            (mount.path / f"beside{written}").write_bytes(b"content")
            written += 1
        assert destroyer.returncode == 0
    assert written
    assert (mount.path / f"beside{written - 1}").read_bytes() == b"content"


def test_counters_count_what_happens(here: Path) -> None:
    def counters() -> dict[str, dict[str, int]]:
        told: dict[str, dict[str, int]] = json.loads(hammer("--json", "stats", "1", here))["counters"]
        return told

    before = counters()
    (here / "file").write_bytes(b"x" * 100_000)
    hammer("synctid", here)
    after = counters()
    assert after["io"]["file_write"] - before["io"]["file_write"] == 100_000
    assert after["io"]["disk_write"] - before["io"]["disk_write"] > 100_000
    for group, name in (("io", "commits"), ("io", "inode_flushes"), ("io", "undo"), ("btree", "inserts")):
        assert after[group][name] > before[group][name]
    shown = hammer("-t", "1", "iostats", "0.2", here).splitlines()
    assert shown[0] == "   f_read   f_write    d_read   d_write i_flushes   commits      undo      redo"
    assert all(len(line) == len(shown[0]) for line in shown)
    assert len(shown) > 2
    assert hammer("-t", "1", "bstats", "0.5", here).splitlines()[0].split()[0] == "lookups"


def test_stats_of_all_go_on_when_one_is_unmounted(hammer_mount: Maker) -> None:
    first, second = hammer_mount(), hammer_mount()
    first.mount()
    second.mount()
    with subprocess.Popen([*HAMMER, "-t", "60", "iostats", "0.1"], stdout=subprocess.PIPE, text=True) as watcher:
        assert watcher.stdout is not None
        try:
            watcher.stdout.readline()
            assert len(watcher.stdout.readline().split()) == 8
            first.umount()  # which watching does not prevent
            for _ in range(3):
                watcher.stdout.readline()
            (second.path / "file").write_bytes(b"x" * 100_000)
            assert any(int(watcher.stdout.readline().split()[1]) >= 100_000 for _ in range(20))
        finally:
            watcher.send_signal(signal.SIGINT)
    second.umount()


@pytest.mark.parametrize("before", ["3", "5"])
def test_the_version_of_a_mounted_file_system_is_raised(tmp_path: Path, before: str) -> None:
    mount = HammerMount(tmp_path, size="512M", mkfs=("-f", "-u", "16M", "-V", before))
    try:
        mount.mount()
        (mount.path / "before").write_bytes(b"content" * 1000)
        assert f"current={before}" in hammer("version", mount.path)
        hammer("version-upgrade", mount.path, "7")
        (mount.path / "after").write_bytes(b"content" * 1000)
        assert "current=7" in hammer("version", mount.path)
        mount.umount()
        mount.check()
        mount.mount()
        assert (mount.path / "before").read_bytes() == (mount.path / "after").read_bytes() == b"content" * 1000
        mount.umount()
    finally:
        mount.remove()
