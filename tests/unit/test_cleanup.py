"""`hammer cleanup`: configuration, when something is due, what expires, and runs over volumes nobody has mounted."""

from __future__ import annotations

import errno
import json
import os
import signal
from pathlib import Path

import pytest
from administration import ask
from small_filesystem import START_US, fresh, make, mount, walk

from hammerfs.cli import cleanup_folder
from hammerfs.cli.cleanup_folder import last_run, locked, note_run, state_folder
from hammerfs.cli.cleanup_migrate import _move_folder
from hammerfs.cli.cleanup_running import abort_all, noted
from hammerfs.cli.hammer import main
from hammerfs.cli.hearing import interrupts
from hammerfs.cli.offline import OfflineNames
from hammerfs.device.file import FileDevice
from hammerfs.device.memory import MemoryDevice
from hammerfs.errors import CorruptionError, HammerError, UsageError
from hammerfs.fs import rootrecords
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.options import MountOptions
from hammerfs.ondisk.constants import BUFSIZE, MAX_TID
from hammerfs.ops.cleanup_config import (
    ConfigLine,
    default_config,
    is_configuration,
    is_due,
    is_expired,
    parse_config,
    seconds_of,
    stamp_of,
)

DAY, HOUR, MINUTE = 86400, 3600, 60


# --- configuration ------------------------------------------------------------------------------
def test_the_lines_of_a_configuration() -> None:
    text = "snapshots 1d 60d any\n\n# no\n#dedup 1d 5m\nprune\t2h 0 # often\nreblock 30s\nodd\n"
    assert list(parse_config(text)) == [
        ConfigLine("snapshots", DAY, 60 * DAY, True),
        ConfigLine("prune", 2 * HOUR, 0, False),
        ConfigLine("reblock", 30, 0, False),
        ConfigLine("odd", 0, 0, False),
    ]
    for wrong in ("5x", "1234567890", "\N{ARABIC-INDIC DIGIT FIVE}d"):
        with pytest.raises(UsageError):
            seconds_of(wrong)


def test_the_configuration_of_who_has_none() -> None:
    lines = {line.word: (line.period, line.limit) for line in parse_config(default_config("/data"))}
    assert lines == {
        "snapshots": (DAY, 60 * DAY),
        "prune": (DAY, 5 * MINUTE),
        "rebalance": (DAY, 5 * MINUTE),
        "reblock": (DAY, 5 * MINUTE),
        "recopy": (30 * DAY, 10 * MINUTE),
    }
    assert next(parse_config(default_config("/tmp"))) == ConfigLine("snapshots", 0, 0, False)


@pytest.mark.parametrize(
    ("period", "last", "now", "due"),
    [
        (DAY, None, 0, True),
        (DAY, 10 * DAY - 1, 10 * DAY, True),
        (DAY, 10 * DAY, 11 * DAY - 1, False),
        (2 * DAY, 10 * DAY - 1, 10 * DAY, False),
        (HOUR, 10 * HOUR - 1, 10 * HOUR, True),
        (HOUR, 10 * HOUR, 11 * HOUR - 1, False),
        (MINUTE, 119, 120, True),
        (30, 100, 129, False),
        (30, 100, 130, True),
    ],
)
@pytest.mark.usefixtures("utc")
def test_a_period_ends_when_its_unit_does(period: int, last: int | None, now: int, due: bool) -> None:
    assert is_due(period, last, now) is due


@pytest.mark.usefixtures("utc")
def test_names_tell_when_a_snapshot_was_taken() -> None:
    assert stamp_of("snap-19700102-0130") == DAY + 90 * MINUTE
    assert stamp_of("snap-19700102") == DAY
    assert stamp_of("daily.19700103") == 2 * DAY
    assert stamp_of("snap-now") is None
    assert is_expired("snap-19700102", False, DAY, 2 * DAY + 1)
    assert not is_expired("snap-19700102", False, DAY, 2 * DAY)
    assert not is_expired("daily.19700102", False, DAY, 9 * DAY)
    assert is_expired("daily.19700102", True, DAY, 9 * DAY)
    assert not is_expired("other", True, DAY, 9 * DAY)


# --- what is remembered -------------------------------------------------------------------------
def test_where_it_is_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert state_folder("/") == Path("/var/hammer/root")
    assert state_folder("/mnt/d/") == Path("/var/hammer/mnt/d")
    assert state_folder("/mnt", "/elsewhere") == Path("/elsewhere")
    with pytest.raises(HammerError):
        state_folder("/mnt", "relative")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_folder("/mnt/d") == tmp_path / "hammer/mnt/d"


