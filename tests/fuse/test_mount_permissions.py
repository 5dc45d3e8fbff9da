"""Other users on a mount with `allow_other`: what modes and owners forbid is forbidden, in the present and in the past.

The kernel checks (`default_permissions`), with what the server says about owners and modes; these tests act as nobody.
"""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import SIZE, SMALL
from hammer_mount import HammerMount, hammerfs
from syscalls import NOBODY, as_nobody

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.geteuid() != 0, reason="acts as another user, which needs root"),
]

DENIED = "Permission denied"
NOT_PERMITTED = "Operation not permitted"
READ_ONLY = "Read-only file system"


@pytest.fixture(autouse=True)
def ordinary_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def tree(here: Path) -> Path:
    """Root's files of several modes, one of nobody's, in a folder that everybody may search but not write."""
    here.chmod(0o755)
    for name, mode in (("public", 0o644), ("private", 0o600), ("write-only", 0o622)):
        (here / name).write_bytes(b"secret of " + name.encode())
        (here / name).chmod(mode)
    (here / "theirs").write_bytes(b"theirs")
    os.chown(here / "theirs", NOBODY, NOBODY)
    (here / "closed").mkdir(0o700)
    (here / "closed" / "inside").write_bytes(b"inside")
    (here / "listed").mkdir(0o744)
    (here / "listed" / "name").write_bytes(b"x")
    return here


@pytest.mark.parametrize(
    ("script", "refusal"),
    [
        ('cat "$1/private"', DENIED),
        ('cat "$1/write-only"', DENIED),
        ('cat "$1/closed/inside"', DENIED),
        ('ls "$1/closed"', DENIED),
        ('cat "$1/listed/name"', DENIED),
        ('echo x > "$1/public"', DENIED),
        ('echo x >> "$1/private"', DENIED),
        ('truncate -s 0 "$1/public"', DENIED),
        ('touch "$1/new"', DENIED),
        ('mkdir "$1/new"', DENIED),
        ('ln -s target "$1/new"', DENIED),
        ('mkfifo "$1/new"', DENIED),
        ('rm -f "$1/public"', DENIED),
        ('rm -f "$1/theirs"', DENIED),
        ('rmdir "$1/closed"', DENIED),
        ('mv "$1/public" "$1/other"', DENIED),
        ('mv "$1/theirs" "$1/public"', DENIED),
        ('chmod 777 "$1/public"', NOT_PERMITTED),
        ('chown 65534 "$1/public"', NOT_PERMITTED),
        ('chown 0 "$1/theirs"', NOT_PERMITTED),
        ('touch -d 2000-01-01 "$1/public"', DENIED),
        ('touch -a -d 2000-01-01 "$1/private"', DENIED),
        ('cat "$1/@@0x0000000100000000/private" "$1@@0x7fffffffffffffff/private"', "No such file"),
    ],
)
def test_what_modes_forbid_is_refused_and_leaves_no_trace(tree: Path, script: str, refusal: str) -> None:
    before = snapshot(tree)
    done = as_nobody(script, tree)
    assert done.returncode != 0
    assert refusal in done.stderr
    assert "secret" not in done.stdout
    assert snapshot(tree) == before


