"""`scripts/crashtest --judge`: what the original's hammer(8) says of damage is noticed, and leads back to the state.

What damage looks like in its output is tried on a program that prints such lines, and, where there is one, on the
original itself with damaged images.
"""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from pathlib import Path
from unittest import mock

import pytest
from crash_lib import replay
from crash_lib.explore import Effort
from crash_lib.main import Run, explore, main, parse_arguments, try_again
from crash_lib.original import DIRECTIVES, Original, write_sparsely
from crash_lib.small import FILE, fresh, mount
from second_opinion import demand_original
from structures import flipped, flips, structures

from hammerfs.device.memory import MemoryDevice
from hammerfs.ondisk.address import short_of
from hammerfs.ondisk.constants import BIGBLOCK_SIZE
from hammerfs.store.volumes import VolumeSet

FINE = [
    "     NODE 8000000001802000 cnt=08 p=0000000000000000 type=I depth=0 mirror=0000000100001450 fill=z8:v0:0:3:0=1% {",
    "G------ ELM  1 I lo=00000001 objid=0000000000000001 rt=01 key=0000000000000000 tid=0000000000000001",
    "               d del=0000000000000000 ot=01 dataoff=9000000002000000/128 icrc=c6ed9177 fill=z9:v0:0:4:0=1%",
    '                 dir-entry objid=0000000100000005 lo=00000002 name="errors"',
    "Collecting allocation info from UNDO: done",
    "  layer1 4000000000000000 @2000000000800000 blocks-free 32",
    "        4000000002000000 zone=9  app=20784   free=8367824",
    "3000000000000000 DUMMY(512)\tseq=00000000 ><",
    "3000000000000200 REDO(512)\tseq=00000001 offset=0 bytes=0 objid=0 flags=00000010 lo=00000000",
]
DAMAGED = [
    "B    NODE 8000000001802000 cnt=08 p=0000000000000000 type=I depth=0 mirror=0000000100001450 fill=z8:v0:0:3:0=1% {",
    "BM   NODE 8000000001802000 cnt=08 p=0000000000000000 type=I depth=0 mirror=0000000100001450 fill=z8:v0:0:3:0=1% {",
    "\tB-L---- ELM  1 I lo=00000001 objid=0000000000000001 rt=01 key=0000000000000000 tid=0000000000000001",
    "B----C- RBN  8 - lo=ffffffff objid=7fffffffffffffff rt=ffff key=7fffffffffffffff tid=ffffffffffffffff",
    "               d del=00000001000d0410 ot=01 dataoff=9000000002000080/292 crc=969cc641 error=BX fill=z9",
    "               d del=00000001000d0410 ot=01 dataoff=9000000002000080/292 icrc=969cc641 fill=z9:v0:0:4:128=B2",
    "3 bad records",
    "1 bad layer2",
    "2 errors",
    "BZ\tblock=2000000002000000 calc zone=9 , got zone=0",
    "BM\tblock=2000000002000000 zone=9  calc 8367824 free, got 8335056",
    "B layer1 4000000000000000 @2000000000800000 blocks-free 32",
    "BA      4000000001000000 zone=3  app=8388616 free=0",
    "B F     4000000000000000 zone=4  app=8388608 free=16777216",
    "Illegal size field, skipping to next boundary",
    "3000000000000000 0045(512)\tseq=00000000",
]


def imitation(folder: Path, body: str) -> Original:
    """A program of a few lines in the original's place."""
    path = folder / "imitation"
    path.write_text(f"#!{sys.executable}\nimport os, sys\n{body}\n")
    path.chmod(0o755)
    images = folder / "images"
    images.mkdir()
    return Original(path, images)


@lru_cache
def device() -> MemoryDevice:
    """A file system with a file in it."""
    [found] = fresh()
    fs = mount([found])
    fs.write(fs.create(fs.root, b"file", FILE, 0o644, 0, 0), 0, b"content" * 5000)
    fs.close_now()
    return found


# --- what is noticed ----------------------------------------------------------------------------
def test_what_a_sound_file_system_looks_like_is_no_damage(tmp_path: Path) -> None:
    assert not imitation(tmp_path, f"print({chr(10).join(FINE)!r})").complaints([device()])


@pytest.mark.parametrize("line", DAMAGED)
def test_a_line_that_tells_of_damage_is_noticed_among_others(line: str, tmp_path: Path) -> None:
    said = "\n".join([*FINE, line, *FINE])
    found = imitation(tmp_path, f"print({said!r})").complaints([device()])
    assert found == [f"the original's {directive}: {line.strip()}" for directive in DIRECTIVES]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("sys.exit('hammer: no such thing')", "ended with 1: hammer: no such thing"),
        ("print('a word', file=sys.stderr)", "ended with 0: a word"),
        ("sys.stdout.flush(); os.kill(os.getpid(), 11)", "died of signal 11: it says nothing"),
    ],
)
def test_an_end_that_is_none_is_noticed(body: str, said: str, tmp_path: Path) -> None:
    found = imitation(tmp_path, f"if sys.argv[3] == 'checkmap': {body}").complaints([device()])
    assert found == [f"the original's checkmap {said}"]