def test_runs_are_noted_and_one_cleanup_keeps_another_out(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with locked(folder) as is_ours:
        assert is_ours
        assert last_run(folder, "prune") is None
        note_run(folder, "prune", 1000)
        assert last_run(folder, "prune") == 1000
        assert (folder / ".prune.period").read_text() == "0x000003e8\n"
        with locked(folder) as again:
            assert not again
    (folder / ".prune.period").write_text("soon\n")
    assert last_run(folder, "prune") is None


# --- a run --------------------------------------------------------------------------------------
@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image with history and an old snapshot; what is remembered goes into the test's folder."""
    monkeypatch.setattr(cleanup_folder, "ROOT_BASE", tmp_path / "state")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    devices = fresh()
    fs = mount(devices)
    assert fs.flusher is not None
    file = make(fs, fs.root, b"a", b"one" * 30_000)
    for content in (b"two", b"six"):
        fs.flusher.flush_now()
        fs.write(file, 0, content * 30_000)
    fs.flusher.flush_now()
    rootrecords.add_snapshot(fs.ctx, 0, fs.ctx.root.next_tid, 0, b"of old")
    fs.close_now()
    return written(devices[0], tmp_path / "small.img")


def written(device: MemoryDevice, path: Path) -> Path:
    """What a device holds, as an image."""
    with path.open("wb") as target:
        target.truncate(device.size)
        for index, page in device._pages.items():
            target.seek(index * BUFSIZE)
            target.write(page)
    return path


def words_of(told: str) -> dict[str, str]:
    """What each line of the configuration came to."""
    return {line.split(" - ")[0].strip(): line.split(" - ")[1] for line in told.splitlines()[1:]}


def opened(image: Path) -> FileSystem:
    return FileSystem.open([FileDevice(str(image), writable=False)], MountOptions(read_only=True))


def test_a_run_by_the_defaults_and_what_is_left_to_do_after_it(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-f", str(image), "cleanup"]) == 0
    first = words_of(capsys.readouterr().out)
    assert first == dict.fromkeys(("snapshots", "prune", "rebalance", "reblock", "recopy"), "run")
    fs = opened(image)
    assert rootrecords.configuration(fs.ctx, 0) == default_config("/").encode()
    taken = rootrecords.snapshots(fs.ctx, 0)
    assert [item.label.rstrip(b"\0") for item in taken] == [b""], "the old one has expired, a new one was made"
    assert not [
        raw
        for raw in fs.ctx.tree.scan(b"\0" * 30, b"\xff" * 30)
        if 0 < int.from_bytes(raw[24:32], "little") <= taken[0].tid
    ]
    fs.close_now()
    assert main(["-f", str(image), "cleanup", "/"]) == 0
    assert set(words_of(capsys.readouterr().out).values()) == {"skip"}
    assert main(["-F", "-f", str(image), "cleanup", "/", "/a"]) == 0
    told = capsys.readouterr().out
    assert set(words_of(told[: told.index("cleanup /a")]).values()) == {"run"}
    assert "PFS#0 already handled" in told


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("snapshots 0d 0d\nprune 1d 5m\n", {"snapshots": "disabled", "prune": "run"}),
        ("snapshots 0d 1d\nprune 1d 0\n", {"snapshots": "only removing old snapshots", "prune": "run"}),
        ("dedup 1d 5m\nreblock 0 5m\n", {"dedup": "run", "reblock": "disabled"}),
    ],
)
def test_what_the_configuration_says_is_done(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], config: str, expected: dict[str, str]
) -> None:
    file = tmp_path / "config"
    file.write_text(config)
    assert main(["-f", str(image), "config", "/", str(file)]) == 0
    assert main(["-f", str(image), "-v", "cleanup"]) == 0
    told = capsys.readouterr().out
    for word, came_to in expected.items():
        assert f"{word:>20} - {came_to}\n" in told
    fs = opened(image)
    history = [raw for raw in fs.ctx.tree.scan(b"\0" * 30, b"\xff" * 30) if any(raw[24:32])]
    assert bool(history) is ("snapshots 0d 0d" not in config)
    fs.close_now()


