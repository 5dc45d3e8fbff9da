"""Labels and names of an image in what commands print: control characters are escaped, odd bytes are no error."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from second_opinion import COMMAND
from small_filesystem import FIFO_SIZE, VOLUME_SIZE, make, mount

from hammerfs.cli import cleanup_folder, hammer
from hammerfs.device.file import FileDevice
from hammerfs.errors import UsageError
from hammerfs.ops.escaping import on_one_line
from hammerfs.ops.mkfs import FormatRequest, plan_format, write_file_system
from hammerfs.ops.mkfs_specials import Specials

LABEL = b"e\nv\x1b[2Ji\x7fl\xff\xc2\x9b"
SHOWN = rb"e\x0av\x1b[2Ji\x7fl" + b"\xff" + rb"\x9b"
CONTROLS = {*range(0x20), 0x7F} - {*b"\t\n"}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A file system with such a label."""
    path = tmp_path / "volume.img"
    with path.open("wb") as file:
        file.truncate(VOLUME_SIZE)
    device = FileDevice(str(path), writable=True)
    request = FormatRequest(os.fsdecode(LABEL), undo_size=FIFO_SIZE, force=True)
    write_file_system(plan_format(request, [VOLUME_SIZE]).layout, [device])
    device.close()
    return path


def run(image: Path, *words: bytes | str, answer: bytes = b"") -> bytes:
    """What a directive prints to an output that takes UTF-8 only; without control characters."""
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    command = [*COMMAND, "-f", image, "-d", *words]
    done = subprocess.run(command, input=answer, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not CONTROLS & {*done.stdout}
    return done.stdout


def test_control_characters_are_escaped_and_nothing_else() -> None:
    assert on_one_line(os.fsdecode(LABEL)) == os.fsdecode(SHOWN)
    assert on_one_line("plain ä \u20ac \\") == "plain ä \u20ac \\"
    assert on_one_line("tab\tand \x85") == r"tab\x09and \x85"


@pytest.mark.parametrize("directive", ["show", "show-undo", "blockmap", "checkmap"])
def test_every_report_of_volumes_begins_with_the_label(directive: str, image: Path) -> None:
    assert run(image, directive).splitlines()[0] == b"vol_label\t" + SHOWN


def test_the_label_of_a_file_system(image: Path) -> None:
    assert b"\tLabel               " + SHOWN + b"\n" in run(image, "info")
    stripped = run(image, "strip", answer=b"y\n")
    assert stripped.startswith(b"You have requested that HAMMER filesystem (" + SHOWN + b") be stripped\n")


def test_the_labels_of_a_pfs_and_of_a_snapshot(image: Path) -> None:
    run(image, "snapq", "/", LABEL)
    assert run(image, "snapls").endswith(b"\t" + SHOWN + b"\n")
    line = b'    label="' + SHOWN + b'"\n'
    assert line in run(image, "pfs-master", "/pfs", b"label=" + LABEL, b"snapshots=/" + LABEL)
    assert b'    snapshots="/' + SHOWN + b'"\n' in run(image, "pfs-status", "/pfs")
    assert run(image, "pfs-downgrade", "/pfs") == b"pfs-downgrade of PFS#1 (" + SHOWN + b") succeeded\n"
    assert b"Destroying PFS#1 (" + SHOWN + b")\n" in run(image, "pfs-destroy", "/pfs", answer=b"y\ny\n")


def test_the_words_of_a_configuration(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(cleanup_folder, "ROOT_BASE", tmp_path / "root")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    config = tmp_path / "config"
    config.write_bytes(b"\x1b[2J\xff 1d 5m\n")
    run(image, "config", "/", str(config))
    assert hammer.main(["-f", str(image), "cleanup"]) == 1
    assert capfdbinary.readouterr().out.splitlines()[-1] == rb"            \x1b[2J" + b"\xff - unknown directive"


def test_names_that_were_damaged(image: Path, tmp_path: Path) -> None:
    fs = mount([FileDevice(str(image), writable=True)])
    make(fs, fs.root, b"bad\n\xff", b"x" * 100)
    fs.close_now()
    content = image.read_bytes()
    image.write_bytes(content.replace(b"x" * 100, b"y" * 100))
    told = run(image, "recover", str(tmp_path / "out"))
    assert told.splitlines()[-1] == b"damaged: PFS00000/" + rb"bad\x0a" + b"\xff"


def test_a_refusal_to_overwrite_is_one_line(image: Path) -> None:
    with pytest.raises(UsageError) as refusal:
        Specials([str(image)], wanted_size=None, force=False)
    assert f"labelled '{os.fsdecode(SHOWN)}'" in str(refusal.value)
