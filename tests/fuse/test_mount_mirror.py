"""Mirroring between two mounted file systems: copies, streams, a link over a remote shell that is cut, promotion."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from hammer_mount import HammerMount
from mirror_images import change, check, new_image, slave_tree
from mirror_pair import make_slave

from hammerfs.fs.mount import FileSystem

pytestmark = pytest.mark.mount

HAMMER = [sys.executable, "-m", "hammerfs.cli.hammer"]
HAMMERFS = [sys.executable, "-m", "hammerfs.cli.main"]
SECONDS_MAX = 120
REMOTE_SHELL = """#!{python}
# Called as [-l user] host command...; notes that down, and cuts the link after $LINK_BYTES bytes.
import os, subprocess, sys
with open(sys.argv[0] + ".log", "a") as log:
    print(*sys.argv[1:], file=log)
os.environ["SSH_ORIGINAL_COMMAND"] = " ".join(sys.argv[sys.argv.index("hammer"):])
words = [sys.executable, "-m", "hammerfs.cli.hammer", "ssh-remote", "mirror-read,mirror-read-stream", "{tree}"]
left = int(os.environ.get("LINK_BYTES", "0"))
if not left:
    os.execv(words[0], words)
child = subprocess.Popen(words, stdout=subprocess.PIPE)
while left and (piece := child.stdout.read1(left)):
    os.write(1, piece)
    left -= len(piece)