def test_an_unknown_line_is_told(image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config"
    file.write_text("polish 1d\n")
    assert main(["-f", str(image), "config", "/", str(file)]) == 0
    assert main(["-f", str(image), "cleanup"]) == 1
    assert words_of(capsys.readouterr().out) == {"polish": "unknown directive"}


def test_programs_are_told_of_all_that_was_done(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config"
    file.write_text("snapshots 1d 60d\nprune 1d 5m\npolish 1d\ndedup 0 5m\nreblock 1d 5m\n")
    assert main(["-f", str(image), "config", "/", str(file)]) == 0
    capsys.readouterr()
    assert main(["--json", "-f", str(image), "cleanup", "/", "/a", "/absent"]) == 1
    output = capsys.readouterr()
    told = json.loads(output.out)
    assert (told["format"], told["command"]) == ("hammerfs/1", "cleanup")
    assert [(pfs["path"], pfs["state"]) for pfs in told["pfss"]] == [
        ("/", "handled"),
        ("/a", "already handled"),
        ("/absent", "failed"),
    ]
    first, _, absent = told["pfss"]
    assert "No such file" in absent["error"]
    assert {line["word"]: (line["outcome"], line["code"]) for line in first["lines"]} == {
        "snapshots": ("run", 0),
        "prune": ("run", 0),
        "polish": ("unknown directive", 1),
        "dedup": ("disabled", 0),
        "reblock": ("run", 0),
    }
    results = {line["word"]: [result["command"] for result in line["results"]] for line in first["lines"]}
    assert results["prune"] == ["prune"]
    assert results["reblock"] == ["reblock-btree", "reblock-inodes", "reblock-dirs", "reblock-data"]
    assert "polish - unknown directive\n" in output.err, "people see what goes on"
    assert main(["--json", "-v", "-f", str(image), "cleanup"]) == 1
    again = json.loads(capsys.readouterr().out)["pfss"][0]["lines"]
    assert [line["outcome"] for line in again] == ["skip", "skip", "unknown directive", "disabled", "skip"]


def test_what_goes_wrong_with_a_line_is_told_to_programs(
    image: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_arguments: object, **_options: object) -> int:
        raise CorruptionError("damaged")

    monkeypatch.setattr("hammerfs.cli.directive_cleanup.rebalance", broken)
    assert main(["--json", "-f", str(image), "cleanup"]) == 2
    lines = {line["word"]: line for line in json.loads(capsys.readouterr().out)["pfss"][0]["lines"]}
    assert (lines["rebalance"]["code"], lines["rebalance"]["error"]) == (2, "damaged")
    assert "error" not in lines["reblock"]


def pfss_of(told: str) -> list[str]:
    return [line.split(" using ")[0] for line in told.splitlines() if line.startswith("cleanup ")]


def test_without_a_path_all_pfss_of_the_volumes_are_cleaned_up(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As those of a mounted file system are; a slave that nothing was mirrored to has nothing to clean up."""
    for words in (["pfs-master", "/own"], ["pfs-slave", "/empty"], ["pfs-master", "/other"]):
        assert main(["-f", str(image), *words]) == 0
    file = tmp_path / "config"
    file.write_text("snapshots 2d 4d\n")
    assert main(["-f", str(image), "config", "/other", str(file)]) == 0
    capsys.readouterr()
    assert main(["-f", str(image), "cleanup"]) == 0
    told = capsys.readouterr().out
    assert pfss_of(told) == [
        "cleanup /                    - handle PFS#0",
        "cleanup /@@-1:00001          - handle PFS#1",
        "cleanup /@@-1:00003          - handle PFS#3",
    ]
    assert told[told.index("/@@-1:00003") :].count(" - run") == 1, "each goes by its own configuration"
    fs = opened(image)
    counts = [len(rootrecords.snapshots(fs.ctx, pfs << 16)) for pfs in range(4)]
    fs.close_now()
    assert counts == [1, 1, 0, 1]
    assert main(["-f", str(image), "cleanup", "/"]) == 0
    assert pfss_of(capsys.readouterr().out) == ["cleanup /                    - handle PFS#0"]


def test_volumes_that_cannot_be_opened_are_told_of_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-f", str(tmp_path / "absent"), "cleanup"]) == 1
    told = capsys.readouterr()
    assert told.out.startswith("cleanup /                    - ")
    assert told.out.count("\n") == 1


def test_a_folder_outside_of_the_volumes_is_left_alone_and_that_is_said(
    image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["-f", str(image), "pfs-update", "/", "snapshots=/srv/links"]) == 0
    file = tmp_path / "config"
    file.write_text("snapshots 0d 1d\nprune 1d 5m\n")
    assert main(["-f", str(image), "config", "/", str(file)]) == 0
    capsys.readouterr()
    assert main(["-f", str(image), "cleanup"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[1] == "\tSoftlinks in /srv/links are left alone: -f does not know where that is"
    assert told[2] == "           snapshots - only removing old snapshots"
    fs = opened(image)
    history = [raw for raw in fs.ctx.tree.scan(b"\0" * 30, b"\xff" * 30) if any(raw[24:32])]
    fs.close_now()
    assert history, "who cannot see whether there are snapshots does not take away everything"


# --- what was files before version 3 ------------------------------------------------------------
OLD_CONFIG = "snapshots 1d 60000d\nprune 1d 5m\n"


@pytest.fixture
def old_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[int]]:
    """An image of version 2 with DragonFly's folder of snapshots, and the TIDs of its states, each with a link."""
    monkeypatch.setattr(cleanup_folder, "ROOT_BASE", tmp_path / "state")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    devices = fresh(version=2)
    fs = mount(devices)
    assert fs.flusher is not None
    file = make(fs, fs.root, b"a", b"nil" * 30_000)
    folder = make(fs, fs.root, b"snapshots")
    make(fs, folder, b"config", OLD_CONFIG.encode())
    tids = []
    for number, content in enumerate((b"one", b"two", b"six")):
        fs.write(file, 0, content * 30_000)
        fs.flusher.flush_now()
        tids.append(fs.flusher.cycle.flush_tid1)
        name = b"of-old" if number == 2 else b"snap-2025010%d-0300" % (number + 1)
        fs.symlink(folder, name, b"/mnt/@@%#018x" % tids[-1], 0, 0)
    fs.symlink(folder, b"elsewhere", b"/mnt", 0, 0)
    fs.symlink(folder, b"other-pfs-20250101", b"/mnt/@@0x0000000100000000:00007", 0, 0)
    fs.write(file, 0, b"now" * 30_000)
    fs.close_now()
    return written(devices[0], tmp_path / "old.img"), tids


def content_at(image: Path, tid: int) -> bytes:
    fs = opened(image)
    try:
        name = b"a" if tid == MAX_TID else b"a@@%#018x" % tid
        return fs.read(fs.lookup(fs.root, name), 0, 3)
    finally:
        fs.close_now()


def folder_of(image: Path) -> list[bytes]:
    fs = opened(image)
    try:
        return sorted(entry.name for entry in fs.readdir(fs.lookup(fs.root, b"snapshots"), 0))
    finally:
        fs.close_now()


def test_before_version_3_links_in_the_image_are_respected(
    old_image: tuple[Path, list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    image, tids = old_image
    assert main(["-f", str(image), "cleanup"]) == 0
    assert words_of(capsys.readouterr().out) == {"snapshots": "run", "prune": "run"}
    assert [content_at(image, tid) for tid in (*tids, MAX_TID)] == [b"one", b"two", b"six", b"now"]
    names = folder_of(image)
    assert len(names) == 7, "a link to the snapshot of today has been made"
    assert b"config" in names


def test_before_version_3_nothing_is_pruned_by_who_cannot_see_the_links(
    old_image: tuple[Path, list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    image, tids = old_image
    assert main(["-f", str(image), "pfs-update", "/", "snapshots=/srv/links"]) == 0
    capsys.readouterr()
    assert main(["-f", str(image), "cleanup"]) == 1
    told = capsys.readouterr()
    assert (
        told.err == "    only softlinks in /srv/links tell what prune has to keep: mount it, or upgrade to version 3\n"
    )
    assert [content_at(image, tid) for tid in tids] == [b"one", b"two", b"six"]


@pytest.mark.usefixtures("utc")
def test_what_was_files_comes_into_the_file_system(
    old_image: tuple[Path, list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    image, tids = old_image
    assert main(["-f", str(image), "version-upgrade", "/", "7"]) == 0
    capsys.readouterr()
    assert main(["-f", str(image), "cleanup"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[:4] == [
        "    non-canonical snapshot softlink: /snapshots/elsewhere->/mnt",
        "    non-canonical snapshot softlink: /snapshots/other-pfs-20250101->/mnt/@@0x0000000100000000:00007",
        "cleanup /                    - (migrating) (3 snapshots)",
        "\tThe rest stays in /snapshots, as its new place depends on where this is mounted",
    ]
    fs = opened(image)
    assert rootrecords.configuration(fs.ctx, 0) == OLD_CONFIG.encode()
    found = [(item.tid, item.ts // 1_000_000, item.label.rstrip(b"\0")) for item in rootrecords.snapshots(fs.ctx, 0)]
    fs.close_now()
    assert [item[0] for item in found[:3]] == tids
    assert [item[2] for item in found] == [b"migrated"] * 3 + [b""]
    assert [item[1] for item in found[:2]] == [1735700400, 1735786800]
    assert found[2][1] == START_US // 1_000_000
    assert [content_at(image, tid) for tid in (*tids, MAX_TID)] == [b"one", b"two", b"six", b"now"]
    assert b"config" not in folder_of(image)
    assert main(["-f", str(image), "cleanup"]) == 0
    told = capsys.readouterr().out
    assert "migrating" not in told
    assert "stays in" not in told


def test_a_folder_that_the_record_of_the_pfs_names_has_no_other_place(
    old_image: tuple[Path, list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    image, _ = old_image
    assert main(["-f", str(image), "version-upgrade", "/", "7"]) == 0
    assert main(["-f", str(image), "pfs-update", "/", "snapshots=/snapshots"]) == 0
    assert main(["-f", str(image), "cleanup"]) == 0
    told = capsys.readouterr().out
    assert "(migrating) (3 snapshots)" in told
    assert "stays in" not in told


def test_a_migration_that_was_cut_off_goes_on(
    old_image: tuple[Path, list[int]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All was on record, and only the file was still there."""
    image, tids = old_image
    assert main(["-f", str(image), "version-upgrade", "/", "7"]) == 0

    def cut_off(_names: object, _path: str) -> None:
        raise OSError(errno.EIO, "as tests want it")

    with monkeypatch.context() as patched:
        patched.setattr(OfflineNames, "remove", cut_off)
        assert main(["-f", str(image), "cleanup"]) == 1
        assert "as tests want it" in capsys.readouterr().out
    assert b"config" in folder_of(image)
    assert main(["-f", str(image), "cleanup"]) == 0
    assert "(migrating) (0 snapshots)" in capsys.readouterr().out
    assert [content_at(image, tid) for tid in tids] == [b"one", b"two", b"six"]
    assert b"config" not in folder_of(image)


def old_folder(path: Path, *names: str) -> Path:
    path.mkdir(parents=True)
    (path / "snap-20250101").symlink_to("/mnt/@@0x0000000100000010")
    (path / "snap-20250102").symlink_to("../@@0x0000000100000020")
    os.utime(path / "snap-20250101", (1000, 1000), follow_symlinks=False)
    for name in names:
        (path / name).write_text(name)
    return path


def test_a_folder_of_cleanup_moves_with_all_that_it_keeps(tmp_path: Path) -> None:
    old, new = old_folder(tmp_path / "mnt/snapshots", ".prune.period", ".lock", ".reblock-1.cycle"), tmp_path / "a/b"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.new").mkdir()  # of a move that was cut off
    (tmp_path / "a" / "b.new" / "half").touch()
    assert _move_folder(old, new, taken_over=False)
    assert not old.exists()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["b"]
    assert {path.name: os.readlink(path) for path in new.iterdir() if path.is_symlink()} == {
        "snap-20250101": "/mnt/@@0x0000000100000010",
        "snap-20250102": f"{tmp_path}/mnt/@@0x0000000100000020",
    }
    assert (new / "snap-20250101").lstat().st_mtime == 1000
    assert (new / ".prune.period").read_text() == ".prune.period"


@pytest.mark.parametrize("names", [[], [".prune.period", "photo.jpg"], ["notes"]])
def test_a_folder_that_no_cleanup_used_stays(tmp_path: Path, names: list[str]) -> None:
    old = old_folder(tmp_path / "snapshots", *names)
    assert not _move_folder(old, tmp_path / "new", taken_over=False)
    assert len(list(old.iterdir())) == 2 + len(names)
    assert _move_folder(old, tmp_path / "new", taken_over=True) is (not names)


def test_nothing_moves_onto_something(tmp_path: Path) -> None:
    old = old_folder(tmp_path / "snapshots", ".prune.period")
    (tmp_path / "new").mkdir()
    assert not _move_folder(old, tmp_path / "new", taken_over=True)
    assert not _move_folder(tmp_path / "absent", tmp_path / "other", taken_over=True)
    assert old.exists()


def test_snapshots_that_cannot_be_are_not_taken_over() -> None:
    fs = mount(fresh())
    for links in ([1], [0, 5], [1 << 64, 5], [16, -1], [16, 1 << 62]):
        with pytest.raises(UsageError):
            ask(fs, "snapshot-adopt", links=links)
    assert ask(fs, "snapshot-adopt", links=[16, 5, 32, 6, 16, 7]) == {"added": 2}
    fs.close_now()
    with pytest.raises(UsageError, match="version 3"):
        ask(mount(fresh(version=2)), "snapshot-adopt", links=[])


def test_a_file_that_is_no_configuration_stays(
    old_image: tuple[Path, list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    image, _ = old_image
    fs = mount([FileDevice(str(image), writable=True)])
    config = walk(fs, b"snapshots", b"config")
    fs.setattr(config, size=0)
    fs.write(config, 0, b"Host elsewhere\n  Port 2222 # prune\n")
    fs.close_now()
    assert main(["-f", str(image), "version-upgrade", "/", "7"]) == 0
    assert main(["-f", str(image), "cleanup"]) == 0
    assert "migrating" not in capsys.readouterr().out
    assert b"config" in folder_of(image)
    assert is_configuration("# mine\n\tprune 1x\n")
    assert not is_configuration("#prune 1d\nprunes 1d\n")


def test_a_configuration_that_is_too_long_stays_where_it_is(
    old_image: tuple[Path, list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    image, tids = old_image
    fs = mount([FileDevice(str(image), writable=True)])
    fs.write(walk(fs, b"snapshots", b"config"), 0, b"prune 1d # long\n" * 80)
    fs.close_now()
    assert main(["-f", str(image), "version-upgrade", "/", "7"]) == 0
    assert main(["-f", str(image), "cleanup"]) == 1
    assert "config file too big" in capsys.readouterr().out
    assert b"config" in folder_of(image)
    fs = opened(image)
    assert [item.tid for item in rootrecords.snapshots(fs.ctx, 0)] == tids
    fs.close_now()


# --- aborted ------------------------------------------------------------------------------------
@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where notes of running cleanups lie, in this test."""
    folder = tmp_path / "runtime"
    monkeypatch.setattr("hammerfs.cli.cleanup_running.runtime_folder", lambda _uid: folder)
    return folder


def test_a_cleanup_that_runs_can_be_found_and_asked_to_end(runtime: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with noted() as running, interrupts(lambda: None):
        assert [path.name for path in runtime.iterdir()] == [f"hammer.cleanup.{os.getpid()}"]
        assert main(["abort-cleanup"]) == 0
        assert running.aborted
    assert capsys.readouterr().out == f"Terminated cleanup process {os.getpid()}\n"
    assert main(["--json", "abort-cleanup"]) == 0
    assert json.loads(capsys.readouterr().out)["pids"] == []
    assert not list(runtime.iterdir())
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert main(["abort-cleanup"]) == 0
    assert capsys.readouterr().out == ""


def test_notes_of_cleanups_that_are_gone_are_removed_and_nobody_is_asked(runtime: Path) -> None:
    runtime.mkdir()
    for name in ("1", f"{os.getpid()}", "x", "-1"):
        (runtime / f"hammer.cleanup.{name}").write_text("")
    (runtime / "other").touch()
    assert abort_all() == []
    assert [path.name for path in runtime.iterdir()] == ["other"]


def test_an_aborted_cleanup_begins_nothing_more(
    image: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What runs is asked to stop, remembers where, and its line is due again."""

    def aborted(*arguments: object, **options: object) -> int:
        with interrupts(lambda: None):
            assert abort_all() == [os.getpid()]
        return 0

    monkeypatch.setattr("hammerfs.cli.directive_cleanup.rebalance", aborted)
    assert main(["-f", str(image), "cleanup"]) == 130
    output = capsys.readouterr()
    assert "prune - run" in output.out
    assert "reblock" not in output.out
    assert "interrupted" in output.err
    assert not list(runtime.iterdir())
    assert main(["--json", "-F", "-f", str(image), "cleanup"]) == 130
    lines = json.loads(capsys.readouterr().out)["pfss"][0]["lines"]
    assert [(line["word"], line["code"]) for line in lines] == [("snapshots", 0), ("prune", 0), ("rebalance", None)]