def snapshot(top: Path) -> dict[str, tuple[int, ...]]:
    return {
        str(path): (path.lstat().st_mode, path.lstat().st_uid, path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in (top, *top.rglob("*"))
    }


def test_what_modes_allow_works(tree: Path) -> None:
    script = 'cd "$1" && cat public && echo more >> write-only && echo mine > theirs && chmod 600 theirs && cat theirs'
    done = as_nobody(script, tree)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "secret of publicmine\n"
    assert (tree / "write-only").read_bytes() == b"secret of write-onlymore\n"
    assert stat.S_IMODE((tree / "theirs").stat().st_mode) == 0o600


def test_groups_count(tree: Path) -> None:
    (tree / "group").write_bytes(b"for the group")
    os.chown(tree / "group", 0, 4242)
    (tree / "group").chmod(0o640)
    assert DENIED in as_nobody('cat "$1/group"', tree).stderr
    command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--groups=4242", "cat", tree / "group"]
    assert subprocess.run(command, capture_output=True, check=True).stdout == b"for the group"


def test_in_a_sticky_directory_only_owners_remove(here: Path) -> None:
    here.chmod(0o1777)
    (here / "roots").touch()
    assert as_nobody('touch "$1/nobodys"', here).returncode == 0
    assert NOT_PERMITTED in as_nobody('rm -f "$1/roots"', here).stderr
    assert NOT_PERMITTED in as_nobody('mv "$1/roots" "$1/moved"', here).stderr
    assert NOT_PERMITTED in as_nobody('mv "$1/nobodys" "$1/roots"', here).stderr
    assert as_nobody('rm "$1/nobodys"', here).returncode == 0


def test_suid_programs_and_device_nodes_are_inert(here: Path) -> None:
    """nosuid and nodev: an image from elsewhere gives nobody root's rights, nor a way to the machine's devices."""
    os.mknod(here / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (here / "null").chmod(0o666)
    assert DENIED in as_nobody('echo x > "$1/null"', here).stderr
    with pytest.raises(PermissionError):
        (here / "null").read_bytes()
    program = here / "id"
    program.write_bytes(Path("/usr/bin/id").read_bytes())
    program.chmod(0o4755)
    done = as_nobody('"$1/id" -u', here)
    assert done.stdout.strip() == str(NOBODY), "it ran, and as who called it"


def test_a_symlink_is_followed_by_the_kernel_of_whoever_follows_it(here: Path, tmp_path: Path) -> None:
    """It leads where it says in the reader's tree, with the reader's rights; the server opens nothing."""
    outside = tmp_path / "outside"
    outside.write_bytes(b"outside")
    outside.chmod(0o600)
    (here / "absolute").symlink_to(outside)
    (here / "upwards").symlink_to("../" * 40 + "etc/hostname")
    (here / "loop").symlink_to("loop")
    assert (here / "absolute").read_bytes() == b"outside"
    assert DENIED in as_nobody('cat "$1/absolute"', here).stderr
    assert (here / "upwards").read_bytes() == Path("/etc/hostname").read_bytes()
    with pytest.raises(OSError, match="symbolic links") as caught:
        (here / "loop").read_bytes()
    assert caught.value.errno == errno.ELOOP
    assert as_nobody('rm -f "$1/absolute"', here).returncode == 0
    assert outside.read_bytes() == b"outside", "the link goes, not what it leads to"


def test_without_allow_other_nobody_else_gets_in(hammer_mount: Callable[[], HammerMount]) -> None:
    mount = hammer_mount()
    mount.mount()
    mount.path.chmod(0o777)
    for parent in (mount.path.parent, *mount.path.parent.parents[:3]):
        if parent.stat().st_mode & 0o001 == 0 and str(parent) != "/":
            parent.chmod(0o711)
    assert DENIED in as_nobody('ls "$1"', mount.path).stderr


ACT_AS_NOBODY = """
import ctypes, os, sys
os.chdir(sys.argv[1])
ctypes.CDLL(None).setfsuid(65534)
for act in (
    lambda: open("file"),
    lambda: os.open("file", os.O_WRONLY),
    lambda: os.truncate("file", 0),
    lambda: os.chmod("file", 0o777),
    lambda: os.chown("file", 65534, 65534),
    lambda: os.unlink("file"),
    lambda: os.rename("file", "renamed"),
    lambda: os.link("file", "linked"),
    lambda: os.mkdir("made"),
    lambda: os.rmdir("empty"),
    lambda: os.symlink("x", "made"),
    lambda: os.listdir("empty"),
    lambda: open("made", "w"),
):
    try:
        act()
    except PermissionError:
        continue
    sys.exit("done, though nobody may")
"""


@pytest.mark.parametrize("option", ["rw", "default_permissions", "allow_other"])
def test_a_server_of_root_may_do_for_nobody_what_nobody_may(
    hammer_mount: Callable[[], HammerMount], option: str
) -> None:
    """As nfsd does: FUSE looks at the real and the effective user, who stays root, and lets it in."""
    mount = hammer_mount()
    mount.mount(option)
    mount.path.chmod(0o755)
    (mount.path / "file").write_bytes(b"of root")
    (mount.path / "file").chmod(0o600)
    (mount.path / "empty").mkdir(0o700)
    before = snapshot(mount.path)
    done = subprocess.run([sys.executable, "-c", ACT_AS_NOBODY, mount.path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert snapshot(mount.path) == before
    mount.path.chmod(0o700)
    (mount.path / "file").write_bytes(b"root still may")


# --- the past -----------------------------------------------------------------------------------
@pytest.fixture
def history(open_folder: Path) -> Iterator[tuple[HammerMount, str]]:
    """A mount with `allow_other`, and the name suffix of a moment in which everything was private."""
    folder = open_folder / "history"
    folder.mkdir()
    mount = HammerMount(folder, size=SIZE, mkfs=SMALL)
    try:
        mount.mount("allow_other")
        (mount.path / "file").write_bytes(b"old secret")
        (mount.path / "file").chmod(0o600)
        (mount.path / "all").write_bytes(b"old, for all")
        descriptor = os.open(mount.path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
        moment = newest_tid(mount)
        (mount.path / "file").write_bytes(b"new, for all")
        (mount.path / "file").chmod(0o644)
        (mount.path / "all").unlink()
        yield mount, f"@@{moment}"
        mount.umount()
        mount.check()
    finally:
        mount.remove()


def newest_tid(mount: HammerMount) -> str:
    """The TID of the last flush, read from a copy of the image that is being served."""
    copy = mount.image.with_name("copy.img")
    subprocess.run(["cp", "--sparse=always", mount.image, copy], check=True)
    try:
        shown = hammerfs("show", copy)
    finally:
        copy.unlink()
    return "0x" + max(word.partition("=")[2] for word in shown.split() if word.startswith("tid="))


def test_the_past_keeps_the_permissions_it_had_and_cannot_be_changed(history: tuple[HammerMount, str]) -> None:
    mount, moment = history
    past = mount.path / moment
    assert (past / "file").read_bytes() == b"old secret"
    assert as_nobody('cat "$1"', mount.path / "file").stdout == "new, for all"
    assert DENIED in as_nobody('cat "$1"', past / "file").stderr
    assert as_nobody('cat "$1"', past / "all").stdout == "old, for all"
    for script in (
        'echo x > "$1/all"',
        'echo x >> "$1/all"',
        'truncate -s 0 "$1/all"',
        'touch "$1/new"',
        'mkdir "$1/new"',
        'rm "$1/all"',
        'mv "$1/all" "$1/other"',
        'ln "$1/all" "$1/other"',
        'chmod 777 "$1/all"',
        'chown 65534 "$1/all"',
        'touch -d 2000-01-01 "$1/all"',
    ):
        done = subprocess.run(["/bin/sh", "-c", script, "sh", past], capture_output=True, text=True, check=False)
        assert done.returncode != 0, script
        assert READ_ONLY in done.stderr, (script, done.stderr)
    assert sorted(os.listdir(past)) == ["all", "file"]


@pytest.mark.parametrize("options", [[], ["default_permissions"]])
def test_access_tells_root_what_it_may(hammer_mount: Callable[[], HammerMount], options: list[str]) -> None:
    """Nobody runs what no x bit allows to; all else is allowed, but to change the past."""
    mount = hammer_mount()
    mount.mount(*options)
    secret, folder = mount.path / "secret", mount.path / "folder"
    secret.write_bytes(b"x")
    secret.chmod(0o000)
    folder.mkdir(mode=0o000)
    os.mkfifo(mount.path / "fifo", 0o600)
    assert not os.access(mount.path / "fifo", os.X_OK)
    assert os.access(secret, os.R_OK | os.W_OK)
    assert not os.access(secret, os.X_OK)
    secret.chmod(0o001)
    assert os.access(secret, os.R_OK | os.W_OK | os.X_OK)
    assert os.access(folder, os.R_OK | os.W_OK | os.X_OK)
    moment = hammerfs("synctid", mount.path).split()[-1]
    past = mount.path / f"@@{moment}"
    secret.chmod(0o600)
    assert os.access(past / "secret", os.R_OK | os.X_OK)
    if not options:  # the kernel knows modes, and nothing of the past
        assert not os.access(past / "secret", os.W_OK)
        assert not os.access(past / "folder", os.W_OK)
    done = subprocess.run(
        ["/bin/sh", "-c", 'cd "$1/folder" && pwd', "sh", mount.path], capture_output=True, check=False
    )
    assert done.returncode == 0


# --- pseudo file systems ------------------------------------------------------------------------
def test_there_is_no_way_out_of_a_pfs(golden_image: Callable[[str], Path], open_folder: Path) -> None:
    """Mounted by itself it is a whole tree: its root is the top, and no name leads out of it."""
    image = golden_image("g5-pfs")
    point = open_folder / "pfs"
    point.mkdir()
    hammerfs("mount", image, point)
    whole = set(os.listdir(point))
    hammerfs("umount", point)
    hammerfs("mount", "-o", "pfs=1,allow_other", image, point)
    try:
        inside = set(os.listdir(point))
        assert inside != whole
        assert set(os.listdir(point / "..")) == set(os.listdir(open_folder)), (
            "the kernel's way up, to the mount's parent"
        )
        assert point.stat().st_ino == 1
        folder = next(path for path in point.iterdir() if path.is_dir() and not path.is_symlink())
        assert os.path.samefile(folder / "..", point)
        for name in ("@@-1:00000", "@@-1:00002", f"{folder.name}/@@-1:00000", "@@0xffffffffffffffff:00000"):
            with pytest.raises(FileNotFoundError):
                os.listdir(point / name)
        for name in ("@@-1:00001", "@@-1", f"{folder.name}/@@-1"):
            assert os.path.samefile(point / name, (point / name).parent)
            assert os.listdir(point / name) == os.listdir((point / name).parent)
        with pytest.raises(OSError, match="Too many levels") as caught:
            os.listdir(folder / "@@-1:00001")
        assert caught.value.errno == errno.ELOOP
        with pytest.raises(OSError, match="Invalid cross-device link") as caught:
            os.link(next(path for path in point.rglob("*") if path.is_file()), open_folder / "out")
        assert caught.value.errno == errno.EXDEV
    finally:
        hammerfs("umount", point)
