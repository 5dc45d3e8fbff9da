"""The mirroring directives on image files: pipes between them, what they print, and what they refuse."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path

import pytest
from mirror_images import change, check, hammer, looked_at, master, new_image, root_tree, run, slave, slave_tree
from mirror_pair import lose_data, settle, tree
from mirror_pair import slave_root as pfs_root
from small_filesystem import make, mount

from hammerfs.cli import offline
from hammerfs.cli.hammer import check_restrictions, main
from hammerfs.cli.hammer_options import HammerOptions, parse
from hammerfs.cli.mirror_copy import command
from hammerfs.cli.mirror_end import check_target, place_of
from hammerfs.cli.mirror_pipe import MirrorPipe, Throttle
from hammerfs.cli.mirror_progress import MirrorProgress, load_cycle, save_cycle
from hammerfs.device.file import FileDevice
from hammerfs.errors import HammerError, StreamError, UsageError
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.element import first_key
from hammerfs.ondisk.mirror import Header, Idle, Record, StreamParser, StreamRecord, Sync, Term, packed


def records(stream: bytes) -> list[StreamRecord]:
    parser = StreamParser()
    parser.feed(stream)
    found = []
    while (record := parser.next_record()) is not None:
        found.append(record)
    parser.finish()
    return found


def more(fs: FileSystem) -> None:
    """Three changes, each with a TID of its own."""
    for number in range(3):
        make(fs, fs.root, b"more%d" % number, b"x" * 100_000)
        settle(fs)


def test_a_stream_leads_from_image_to_image(tmp_path: Path) -> None:
    source, target = master(tmp_path / "source"), slave(tmp_path / "target")
    stream = hammer("-f", source, "mirror-read", "/")
    told = hammer("-f", target, "mirror-write", "/slave", stdin=stream)
    end = records(stream)[0].data.sync_end_tid  # type: ignore[union-attr]
    assert told.decode() == f"Source can update synctid to {end:#018x}\n"
    assert slave_tree(target) == root_tree(source)
    change(source, more)
    stream = hammer("-f", source, "mirror-read", ".", f"{end + 1:#x}")
    assert sum(isinstance(record, Record) for record in records(stream)) == 27
    hammer("-f", target, "mirror-write", "slave", stdin=stream)
    assert slave_tree(target) == root_tree(source)
    check(target)


def test_a_stream_that_is_cut_off_anywhere_is_told_and_goes_on(tmp_path: Path) -> None:
    source, target = master(tmp_path / "source"), slave(tmp_path / "target")
    stream = hammer("-f", source, "mirror-read", "/")
    for part, complaint in (
        (700, b"in the middle of a record"),
        (len(stream) // 2, b"in the middle"),
        (640, b"cut off"),
    ):
        done = run("-f", target, "mirror-write", "/slave", stdin=stream[:part])
        assert done.returncode == 2
        assert complaint in done.stderr
        assert done.stderr.count(b"\n") == 1
        check(target)
    hammer("-f", target, "mirror-write", "/slave", stdin=stream)
    assert slave_tree(target) == root_tree(source)


def test_a_long_range_goes_in_pieces(tmp_path: Path) -> None:
    source, target = master(tmp_path / "source"), slave(tmp_path / "target")
    change(source, more)
    told = run("-f", source, "-S", "64k", "mirror-read", "/")
    stream = records(told.stdout)
    ends = [record.data.sync_end_tid for record in stream if isinstance(record, Header)]
    assert len(ends) == 8
    assert ends[1::2] == sorted(set(ends[1::2]))
    assert sum(isinstance(record, Sync) for record in stream) == 4
    assert re.search(rb"Prescan 4 chunks, total 2 MBytes \(\d+, \d+, \d+, ...\)", told.stderr)
    cut = len(told.stdout) - 1000
    assert run("-f", target, "mirror-write", "/slave", stdin=told.stdout[:cut]).returncode == 2
    assert slave_tree(target).keys() < root_tree(source).keys()
    hammer("-f", target, "mirror-write", "/slave", stdin=told.stdout)
    assert slave_tree(target) == root_tree(source)
    assert sum(isinstance(record, Sync) for record in records(hammer("-f", source, "-B", "mirror-read", "/"))) == 1


def test_dump_prints_what_the_original_prints(tmp_path: Path) -> None:
    source = master(tmp_path / "source")
    stream = hammer("-f", source, "mirror-read", "/")
    lines = hammer("mirror-dump", stdin=stream).decode().splitlines()
    assert lines[:2] == [
        "Record lo=00000001 obj=0000000000000001 key=0000000000000000 rt=01 ot=01",
        "       tids 0000000100000001:0000000000000000 data=128",
    ]
    assert len(lines) == 2 * sum(isinstance(record, Record) for record in records(stream))
    end = records(stream)[0].data.sync_end_tid  # type: ignore[union-attr]
    header = hammer("mirror-dump", "header", stdin=stream).decode()
    assert header == (
        "    sync-beg-tid=0x0000000000000000\n"
        f"    sync-end-tid={end:#018x}\n"
        "    shared-uuid=3f0c1d52-7a51-4f0e-8c39-00a0c9e5b0f1\n"
        "    unique-uuid=3f0c1d52-7a51-4f0e-8c39-00a0c9e5b0f1\n"
        '    label="small"\n'
        "    prune-min=00:00:00\n"
        "    operating as a MASTER\n"
    )


def test_a_cycle_file_remembers_where_to_go_on(tmp_path: Path) -> None:
    source, cycle = master(tmp_path / "source"), tmp_path / "cycle"
    end = records(hammer("-f", source, "-c", cycle, "mirror-read", "/"))[0].data.sync_end_tid  # type: ignore[union-attr]
    assert load_cycle(str(cycle), 7) == end + 1
    assert cycle.read_bytes() == first_key(0) + (end + 1).to_bytes(8, "little")
    told = records(hammer("-f", source, "-c", cycle, "mirror-read", "/"))
    assert [type(record) for record in told] == [Header, Header, Idle, Term]
    cycle.write_bytes(b"short")
    with pytest.raises(UsageError, match="malformed"):
        load_cycle(str(cycle), 7)
    assert load_cycle(str(tmp_path / "absent"), 7) == 7


def test_nothing_to_do_is_said(tmp_path: Path) -> None:
    source, target = master(tmp_path / "source"), slave(tmp_path / "target")
    done = run("-f", source, "mirror-read", "/", "0x7000000000000000")
    assert b"No work to do" in done.stderr
    assert [type(record) for record in records(done.stdout)] == [Header, Header, Idle, Term]
    hammer("-f", target, "mirror-write", "/slave", stdin=done.stdout)


def test_a_target_that_is_none_is_refused(tmp_path: Path) -> None:
    source, target = master(tmp_path / "source"), slave(tmp_path / "target")
    stream = hammer("-f", source, "mirror-read", "/")
    change(new_image(tmp_path / "other"), lambda fs: fs.symlink(fs.root, b"slave", b"@@PFS00001", 0, 0))
    foreign = bytearray(stream)
    header = records(stream)[0]
    assert isinstance(header, Header)
    data = bytearray(header.pfs)
    data[40:56] = bytes(16)
    foreign[320:640] = packed(Header(bytes(data)))
    for place, path, given, complaint in (
        (target, "/", stream, "target must be in slave mode"),
        (target, "/slave", bytes(foreign), "different shared-uuid"),
        (tmp_path / "other", "/slave", stream, "there is no PFS 1"),
        (target, "/slave", b"", "holds nothing"),
        (target, "/slave", b"x" * 100, "no mirroring stream"),
        (target, "/slave", packed(Sync()), "without a PFSD"),
        (target, "/slave", stream[:640] + packed(Header(bytes(data))) + packed(Sync()), "termination sync"),
    ):
        done = run("-f", place, "mirror-write", path, stdin=given)
        assert done.returncode != 0
        assert complaint in done.stderr.decode()
        assert done.stderr.count(b"\n") == 1
    check(target)


def test_a_slave_that_does_not_exist_is_made_if_that_is_wanted(tmp_path: Path) -> None:
    source, target = master(tmp_path / "source"), new_image(tmp_path / "target")
    stream = hammer("-f", source, "mirror-read", "/")
    done = run("-f", target, "-y", "mirror-write", "/slave", stdin=stream)
    assert done.returncode == 0, done.stderr.decode()
    assert b"Auto create new slave PFS!" in done.stderr
    assert b"Creating PFS#1" in done.stderr
    assert done.stdout.startswith(b"Source can update synctid")
    assert slave_tree(target) == root_tree(source)
    check(target)


def test_copies_lead_from_image_to_image(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, target = master(tmp_path / "source"), slave(tmp_path / "target")
    assert main(["-q", "-f", str(source), "-f", str(target), "mirror-copy", "/", "/slave"]) == 0
    assert slave_tree(target) == root_tree(source)
    change(source, more)
    assert main(["-q", "-f", str(source), "-f", str(target), "mirror-copy", "/", "/slave"]) == 0
    assert slave_tree(target) == root_tree(source)
    assert main(["-f", str(source), "-f", str(target), "mirror-copy", "/slave", "/"]) != 0
    assert "Traceback" not in capfd.readouterr().err
    check(target)
    check(source)


def test_a_copy_stays_within_an_image(tmp_path: Path) -> None:
    image = master(tmp_path / "image")
    hammer("-f", image, "pfs-master", "/master")
    change(image, lambda fs: make(fs, pfs_root(fs, 1), b"file", b"content" * 1000))
    done = run("-f", image, "-y", "mirror-copy", "/master", "/slave")
    assert done.returncode == 0, done.stderr.decode()
    assert b"Auto create new slave PFS!" in done.stderr

    def trees(fs: FileSystem) -> tuple[object, object]:
        return tree(fs, pfs_root(fs, 1)), tree(fs, pfs_root(fs, 2))

    same, copied = looked_at(image, trees)
    assert same == copied
    assert len(copied) == 2
    change(image, lambda fs: fs.unlink(pfs_root(fs, 1), b"file"))
    change(image, lambda fs: make(fs, pfs_root(fs, 1), b"another"))
    assert run("-f", image, "mirror-copy", "/master", "/slave").returncode == 0
    same, copied = looked_at(image, trees)
    assert same == copied
    done = run("-f", image, "mirror-copy", "/slave", "/master")
    assert done.returncode != 0
    assert b"target must be in slave mode" in done.stderr
    check(image)


def test_a_record_with_impossible_data_is_named_and_left_out(tmp_path: Path) -> None:
    image = master(tmp_path / "image")
    hammer("-f", image, "pfs-master", "/master")
    change(image, lambda fs: [make(fs, pfs_root(fs, 1), name, b"content" * 1000) for name in (b"hurt", b"sound")])
    _lose(image)
    line = (
        rb"(?m)^Mirror-read: left out lo=00010002 objid=\w{16} rt=10 key=\w{16} tid=\w{16} "
        rb"dataoff=\w{16}/-5: data record of -5 bytes, 1 to 65536 are possible$"
    )
    read = run("-f", image, "mirror-read", "/master")
    assert read.returncode == 0
    assert re.search(line, read.stderr)
    assert not isinstance(records(read.stdout)[-1], Record)
    done = run("-f", image, "-y", "mirror-copy", "/master", "/slave")
    assert done.returncode == 0
    assert re.search(line, done.stderr)

    def contents(fs: FileSystem) -> list[bytes]:
        top = pfs_root(fs, 2)
        return [fs.read(fs.lookup(top, name), 0, 7) for name in (b"hurt", b"sound")]

    assert looked_at(image, contents) == [bytes(7), b"content"]


def _lose(image: Path) -> None:
    fs = mount([FileDevice(str(image), writable=True)])
    lose_data(fs, pfs_root(fs, 1), b"hurt", data_len=-5)
    fs.close_now()


def test_a_copy_within_an_image_ends_in_time_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = master(tmp_path / "image")
    hammer("-f", image, "pfs-master", "/master")
    change(image, lambda fs: make(fs, pfs_root(fs, 1), b"file", b"content" * 1000))
    hammer("-f", image, "pfs-slave", "/slave", f"shared-uuid={_shared(image)}")
    monkeypatch.setattr(offline, "monotonic", itertools.count(0, 10).__next__)
    done = run("-f", image, "-t", "1", "mirror-copy", "/master", "/slave")
    assert re.search(rb"(?m)^Mirror-read /master interrupted by timer at \w{16}$", done.stderr)
    monkeypatch.undo()
    hammer("-f", image, "mirror-copy", "/master", "/slave")
    same, copied = looked_at(image, lambda fs: (tree(fs, pfs_root(fs, 1)), tree(fs, pfs_root(fs, 2))))
    assert same == copied
    check(image)


def _shared(image: Path) -> str:
    lines = hammer("-f", image, "pfs-status", "/master").decode().splitlines()
    return next(line for line in lines if "shared-uuid" in line).partition("=")[2]


def test_volumes_of_a_copy_have_to_be_clear(tmp_path: Path) -> None:
    source = master(tmp_path / "source")
    for words, complaint in (
        (["-f", "a", "-f", "b", "-f", "c", "mirror-copy", "/", "/slave"], b"one -f names the volumes of both ends"),
        (["-f", source, "-f", "b", "mirror-copy", "/", "host:/slave"], b"is on another host"),
        (["-f", source, "mirror-stream", "/", "/slave"], b"does not change"),
    ):
        done = run(*words)
        assert done.returncode != 0
        assert complaint in done.stderr


def test_the_volumes_of_each_end() -> None:
    words = command(HammerOptions(), "mirror-write", "/here", ["a", "b"])
    assert words[3:] == ["-f", "a:b", "-2", "mirror-write", "/here"]
    assert parse(["-f", "a:b", "-f", "", "mirror-copy"])[0].volume_sets == [["a", "b"], []]


def test_files_that_tell_how_far_it_is_are_kept_by_who_reads_on_this_machine() -> None:
    options = HammerOptions(cycle_path="/c", scoreboard="/e")
    for directive in ("mirror-read", "mirror-read-stream"):
        words = command(options, directive, "/here", [])
        assert words[3:7] == ["-c", "/c", "-e", "/e"]
        assert "-c" not in command(options, directive, "host:/there", [])
    assert "-e" not in command(options, "mirror-write", "/here", [])


def test_usages() -> None:
    for words in (
        ["mirror-read"],
        ["mirror-read", "/", "x"],
        ["mirror-write"],
        ["mirror-dump", "x"],
        ["mirror-copy", "/"],
    ):
        done = run(*words)
        assert done.returncode == 1
        assert done.stderr.startswith(b"hammer: usage: hammer " + words[0].encode())


# --- the parts ----------------------------------------------------------------------------------


def test_bandwidth_is_limited() -> None:
    now, pauses = [100.0], []

    def pause(seconds: float) -> None:
        pauses.append(round(seconds, 3))
        now[0] += seconds

    throttle = Throttle(1000, lambda: now[0], pause)
    assert [throttle.portion(700), throttle.portion(700), throttle.portion(700)] == [700, 300, 700]
    now[0] += 0.4
    assert [throttle.portion(300), throttle.portion(1)] == [300, 1]
    assert pauses == [1.0, 0.6]
    assert Throttle(0).portion(1 << 40) == 1 << 40


def test_remote_ends_are_reached_by_ssh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HAMMER_RSH", raising=False)
    options = HammerOptions(compress=True, ssh_port="2222", verbosity=2, yes=True, timeout=9, splitup="1g", delay=3)
    assert command(options, "mirror-read", "me@host:/pfs/a") == (
        "ssh -C -l me host -p 2222 hammer -vv -y -2 -t 9 -S 1g mirror-read /pfs/a".split()  # noqa: SIM905
    )
    monkeypatch.setenv("HAMMER_RSH", "rsh")
    assert command(HammerOptions(bulk=True, bandwidth=5), "mirror-read-stream", "host:a") == (
        ["rsh", "host", "hammer", "-2", "-b", "5", "-B", "-i", "5", "mirror-read-stream", "a"]
    )
    words = command(HammerOptions(timeout=9), "mirror-write", "host:/b:c")
    assert words == ["rsh", "host", "hammer", "-2", "mirror-write", "/b:c"]
    assert command(HammerOptions(), "mirror-write", "/here")[-3:] == ["-2", "mirror-write", "/here"]
    for place in ("-oProxyCommand=x:/a", "-x@host:/a"):
        with pytest.raises(UsageError, match="names no host"):
            command(HammerOptions(), "mirror-write", place)


@pytest.mark.parametrize("path", ["/pfs/a", "/pfs/a/", "/pfs/a/b", "/pfs/a/b..c"])
def test_what_lies_in_the_tree_is_allowed(path: str) -> None:
    check_target(HammerOptions(restrict_target="/pfs/a"), path)
    check_target(HammerOptions(), path)


@pytest.mark.parametrize("path", ["/pfs/ab", "/pfs", "/pfs/a/../b", "/pfs/a/..", "pfs/a", "/"])
def test_what_lies_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(UsageError, match="hammer-remote"):
        check_target(HammerOptions(restrict_target="/pfs/a"), path)


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        (None, "SSH_ORIGINAL_COMMAND env missing"),
        ("  ", "null command"),
        ("rm -rf /", "Command not 'hammer'"),
        ("hammer mirror-write /pfs/a", "does not match restricted command"),
        ("hammer -R mirror-write mirror-write /pfs/a", "does not match restricted command"),
        ("hammer -T / mirror-read /etc", "restricted target"),
        ("hammer mirror-read /pfs/b", "restricted target"),
        ("hammer -c /etc/passwd mirror-read /pfs/a", "-c, -e and -f are not allowed"),
        ("hammer -f /dev/sda mirror-read /pfs/a", "-c, -e and -f are not allowed"),
        ("hammer -2e /etc/passwd mirror-read /pfs/a", "-c, -e and -f are not allowed"),
    ],
)
def test_over_ssh_only_what_was_allowed_is_done(
    asked: str | None, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSH_ORIGINAL_COMMAND", raising=False)
    if asked is not None:
        monkeypatch.setenv("SSH_ORIGINAL_COMMAND", asked)
    done = run("ssh-remote", "mirror-read", "/pfs/a")
    assert done.returncode != 0
    assert complaint in done.stderr.decode()


def test_several_directives_may_be_allowed() -> None:
    options = HammerOptions(restrict_command="mirror-read,mirror-write")
    check_restrictions(options, "mirror-write")
    with pytest.raises(HammerError):
        check_restrictions(options, "mirror")


def test_a_scoreboard_tells_how_far_it_is(tmp_path: Path) -> None:
    board = tmp_path / "board"
    progress = MirrorProgress(HammerOptions(scoreboard=str(board), verbosity=-1))
    progress.running()
    progress.item({"at": 0x100000010})
    progress.sent(1, 2, 3)
    progress.cut([{"end": 9, "bytes": 5}], 5 << 20)
    text = board.read_text()
    assert text.split("\n")[0].rstrip() == "Running"
    assert "obj=0000000100000010 tids=0000000000000001:0000000000000002           3" in text
    assert "Prescan 1 chunks, total 5 MBytes" in text
    assert len(text) == 168


def test_an_interruption_names_the_object_that_was_reached(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = tmp_path / "board"
    progress = MirrorProgress(HammerOptions(scoreboard=str(board)))
    progress.running()
    progress.interrupted("/a")
    progress.item({"at": 0x100000010})
    progress.interrupted("/a")
    assert capsys.readouterr().err == (
        "Mirror-read /a interrupted by timer at 8000000000000000\n"
        "Mirror-read /a interrupted by timer at 0000000100000010\n"
    )
    assert "interrupted by timer at 0000000100000010" in board.read_text()


def test_a_verbose_stream_tells_the_same_into_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    """What hammer(8) says with -v: in one line that is rewritten, and that is no more on a terminal than elsewhere."""
    now = iter((0.0, 0.0, 0.05, 0.05, 0.06, 0.06))
    progress = MirrorProgress(HammerOptions(verbosity=1), streaming=True, clock=lambda: next(now))
    progress.running()
    progress.prescan()
    progress.cut([{"end": 9, "bytes": 5}], 5)
    for number in (1, 2):
        progress.item({"at": number})
        progress.sent(3, 4, number)
    progress.batch_ended(more=True)
    progress.running()
    progress.batch_ended(more=False)
    progress.waiting()
    progress.delayed()
    progress.woken()
    tids = "tids=0000000000000003:0000000000000004"
    assert capsys.readouterr().err == (
        "\nRunning  \b\b"
        "\nPrescan to break up bulk transfer\nPrescan 1 chunks, total 0 MBytes (5)\n"
        f"\rscan obj=0000000000000001 {tids}           1"
        f"\rscan obj=0000000000000002 {tids}           2"
        "\n (bulk incremental)"
        "\rRunning  \b\b"
        " W\bD\b "
    )


def test_without_v_nothing_is_told_of_the_scan(capsys: pytest.CaptureFixture[str]) -> None:
    progress = MirrorProgress(HammerOptions(), streaming=True)
    progress.running()
    progress.sent(3, 4, 5)
    progress.batch_ended(more=True)
    progress.waiting()
    progress.delayed()
    progress.woken()
    assert capsys.readouterr().err == ""


def test_a_verbose_reader_names_objects(tmp_path: Path) -> None:
    source, board = master(tmp_path / "source"), tmp_path / "board"
    told = run("-v", "-f", source, "-e", board, "mirror-read", "/")
    newest = max(record.leaf.obj_id for record in records(told.stdout) if isinstance(record, Record))
    lines = re.findall(rb"scan obj=(\w{16}) tids=\w{16}:\w{16} +(\d+)", told.stderr)
    assert int(lines[-1][0], 16) == newest
    assert f"obj={newest:016x} tids=" in board.read_text()
    assert told.stderr.startswith(b"\nRunning  \b\b\nPrescan to break up bulk transfer\nPrescan 1 chunks")


def test_a_prescan_is_told_before_it_begins(tmp_path: Path) -> None:
    source = master(tmp_path / "source")
    assert b"Prescan to break up bulk transfer\nPrescan 1 chunks" in run("-f", source, "mirror-read", "/").stderr
    told = run("-vv", "-S", "3m", "-f", source, "mirror-read", "/").stderr
    assert b"Prescan to break up bulk transfer (3MB chunks)\n" in told
    for words in (["-q"], ["-B"]):
        assert b"Prescan" not in run(*words, "-f", source, "mirror-read", "/").stderr


def test_a_prescan_tells_how_far_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, board = master(tmp_path / "source"), tmp_path / "board"
    change(source, more)
    told = run("-vv", "-S", "64k", "-f", source, "mirror-read", "/").stderr
    assert re.search(rb"bulk transfer \(0MB chunks\)\n\.{3,}\nPrescan 4 chunks", told)
    told = run("-v", "-S", "64k", "-f", source, "mirror-read", "/").stderr
    assert b"bulk transfer\nPrescan 4 chunks" in told
    progress = MirrorProgress(HammerOptions(scoreboard=str(board)))
    progress.prescan().item({"chunk": 3})
    assert "Prescan chunk 3 " in board.read_text()
    progress.cut([{"end": 9, "bytes": 5}], 5)
    progress.prescan().item({"chunk": 4})
    assert "Prescan chunk 3 " in board.read_text(), "the next batch's is not told"
    capsys.readouterr()


def test_a_cycle_file_that_cannot_be_written_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_cycle(str(tmp_path / "absent" / "cycle"), 5)
    assert "Warning: Unable to write" in capsys.readouterr().err


def test_a_pipe_whose_reader_is_gone_is_noticed() -> None:
    reading, writing = os.pipe()
    pipe = MirrorPipe(reading, writing)
    answer, answering = os.pipe()
    os.write(answering, b"!")
    pipe.wait_beside(answer)
    pipe.write(Sync())
    assert (pipe.peek(), pipe.read()) == (Sync(), Sync())
    os.write(writing, b"rest")
    os.close(writing)
    with pytest.raises(StreamError):
        pipe.read()
    os.close(reading)
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        MirrorPipe(0, writing).wait_beside(answer)
    for descriptor in (writing, answer, answering):
        os.close(descriptor)


def test_links_to_pfss_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "slave").symlink_to("@@0x0000000000000000:00002")
    (tmp_path / "other").symlink_to(tmp_path)
    assert place_of(HammerOptions(), str(tmp_path / "slave/")) == (str(tmp_path), {"name": "slave"})
    assert place_of(HammerOptions(), str(tmp_path / "other")) == (str(tmp_path / "other"), {})
    assert place_of(HammerOptions(), str(tmp_path)) == (str(tmp_path), {})
    assert place_of(HammerOptions(specials=["x"]), "/a/b") == ("/a", {"name": "b"})
    assert place_of(HammerOptions(specials=["x"]), "/") == ("/", {})
