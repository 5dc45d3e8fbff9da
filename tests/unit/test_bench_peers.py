"""How `scripts/bench` finds s3ql, which lives in folders and has an unmount command of its own, and clears it away."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bench_lib import peers
from bench_lib.aged import aged
from bench_lib.main import choose_peers, run_workloads
from bench_lib.measure import MIB, Bench
from bench_lib.peers import KINDS, UMOUNT, BenchError, Peer, is_alive, pids_with_argument, s3ql
from bench_lib.report import Repetition

PROGRAMS = ("mkfs.s3ql", "mount.s3ql", "umount.s3ql")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that note how they are called; fuser alone, beside what is everywhere, is on PATH."""
    folder, on_path = tmp_path / "its programs", tmp_path / "bin"
    for where, names in ((folder, PROGRAMS), (on_path, ("fuser",))):
        where.mkdir()
        for name in names:
            (where / name).write_text(f'#!/bin/sh\nprintf "%s\\n" "${{0##*/}} $*" >>"{tmp_path}/calls"\n')
            (where / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{on_path}:/usr/bin:/bin")
    return folder


@pytest.fixture
def peer(tmp_path: Path, programs: Path) -> Peer:
    folder = tmp_path / "work"
    folder.mkdir()
    return Peer(s3ql(str(programs)), folder, 8 * MIB)


@pytest.fixture
def calls(tmp_path: Path) -> Callable[[], list[str]]:
    """What was called since it was last asked."""
    file = tmp_path / "calls"

    def told() -> list[str]:
        lines = file.read_text().splitlines()
        file.unlink()
        return [line.replace(str(tmp_path / "work"), "WORK") for line in lines]

    return told


@pytest.fixture
def mounted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What counts as mounted."""
    points: list[Path] = []
    monkeypatch.setattr(peers, "is_mounted", lambda folder: folder in points)
    return points


def process_at(mountpoint: Path, seconds: float) -> subprocess.Popen[bytes]:
    """Something that looks like a server of that mount, for a while."""
    return subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({seconds})", mountpoint])


def test_s3ql_is_found_in_the_folder_that_is_named_or_on_the_path(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert s3ql(str(programs)).missing() == []
    assert s3ql(str(programs.parent)).missing() == [str(programs.parent / name) for name in PROGRAMS]
    monkeypatch.setenv("PATH", f"{programs.parent}/bin")
    assert s3ql("").missing() == [*PROGRAMS]
    monkeypatch.setenv("PATH", f"{programs}")
    assert s3ql("").missing() == ["fuser"]


def test_s3ql_takes_part_only_by_name_and_only_where_it_is_found(
    programs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(KINDS, "s3ql", s3ql(str(programs)))
    assert [kind.name for kind in choose_peers(["s3ql"])] == ["s3ql"]
    assert "s3ql" not in [kind.name for kind in choose_peers(None)]
    capsys.readouterr()
    (programs / "mount.s3ql").unlink()
    assert choose_peers(["s3ql"]) == []
    assert f"without s3ql: not installed: {programs}/mount.s3ql" in capsys.readouterr().err


def test_s3ql_is_made_in_folders_beside_the_images_and_nothing_of_it_stays(
    peer: Peer, calls: Callable[[], list[str]], tmp_path: Path
) -> None:
    for _ in range(2):
        peer.make()
        assert calls() == [
            "mkfs.s3ql --plain --authfile /dev/null --cachedir WORK/s3ql.img.cache local://WORK/s3ql.img.backend"
        ]
        assert {path.name for path in (tmp_path / "work").iterdir()} == {
            "s3ql.img.backend",
            "s3ql.img.cache",
            "s3ql.mnt",
        }
        # A second time it starts afresh.
        assert not list((tmp_path / "work").glob("*/*"))
        (tmp_path / "work" / "s3ql.img.backend" / "object").touch()
    peer.remove()
    assert list((tmp_path / "work").iterdir()) == []


def test_its_server_stays_in_the_foreground_and_is_found_by_its_mount_point(
    peer: Peer, calls: Callable[[], list[str]], programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.make()
    with pytest.raises(BenchError, match="not mounted"):
        peer.mount()
    calls()
    mount, is_there = programs / "mount.s3ql", Path(f"{peer.mountpoint}.is-there")
    serve = f"touch {is_there}; exec {sys.executable} -c 'import time; time.sleep(60)' \"$@\""
    mount.write_text(f"{mount.read_text()}{serve}\n")
    monkeypatch.setattr(peers, "is_mounted", lambda folder: is_there.exists())
    peer.mount()
    is_there.unlink()
    server = peer.server
    assert server is not None
    assert is_alive(server)
    peer.remove()
    assert not is_alive(server)
    assert calls() == [
        "mount.s3ql --fg --quiet --authfile /dev/null --cachedir WORK/s3ql.img.cache --log WORK/s3ql.img.cache/log "
        "local://WORK/s3ql.img.backend WORK/s3ql.mnt"
    ]


def test_it_is_unmounted_by_its_own_command_and_its_server_is_waited_for(
    peer: Peer, calls: Callable[[], list[str]]
) -> None:
    with process_at(peer.mountpoint, 0.3) as server:
        peer.server = server.pid
        looks = []
        peer.umount(lambda: looks.append(is_alive(server.pid)))
        assert not is_alive(server.pid)
    assert peer.server is None
    assert True in looks
    assert calls() == ["umount.s3ql WORK/s3ql.mnt"]


def test_what_hangs_is_ended_when_a_round_is_given_up(peer: Peer, mounted: list[Path], tmp_path: Path) -> None:
    peer.make()
    with process_at(peer.mountpoint, 60) as server, process_at(peer.mountpoint, 60) as unmounting:
        while len(pids_with_argument(str(peer.mountpoint))) < 2:
            # Between fork and exec they have this process' arguments.
            assert server.poll() is unmounting.poll() is None
        peer.remove()
        assert server.wait() < 0
        assert unmounting.wait() < 0
    assert list((tmp_path / "work").iterdir()) == []


def test_one_beside_another_goes_with_it_even_when_nobody_has_unmounted_it(peer: Peer, tmp_path: Path) -> None:
    peer.make()
    beside = peer.beside()
    beside.make()
    assert beside.mountpoint not in (peer.mountpoint, peer.image)
    with process_at(beside.mountpoint, 60) as server:
        while not pids_with_argument(str(beside.mountpoint)):
            assert server.poll() is None
        peer.remove()
        assert server.wait() < 0
    assert list((tmp_path / "work").iterdir()) == []


def test_a_dead_mount_is_cleared_away_by_the_kernels_command(
    peer: Peer, mounted: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    peer.make()
    mounted.append(peer.mountpoint)
    commands: list[str] = []
    monkeypatch.setattr(peers, "run", commands.append)
    peer.remove()
    assert commands == [f"{UMOUNT} -l".format(mnt=peer.mountpoint)]


def test_a_workload_without_a_mount_does_not_measure_the_disk_below(peer: Peer, tmp_path: Path) -> None:
    peer.mountpoint.mkdir()
    bench, repetition = Bench(peer, tmp_path, 1, 1), Repetition("s3ql", 0, 0.0)
    run_workloads(bench, ["directories", "small"], repetition)
    assert repetition.failures == ["directories: it is not mounted", "small: it is not mounted"]
    assert bench.rows == []
    assert list(peer.mountpoint.iterdir()) == []


def test_what_has_no_size_is_not_filled(peer: Peer, tmp_path: Path) -> None:
    bench = Bench(peer, tmp_path, 1, 1)
    aged(bench)
    assert not bench.has_size
    assert bench.rows == []
    assert Bench(Peer(KINDS["fuse2fs"], tmp_path, 8 * MIB), tmp_path, 1, 1).has_size


def test_an_image_has_the_size_that_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "run", lambda command: "")
    image = Peer(KINDS["fuse2fs"], tmp_path, 8 * MIB)
    image.make()
    assert image.image.stat().st_size == 8 * MIB
    image.remove()
    assert list(tmp_path.iterdir()) == []