child.kill()
child.wait()
"""


def attempt(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*HAMMER, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS_MAX,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


def hammer(*words: str | Path, **environment: str) -> str:
    """What `hammer` prints; it has to succeed."""
    done = attempt(*words, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[HammerMount, HammerMount]]:
    """Two file systems for all tests, checked after the last."""
    mounts = [HammerMount(tmp_path_factory.mktemp(name), size="512M", mkfs=("-f", "-u", "16M")) for name in "ab"]
    try:
        for mount in mounts:
            mount.mount()
        yield mounts[0], mounts[1]
        for mount in mounts:
            mount.umount()
            mount.check()
    finally:
        for mount in mounts:
            mount.remove()


@pytest.fixture
def pair(hosts: tuple[HammerMount, HammerMount], request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """A master PFS with something in it, and where its slave will be."""
    source, target = (host.path / request.node.originalname for host in hosts)
    source.mkdir()
    target.mkdir()
    master = source / "master"
    hammer("pfs-master", master)
    (master / "folder").mkdir()
    for number in range(30):
        (master / "folder" / f"file{number}").write_bytes(bytes([number]) * number * 5000)
    (master / "link").symlink_to("folder/file3")
    return master, target / "slave"


def assert_equal(master: Path, slave: Path) -> None:
    """`diff -r` finds nothing, not even of links."""
    done = subprocess.run(
        ["diff", "-r", "--no-dereference", f"{master}/", f"{slave}/"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def shell(folder: Path, tree: Path) -> Path:
    """A remote shell that leads back here, to whom only one tree is open."""
    program = folder / "rsh"
    program.write_text(REMOTE_SHELL.replace("{python}", sys.executable).replace("{tree}", str(tree)))
    program.chmod(0o755)
    return program


def slave_image(path: Path, shared: str) -> Path:
    """An image with an empty slave, /slave, of the master with that uuid."""

    def prepare(fs: FileSystem) -> None:
        make_slave(fs, shared=uuid.UUID(shared))
        fs.symlink(fs.root, b"slave", b"@@PFS00001", 0, 0)

    change(new_image(path), prepare)
    return path


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.2)


def test_a_copy_equals_its_master_and_is_read_only(pair: tuple[Path, Path]) -> None:
    master, slave = pair
    hammer("-y", "mirror-copy", master, slave)
    assert_equal(master, slave)
    with pytest.raises(OSError, match="Read-only"):
        (slave / "new").write_bytes(b"")
    seen = os.readlink(slave)
    (master / "folder" / "file7").unlink()
    (master / "new").write_bytes(b"new" * 100_000)
    hammer("mirror-copy", master, slave)
    assert os.readlink(slave) != seen
    assert_equal(master, slave)
    assert_equal(master, slave / ".hammer" / "latest")
    done = attempt("mirror-copy", slave, master)
    assert done.returncode != 0
    assert "target must be in slave mode" in done.stderr


def test_a_link_over_a_remote_shell_that_is_cut_is_taken_up_again(pair: tuple[Path, Path], tmp_path: Path) -> None:
    master, slave = pair
    program = shell(tmp_path, master.parent)
    hammer("pfs-slave", slave, f"shared-uuid={_shared(master)}")
    remote = f"me@elsewhere:{master}"
    for size in ("100", "100000", "1000001"):
        done = attempt("mirror-copy", remote, slave, HAMMER_RSH=str(program), LINK_BYTES=size)
        assert done.returncode != 0
        assert "Traceback" not in done.stderr
    hammer("-X", "mirror-copy", remote, slave, HAMMER_RSH=str(program))
    assert_equal(master, slave)
    calls = (tmp_path / "rsh.log").read_text().splitlines()
    assert calls[0] == f"-l me elsewhere hammer -2 mirror-read {master}"
    assert calls[-1].startswith("-C -l me elsewhere hammer -2")
    done = attempt("mirror-copy", "elsewhere:/etc", slave, HAMMER_RSH=str(program))
    assert done.returncode != 0
    assert "restricted target" in done.stderr


def test_a_mounted_master_is_copied_to_an_image_and_back(
    pair: tuple[Path, Path], hosts: tuple[HammerMount, HammerMount], tmp_path: Path
) -> None:
    """An empty -f means what is mounted; what is mounted cannot be opened beside that."""
    master, slave = pair
    image = new_image(tmp_path / "image")
    hammer("-y", "-f", "", "-f", image, "mirror-copy", master, "/kept")
    (master / "later").write_bytes(b"later")
    hammer("-f", "", "-f", image, "mirror-copy", master, "/kept")
    hammer("-y", "-f", image, "-f", "", "mirror-copy", "/kept", slave)
    assert_equal(master, slave)
    done = attempt("-f", image, "-f", hosts[0].image, "mirror-copy", "/kept", "/elsewhere")
    assert done.returncode != 0
    assert "is in use by process" in done.stderr


def test_an_image_follows_a_mounted_master(pair: tuple[Path, Path], tmp_path: Path) -> None:
    master, _ = pair
    image = slave_image(tmp_path / "image", _shared(master))
    words = [*HAMMER, "-vv", "-i", "0", "-f", "", "-f", str(image), "mirror-stream", str(master), "/slave"]
    stream = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert stream.stderr is not None
    try:
        for name in (b"first", b"second"):
            (master / name.decode()).write_bytes(name)
            hammer("synctid", master)
            _until_sent(stream.stderr, _made_by(master / name.decode()))
        stream.terminate()
        assert stream.wait(SECONDS_MAX) != 0
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(stream.pid, 9)
        stream.wait(SECONDS_MAX)
        stream.stderr.close()
    check(image)
    assert {b"/first", b"/second", b"/folder/file29"} <= slave_tree(image).keys()


def _made_by(path: Path) -> int:
    """The TID that a file was made by."""
    told = subprocess.run([*HAMMERFS, "log", "--json", path], capture_output=True, check=True).stdout
    return int(json.loads(told)["paths"][0]["entries"][-1]["tid"], 16)


def _until_sent(told: IO[str], tid: int) -> None:
    """Until both ends of a stream say that a batch has arrived that holds a TID."""
    end = 0
    while line := told.readline():
        if sent := re.match(r"Mirror-read: Mirror \w+ to (\w+)", line):
            end = int(sent.group(1), 16)
        if "Mirror-write /slave: succeeded" in line and end >= tid:
            return
    pytest.fail("the stream has ended")


def _shared(path: Path) -> str:
    return next(line for line in hammer("pfs-status", path).splitlines() if "shared-uuid" in line).partition("=")[2]


def test_a_stream_follows_its_master(pair: tuple[Path, Path]) -> None:
    master, slave = pair
    hammer("pfs-slave", slave, f"shared-uuid={_shared(master)}")
    stream = subprocess.Popen([*HAMMER, "-q", "-i", "0", "mirror-stream", master, slave], start_new_session=True)
    try:
        until(lambda: (slave / "folder" / "file29").exists())
        (master / "later").write_bytes(b"later")
        until(lambda: (slave / "later").exists())
        stream.terminate()
        assert stream.wait(SECONDS_MAX) != 0
        with pytest.raises(ProcessLookupError):  # both ends have gone with it
            os.killpg(stream.pid, 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(stream.pid, 9)
        stream.wait(SECONDS_MAX)
    assert_equal(master, slave)


def test_an_idle_stream_ends_at_once(pair: tuple[Path, Path]) -> None:
    master, _ = pair
    for how, code in (("nobody reads", 141), ("interrupted", 130)):
        _end_idle_stream(master, how, code)


def _end_idle_stream(master: Path, how: str, code: int) -> None:
    words = [*HAMMER, "-vv", "mirror-read-stream", str(master), "0x7000000000000000"]
    sender = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert sender.stdout is not None
    assert sender.stderr is not None
    try:
        while "Waiting" not in sender.stderr.readline():
            assert sender.poll() is None
        if how == "interrupted":
            sender.send_signal(signal.SIGINT)
        else:
            sender.stdout.close()
        assert sender.wait(SECONDS_MAX) == code
        assert "Traceback" not in sender.stderr.read()
    finally:
        sender.kill()
        sender.wait()
        for stream in (sender.stdout, sender.stderr):
            stream.close()


def test_a_slave_that_was_promoted_takes_no_more_and_can_be_mirrored_back(pair: tuple[Path, Path]) -> None:
    master, slave = pair
    hammer("-y", "mirror-copy", master, slave)
    hammer("pfs-upgrade", slave)
    hammer("pfs-downgrade", master)
    done = attempt("mirror-copy", master, slave)
    assert done.returncode != 0
    (slave / "written here").write_bytes(b"at the new master")
    hammer("mirror-copy", slave, master)
    assert (master / "written here").read_bytes() == b"at the new master"
    assert_equal(slave, master)
