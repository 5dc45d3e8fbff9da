"""The directives of hammer(8) on unmounted images: words, output, links, and an image that is sound afterwards."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from second_opinion import COMMAND, assert_original_agrees
from small_filesystem import FIFO_SIZE, VOLUME_SIZE, make, mount, names, read, walk

from hammerfs.cli import hammer
from hammerfs.cli.directive_config import DEFAULTS
from hammerfs.cli.directive_recover import Copy
from hammerfs.cli.directive_status import humanized
from hammerfs.cli.names import MountedNames
from hammerfs.cli.offline import OfflineNames
from hammerfs.cli.pfs_options import SECONDS_MAX, parse_seconds
from hammerfs.cli.reach import LiveReach
from hammerfs.device.file import FileDevice
from hammerfs.errors import HammerError
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.constants import OBJTYPE_DIRECTORY, OBJTYPE_REGFILE, OBJTYPE_SOFTLINK
from hammerfs.ondisk.inode import InodeData
from hammerfs.ops.check import check_devices
from hammerfs.ops.mkfs import FormatRequest, plan_format, write_file_system
from hammerfs.ops.recover import Extent, Found
from hammerfs.store.volumes import VolumeSet
from hammerfs.vfs.controlclient import Connection, RefusedError

Hammer = Callable[..., str]


@pytest.fixture
def image(tmp_path: Path) -> Iterator[Path]:
    """A new file system's image; checked when the test is over, by the original's program, too, where there is one."""
    path = tmp_path / "volume.img"
    with path.open("wb") as file:
        file.truncate(VOLUME_SIZE)
    device = FileDevice(str(path), writable=True)
    request = FormatRequest("TEST", undo_size=FIFO_SIZE, force=True)
    write_file_system(plan_format(request, [VOLUME_SIZE]).layout, [device])
    device.close()
    yield path
    device = FileDevice(str(path), writable=False)
    report = check_devices([device])
    device.close()
    assert report.clean, "\n".join(map(str, report.problems[:20]))
    assert not report.recovery_pending
    assert_original_agrees(path)


@pytest.fixture
def run(image: Path, capsys: pytest.CaptureFixture[str]) -> Hammer:
    """A function that runs a directive on the image and returns what it prints; `code` is what it has to end with."""

    def run(*words: str, code: int = 0) -> str:
        capsys.readouterr()
        assert hammer.main(["-f", str(image), *words]) == code, capsys.readouterr().err
        output = capsys.readouterr()
        return output.out if code == 0 else output.err

    return run


@pytest.fixture
def changing(image: Path) -> Callable[[Callable[[FileSystem], Any]], Any]:
    """A function that mounts the image, lets somebody change it, and unmounts it."""

    def change(action: Callable[[FileSystem], Any]) -> Any:
        fs = mount([FileDevice(str(image), writable=True)])
        try:
            return action(fs)
        finally:
            fs.close_now()

    return change


Change = Callable[[Callable[[FileSystem], Any]], Any]


def populate(fs: FileSystem) -> None:
    make(fs, make(fs, fs.root, b"d"), b"file", b"content")
    make(fs, fs.root, b"snaps")


# --- snapshots ----------------------------------------------------------------------------------


def test_a_snapshot_with_its_link_in_a_directory(run: Hammer, changing: Change) -> None:
    changing(populate)
    assert run("snap", "/snaps", "a note") == ""
    listed = run("snapls").splitlines()
    assert listed[:2] == ["Snapshots on /\tPFS#0", "Transaction ID\t\tTimestamp\t\tNote"]
    assert re.fullmatch(r"0x[0-9a-f]{16}\t\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+\ta note", listed[2])

    def look(fs: FileSystem) -> None:
        (link,) = names(fs, walk(fs, b"snaps"))
        assert re.fullmatch(rb"snap-\d{8}-\d{4}", link)
        assert fs.readlink(walk(fs, b"snaps", link)).decode() == f"../@@{listed[2].split()[0]}"

    changing(look)


def test_links_lead_where_their_directives_say(run: Hammer, changing: Change) -> None:
    changing(populate)
    run("snap", "/snaps/root")
    run("snaplo", "/snaps/here")  # not in /d: the original's show reads on behind a target of just 24 bytes
    told = run("snapq", "/d").strip()
    run("snapshot", "/d", "/snaps/of-%Y", "note")
    changing(lambda fs: fs.unlink(walk(fs, b"d"), b"file"))

    def look(fs: FileSystem) -> None:
        assert re.fullmatch(rb"\.\./@@0x[0-9a-f]{16}", fs.readlink(walk(fs, b"snaps", b"root")))
        assert re.fullmatch(rb"\.\./snaps@@0x[0-9a-f]{16}", fs.readlink(walk(fs, b"snaps", b"here")))
        assert read(fs, told.strip("/").encode(), b"file") == b"content"

    changing(look)
    assert len(run("snapls").splitlines()) == 6


def test_snapshots_are_removed_by_tid_by_link_and_by_file_system(
    run: Hammer, changing: Change, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changing(populate)
    tids = []
    for name in ("a", "b", "c"):
        run("snap", f"/snaps/{name}")
        changing(lambda fs, name=name: make(fs, fs.root, name.encode()))
        tids.append(run("snapls").splitlines()[-1].split()[0])
    run("snaprm", "/snaps/a")
    assert changing(lambda fs: sorted(names(fs, walk(fs, b"snaps")))) == [b"b", b"c"]
    run("snaprm", tids[1])
    run("snaprm", "/d", tids[2][2:])
    assert len(run("snapls").splitlines()) == 2
    assert changing(lambda fs: sorted(names(fs, walk(fs, b"snaps")))) == [b"b", b"c"]
    capsys.readouterr()
    assert hammer.main(["-f", str(image), "snaprm", tids[1]]) == 0
    assert capsys.readouterr().err == f"Warning: hammer snaprm {tids[1]}: meta-data not found\n"
    told = json.loads(run("--json", "snap", "/snaps/d"))
    (listed,) = json.loads(run("--json", "snapls"))["lists"][0]["snapshots"]
    assert listed["tid"] == told["tid"], "a TID reads the same wherever it is told"
    gone = json.loads(run("--json", "snaprm", "/snaps/d", "/snaps/b"))
    assert (gone["tids"], gone["absent_tids"], gone["links"]) == ([told["tid"]], [tids[1]], ["/snaps/d", "/snaps/b"])
    for word in ("prune-everything", "prune", "softprune"):
        assert json.loads(run("--json", word, "/"))["command"] == word


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("snap", "usage: hammer snap <path> [<note>]"),
        ("snap /d/file", "hammer snap: File /d/file exists and is not a directory"),
        ("snap /nowhere/x", "/nowhere: No such file"),
        ("snaprm /nowhere", "not a file or tid: /nowhere"),
        ("snaprm /d/file", "not directory or snapshot softlink: /d/file"),
        ("snaprm", "usage: hammer snaprm <path> ..."),
        ("snapls /nowhere", "/nowhere: No such file"),
        ("snapshot", "usage: hammer snapshot"),
        ("pfs-master /d", "Cannot create /d, file exists!"),
        ("pfs-master /x/", "Invalid PFS path /x/ with trailing /"),
        ("pfs-destroy /", "You cannot destroy PFS#0"),
        ("pfs-upgrade /", "You cannot upgrade PFS#0 (It should already be a master)"),
        ("pfs-update / nonsense=1", "invalid option: nonsense"),
        ("pfs-update / label", "option label requires an assignment"),
        ("pfs-update / snapshots=x", "must be an absolute path"),
        ("pfs-update / prune-min=x", "illegal time spec"),
        ("config", "hammer config: no configuration found"),
        ("synctid / slow", "usage: hammer synctid <filesystem> [quick]"),
    ],
)
def test_refusals_are_hammers_own_words(words: str, sentence: str, run: Hammer, changing: Change) -> None:
    changing(populate)
    code = 2 if words.startswith(("snap /", "snapr", "snapl", "config")) and "usage" not in sentence else 1
    error = run(*words.split(), code=code)
    assert re.match(r"hammer( snapls)?: ", error)
    assert sentence in error


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["snapshot", "/", "/nowhere/x"], "cannot make the softlink /nowhere/x: /nowhere: No such file or directory"),
        (["snapshot", "/", "/d/file/x"], "cannot make the softlink /d/file/x: /d/file: Not a directory"),
        (["snapshot", "/", "/d/f%%ile"], "cannot make the softlink /d/f%ile: it exists and is no softlink"),
        (["snapshot", "/", "/%%"], "cannot make the softlink /%: it is a directory"),
        (["snapshot", "/", ""], "an empty path names neither"),
        (["snapshot", ""], "an empty path names neither"),
        (["snap", ""], "an empty path names neither"),
        (["snapq", ""], "an empty path names neither"),
        (["snapshot", "/nowhere", "/d/x"], "/nowhere: No such file or directory"),
    ],
)
def test_a_link_that_cannot_be_made_is_named_before_there_is_a_snapshot(
    words: list[str], sentence: str, run: Hammer, changing: Change
) -> None:
    def fill(fs: FileSystem) -> None:
        populate(fs)
        make(fs, walk(fs, b"d"), b"f%ile", b"mine")
        make(fs, fs.root, b"%")

    changing(fill)
    assert sentence in run(*words, code=2)
    assert len(run("snapls").splitlines()) == 2
    assert changing(lambda fs: read(fs, b"d", b"f%ile")) == b"mine"


@pytest.mark.parametrize("word", ["snap", "snaplo", "snapshot"])
def test_without_its_link_a_snapshot_goes_as_well(
    word: str, run: Hammer, changing: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing(populate)
    run("snapq", "/")
    changing(lambda fs: fs.symlink(walk(fs, b"snaps"), b"kept", b"/elsewhere", 0, 0))
    before = run("snapls")
    make_link = OfflineNames.symlink

    def no_space(names: OfflineNames, target: str, path: str) -> None:
        monkeypatch.setattr(OfflineNames, "symlink", make_link)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target, None, path)

    for path in ("/snaps/new", "/snaps/kept"):  # the latter would be replaced, as it leads nowhere
        monkeypatch.setattr(OfflineNames, "symlink", no_space)
        error = run(word, *(["/"] if word == "snapshot" else []), path, code=2)
        assert error == f"hammer: cannot make the softlink {path}: No space left on device; no snapshot was made\n"
    assert run("snapls") == before
    assert changing(lambda fs: names(fs, walk(fs, b"snaps"))) == [b"kept"]
    assert changing(lambda fs: fs.readlink(walk(fs, b"snaps", b"kept"))) == b"/elsewhere"


def test_a_link_into_the_past_is_refused_and_no_snapshot_stays(run: Hammer, changing: Change) -> None:
    """What a snapshot's link leads to is a directory, in which the next one's would lie."""
    changing(populate)
    run("snapshot", "/", "/snaps/one")
    before = run("snapls")
    changing(lambda fs: make(fs, fs.root, b"more"))
    assert re.search(
        r"softlink /snaps/one/snap-\S+: the past is read-only; no snapshot", run("snap", "/snaps/one", code=2)
    )
    assert run("snapls") == before


def test_where_links_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted = MountedNames()
    mounted.demand_folder(str(tmp_path))
    (tmp_path / "file").touch()
    for path, reason in (("file", NotADirectoryError), ("absent", FileNotFoundError)):
        with pytest.raises(reason, match=re.escape(str(tmp_path / path))):
            mounted.demand_folder(str(tmp_path / path))
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda *_words, **_how: False)
        with pytest.raises(PermissionError, match=re.escape(str(tmp_path))):
            mounted.demand_folder(str(tmp_path))
    status = os.statvfs(tmp_path)
    read_only = os.statvfs_result((*status[:8], status.f_flag | os.ST_RDONLY, status.f_namemax))
    monkeypatch.setattr(os, "statvfs", lambda _path: read_only)
    with pytest.raises(OSError, match="Read-only file system"):
        mounted.demand_folder(str(tmp_path))


@pytest.mark.parametrize(
    ("word", "key", "code"), [("snapls", "lists", 2), ("pfs-status", "pfs_list", 1), ("info", "filesystems", 1)]
)
def test_one_path_that_fails_takes_nothing_from_the_others(
    word: str, key: str, code: int, image: Path, changing: Change, capsys: pytest.CaptureFixture[str]
) -> None:
    changing(populate)
    paths = ["/d", "/nowhere", "/snaps"]
    alone = []
    for path in ("/d", "/snaps"):
        assert hammer.main(["-f", str(image), word, path]) == 0
        alone.append(capsys.readouterr().out)
    assert hammer.main(["-f", str(image), word, *paths]) == code
    told = capsys.readouterr()
    assert told.out == ("\n" if word == "info" else "").join(alone)
    assert told.err == f"hammer {word}: /nowhere: No such file or directory\n"
    assert hammer.main(["--json", "-f", str(image), word, *paths]) == code
    assert [item["path"] for item in json.loads(capsys.readouterr().out)[key]] == ["/d", "/snaps"]


class Refusing:
    """A connection to a server that knows of a path no more than a number."""

    def __init__(self, sentence: str) -> None:
        self._sentence = sentence

    def request(self, *_words: object) -> dict[str, Any]:
        raise RefusedError(self._sentence, errno.ENOENT, 2)

    def stop(self) -> None: ...


def test_a_refusal_that_is_but_an_errno_names_the_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", "/as the shell/has it")

    def lost() -> str:
        raise FileNotFoundError

    bare = os.strerror(errno.ENOENT)
    for path, sentence, told in (
        ("/a", bare, f"/a: {bare}"),
        ("/a", "there is no PFS#7", "there is no PFS#7"),
        (".", bare, f"{tmp_path}: {bare}"),
        ("..", bare, f"..: {bare}"),
    ):
        with pytest.raises(RefusedError) as refusal:
            LiveReach(cast(Connection, Refusing(sentence)), path).call("pfs-get", {})
        assert (str(refusal.value), refusal.value.exit_code) == (told, 2)
    monkeypatch.setattr(os, "getcwd", lost)
    with pytest.raises(RefusedError, match=r"^/as the shell/has it: "):
        LiveReach(cast(Connection, Refusing(bare)), ".").call("pfs-get", {})


# --- PFSs ---------------------------------------------------------------------------------------


def test_the_life_of_a_pfs(run: Hammer, changing: Change) -> None:
    changing(populate)
    shown = run("pfs-master", "/d/one", "label=eins", "prune-min=2d").splitlines()
    assert shown[:2] == ["Creating PFS#1\tsucceeded!", "/d/one"]
    assert shown[-4:] == [
        '    label="eins"',
        "    prune-min=2d",
        "    operating as a MASTER",
        "    snapshots directory defaults to /var/hammer/<pfs>",
    ]
    changing(lambda fs: make(fs, walk(fs, b"@@-1:00001"), b"inside", b"content"))
    assert run("pfs-status", "/d/one", "/d").startswith("/d/one\tPFS#1 {\n    sync-beg-tid=0x0000000000000001\n")
    assert run("pfs-downgrade", "/d/one") == "pfs-downgrade of PFS#1 (eins) succeeded\n"
    assert "    operating as a SLAVE\n" in run("pfs-status", "/d/one")
    assert run("pfs-upgrade", "/d/one/") == "pfs-upgrade of PFS#1 (eins) succeeded\n"
    assert run("pfs-update", "/@@-1:00001", "label=zwei").splitlines()[0] == "/@@-1:00001"
    assert "     1  MASTER      0\n" in run("info")
    shown = run("-d", "-y", "pfs-destroy", "/d/one")
    assert shown.endswith("Destroying PFS#1 (zwei)\npfs-destroy of PFS#1 succeeded!\n")
    assert changing(lambda fs: names(fs, walk(fs, b"d"))) == [b"file"]
    assert "PFS#1" in run("pfs-status", "/@@-1:00001", code=1)


def test_a_slave_has_a_link_before_it_has_a_root(run: Hammer) -> None:
    shared = "0ef0c1d5-7a51-4f0e-8c39-00a0c9e5b0f1"
    run("pfs-slave", "/two", f"shared-uuid={shared}")
    told = json.loads(run("--json", "pfs-status", "/two"))["pfs_list"][0]
    assert (told["pfs"], told["slave"], told["shared_uuid"]) == (1, True, shared)
    assert "SLAVE" in run("pfs-status", "two")
    assert json.loads(run("--json", "-y", "pfs-destroy", "/two"))["pfs"] == 1


@pytest.mark.parametrize("answer", ["n\n", "", "y\nn\n"])
def test_without_a_yes_nothing_is_destroyed(
    answer: str, image: Path, run: Hammer, changing: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("pfs-master", "/one")
    changing(lambda fs: make(fs, walk(fs, b"@@-1:00001"), b"inside", b"content"))
    done = subprocess.run(
        [*COMMAND, "-f", image, "pfs-destroy", "/one"], input=answer, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "hammer: No action taken on PFS#1\n"
    assert changing(lambda fs: read(fs, b"@@-1:00001", b"inside")) == b"content"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1d", 86400),
        ("0d", 0),
        ("1d/2", 93600),
        ("2:03", 7380),
        ("1:2:3", 3723),
        ("7", 25200),
        ("99999999d", SECONDS_MAX),
    ],
)
def test_times_are_read_as_hammer_reads_them(text: str, seconds: int) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "1d/", "-1d", "1:", "1:2:3:4", "1d2"])
def test_times_that_are_none(text: str) -> None:
    with pytest.raises(HammerError, match="illegal time spec"):
        parse_seconds(text)


# --- configuration ------------------------------------------------------------------------------


def test_the_configuration_comes_from_a_file(run: Hammer, tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_bytes(b"snapshots 1d 60d\n\xff\n")
    run("config", "/", str(file))
    assert json.loads(run("--json", "config"))["text"] == "snapshots 1d 60d\n\udcff\n"
    assert json.loads(run("--json", "config", "/", str(file)))["text"] == "snapshots 1d 60d\n\udcff\n"
    file.write_bytes(b"x" * 1024)
    assert "config file too big" in run("config", "/", str(file), code=2)


def test_the_configuration_is_edited(run: Hammer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDITOR", "true")
    assert run("viconfig") == "hammer viconfig: no changes were made\n"
    monkeypatch.setenv("EDITOR", "sed -i 's/^#snapshots 1d/snapshots 2d/'")
    run("viconfig", "/")
    text = json.loads(run("--json", "config"))["text"]
    assert text == DEFAULTS.replace("#snapshots 1d", "snapshots 2d")
    monkeypatch.setenv("EDITOR", "false")
    assert "ended with exit code 1" in run("viconfig", code=2)
    assert json.loads(run("--json", "config"))["text"] == text


# --- state --------------------------------------------------------------------------------------


def test_info_has_the_lines_of_the_original(run: Hammer, image: Path) -> None:
    shown = run("info").splitlines()
    assert shown[:5] == [
        "Volume identification",
        "\tLabel               TEST",
        "\tNo. Volumes         1",
        f"\tHAMMER Volumes      {image}",
        f"\tRoot Volume         {image}",
    ]
    assert shown[-3:] == ["PFS information", "\t  PFS#  Mode    Snaps", "\t     0  MASTER      0 (root PFS)"]
    numbers = json.loads(run("--json", "info"))["filesystems"][0]
    used = numbers["bigblocks"] - numbers["bigblocks_free"]
    assert f"\tUsed       {used:10d} ({used * 100 / numbers['bigblocks']:.2f}%)" in shown


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (999, "999B"),
        (1000, "1.0K"),
        (1 << 20, "1.0M"),
        (10 << 20, "10M"),
        (999 << 20, "999M"),
        (5 << 40, "5.0T"),
    ],
)
def test_sizes_fit_their_column(size: int, text: str) -> None:
    assert humanized(size) == text


def test_two_directives_give_the_same_tid_when_nothing_changes(run: Hammer) -> None:
    assert run("synctid", "/") == run("synctid", "/")


def test_the_version_is_told_and_raised(run: Hammer) -> None:
    shown = run("version", "/").splitlines()
    assert shown[0] == ('min=1 wip=none max=7 current=7 description="Use ISCSI CRC (faster than original crc32)"')
    assert shown[1:3] == ["available versions:", "    1\tNORM\tFirst HAMMER release (DragonFly 2.0+)"]
    assert len(shown) == 9
    assert run("-q", "version", "/").splitlines() == shown[:1]
    assert run("version-upgrade", "/", "7") == "hammer version-upgrade: succeeded\n"
    assert "no way back" in run("version-upgrade", "/", "6", code=2)
    assert "no version 8" in run("version-upgrade", "/", "8", "force", code=2)
    assert "expected <fs> vers# [force]" in run("version-upgrade", "/", code=1)


def test_the_volumes_are_told(run: Hammer, image: Path) -> None:
    assert run("volume-list", "/") == f"{image}\n"
    assert run("-v", "volume-list", "/") == f"0\t{image} (Root Volume)\n"
    assert run("volume-blkdevs", "/") == f"{image}\n"
    assert json.loads(run("--json", "volume-blkdevs", "/"))["blkdevs"] == str(image)


def test_stripped_volumes_are_no_file_system_any_more(
    image: Path,
    changing: Change,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changing(populate)
    doomed = tmp_path / "doomed.img"
    subprocess.run(["cp", "--sparse=always", image, doomed], check=True)
    declined = [*COMMAND, "-f", doomed, "-d", "-y", "strip"]
    assert subprocess.run(declined, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode == 1
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    capsys.readouterr()
    assert hammer.main(["-f", str(doomed), "-d", "strip"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[0] == "You have requested that HAMMER filesystem (TEST) be stripped"
    assert shown[-1] == f"Stripped volume header {doomed}"
    assert len([line for line in shown if line.startswith("Stripped big-block ")]) == 2
    assert doomed.read_bytes()[:16] == b"STRIPPED" + bytes(8)
    assert hammer.main(["-f", str(doomed), "info"]) == 1
    assert "is not a HAMMER volume" in capsys.readouterr().err
    assert b"content" in doomed.read_bytes(), "what files held is not erased"


def grown(fs: FileSystem) -> None:
    """A tree with links, modes, times, history, a PFS, and a file that was removed."""
    populate(fs)
    folder = walk(fs, b"d")
    long = make(fs, folder, b"long", bytes(range(256)) * 1000)
    fs.setattr(long, mode=0o640, mtime_us=1_000_000_000_000_000)
    fs.link(long, fs.root, b"second name")
    fs.symlink(folder, b"link", b"file", 0, 0)
    fs.symlink(folder, b"long link", b"x" * 100, 0, 0)
    make(fs, folder, b"removed", b"gone")
    assert fs.flusher is not None
    fs.flusher.flush_now()
    fs.unlink(folder, b"removed")
    fs.write(walk(fs, b"d", b"file"), 0, b"CONTENT")


@pytest.mark.parametrize("scope", [[], ["full"], ["quick"]])
@pytest.mark.parametrize("broken", [False, True])
def test_files_are_recovered_from_what_nodes_tell(
    scope: list[str], broken: bool, image: Path, run: Hammer, changing: Change, tmp_path: Path
) -> None:
    changing(grown)
    run("pfs-master", "/pfs")
    changing(lambda fs: make(fs, walk(fs, b"@@-1:00001"), b"inside", b"in a PFS"))
    victim = tmp_path / "victim.img"
    subprocess.run(["cp", "--sparse=always", image, victim], check=True)
    if broken:
        with victim.open("r+b") as file:  # vol0_btree_root leads nowhere
            file.seek(240)
            file.write(bytes(8))
    out = tmp_path / "out"
    assert hammer.main(["-f", str(victim), "recover", str(out), *scope]) == 0
    top = out / "PFS00000"
    assert (top / "d" / "file").read_bytes() == b"CONTENT"
    assert (top / "d" / "long").read_bytes() == bytes(range(256)) * 1000
    assert (top / "d" / "long").samefile(top / "second name")
    assert (top / "d" / "long").stat().st_mode & 0o777 == 0o640
    assert (top / "d" / "long").stat().st_mtime == 1_000_000_000
    assert os.readlink(top / "d" / "link") == "file"
    assert os.readlink(top / "d" / "long link") == "x" * 100
    assert (out / "PFS00001" / "inside").read_bytes() == b"in a PFS"
    assert not (top / "d" / "removed").exists()


def test_names_of_a_hostile_image_do_not_lead_out(tmp_path: Path, image: Path) -> None:
    objects = {
        (0, 1): Found((0, 1), InodeData(obj_type=OBJTYPE_DIRECTORY, nlinks=1)),
        (0, 2): Found((0, 2), InodeData(obj_type=OBJTYPE_REGFILE), names=[(1, b"../../escaped")]),
        (0, 3): Found((0, 3), InodeData(obj_type=OBJTYPE_REGFILE), names=[(1, b"..")]),
        (0, 4): Found((0, 4), InodeData(obj_type=OBJTYPE_SOFTLINK), b"/etc", names=[(1, b"twice")]),
        (0, 5): Found((0, 5), InodeData(obj_type=OBJTYPE_DIRECTORY), names=[(1, b"twice")]),
        (0, 6): Found((0, 6), InodeData(obj_type=OBJTYPE_REGFILE), names=[(5, b"below")]),
        (0, 7): Found((0, 7), InodeData(obj_type=OBJTYPE_DIRECTORY), names=[(8, b"circle")]),
        (0, 8): Found((0, 8), InodeData(obj_type=OBJTYPE_DIRECTORY), names=[(7, b"circle")]),
        (0, 9): Found((0, 9), InodeData(obj_type=OBJTYPE_REGFILE), names=[(77, b"orphan")]),
        (0, 10): Found((0, 10), extents=[Extent(0, 16, [(1, 0)])]),
        (0, 11): Found((0, 11), InodeData(obj_type=OBJTYPE_REGFILE), names=[(1, b"y" * 3000)]),
    }
    for number in range(1000, 2500):  # deeper than paths may be
        inode = InodeData(obj_type=OBJTYPE_DIRECTORY)
        objects[0, number] = Found((0, number), inode, names=[(number + 1, b"z" * 100)])
    out = tmp_path / "out"
    out.mkdir()
    device = FileDevice(str(image), writable=False)
    Copy(VolumeSet.open([device]), objects, out).run()
    device.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "volume.img"]
    assert [path.name for path in out.iterdir()] == ["PFS00000"]
    below = {str(path.relative_to(out / "PFS00000")) for path in out.rglob("*")} - {"."}
    assert {"______escaped", "__", "twice", "obj_0x000000000000000a", "obj_0x000000000000004d/orphan"} <= below
    assert len([name for name in below if name.endswith("below")]) == 1
    assert all(not path.is_symlink() or path.readlink() == Path("/etc") for path in out.rglob("*"))