def test_the_judge_gets_all_volumes_as_sparse_files(tmp_path: Path) -> None:
    volumes = fresh(count=2)
    body = "print(*[f'3000000000000000 {name} {os.path.getsize(name)}' for name in sys.argv[2].split(':')])"
    judge = imitation(tmp_path, body)
    sizes = " 3000000000000000 ".join(f"volume{number}.img {item.size}" for number, item in enumerate(volumes))
    assert judge.complaints(volumes[::-1])[0] == f"the original's show: 3000000000000000 {sizes}"
    assert not list(judge.folder.iterdir())
    write_sparsely(volumes[0], tmp_path / "image")
    with (tmp_path / "image").open("rb") as image:
        assert all(
            image.read(BIGBLOCK_SIZE) == volumes[0].read(at, BIGBLOCK_SIZE)
            for at in range(0, volumes[0].size, BIGBLOCK_SIZE)
        )
    assert os.stat(tmp_path / "image").st_blocks * 512 < volumes[0].size // 4


# --- as a part of the exploration ---------------------------------------------------------------
FEW = Effort(states=3, exhaustive=4, again=1000, judged=40)


def test_a_complaint_is_a_failure_whose_words_lead_to_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = imitation(tmp_path, "print('2 errors')")
    run, other = Run(original=judge), Run()
    for each in (run, other):
        explore(each, "mixed", 1, FEW, 60, states=40)
    assert run.tally.states == other.tally.states, "the states tried are the same without a judge"
    assert not other.failed
    assert 2 < judge.judged == run.failed < run.tally.tried
    assert f"{judge.judged} judged by the original" in run.summary()
    words = run.lines[0].split()[1]
    assert replay.understood(words)[:2] == ("mixed", 1)
    assert "the original's show: 2 errors" in run.lines[0]
    capsys.readouterr()
    assert main(["--replay", words, "--judge", str(judge.program), "--work", str(tmp_path)]) == 1
    assert "the original's show: 2 errors" in capsys.readouterr().out
    assert try_again(words) == 0


def test_volumes_that_come_and_go_are_judged_as_far_as_they_are_members(tmp_path: Path) -> None:
    judge = imitation(tmp_path, "print(*['3000000000000000 ' + sys.argv[2]])")
    run = Run(original=judge)
    explore(run, "revolume", 1, FEW, 60, states=10)
    assert 2 < judge.judged == run.failed
    assert "volume0.img:volume1.img" in run.lines[0]


def test_a_program_that_does_not_end_is_noticed(tmp_path: Path) -> None:
    judge = imitation(tmp_path, "while True: print('x' * 100)")
    with mock.patch("crash_lib.original.OUTPUT_BYTES_MAX", 1 << 20):
        [complaint, *_] = judge.complaints_of("show", [])
    assert complaint.startswith("the original's show ended with 1: OSError: [Errno 27] File too large")


def test_a_judge_that_is_no_program_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["--judge", "/nowhere/hammer"])
    assert "no program: /nowhere/hammer" in capsys.readouterr().err


# --- the original itself ------------------------------------------------------------------------
def test_the_original_finds_nothing_wrong_with_a_sound_file_system(tmp_path: Path) -> None:
    judge = Original(demand_original(), tmp_path)
    assert not judge.complaints([device()])
    assert not judge.complaints(fresh(count=2))


def test_the_original_tells_of_a_flip_in_every_structure_and_is_understood(tmp_path: Path) -> None:
    """It prints damage and ends well, dies of it, or cannot read what it leads to: each is noticed."""
    judge = Original(demand_original(), tmp_path)
    found = list(structures(device()))
    for kind in sorted({structure.kind for structure in found}):
        for structure in [structure for structure in found if structure.kind == kind][:2]:
            for bit in flips(structure, 2):
                assert judge.complaints([flipped(device(), bit)]), f"bit {bit} of {structure}"


@pytest.mark.parametrize("place", [2, 4])
def test_the_original_tells_of_a_fifo_record_of_no_type_or_size(place: int, tmp_path: Path) -> None:
    """With a size that cannot be, it does not come to an end, either."""
    judge = Original(demand_original(), tmp_path)
    volumes = VolumeSet.open([device()])
    start = volumes.root.header.vol_buf_beg + short_of(volumes.root.header.undo_bigblock(0))
    damaged = device().copy()
    damaged.write(start + 512 + place, b"\x45\x00")
    assert any("show-undo" in text for text in judge.complaints([damaged]))
