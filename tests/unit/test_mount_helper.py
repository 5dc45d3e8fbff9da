"""`mount.hammer`: the command lines of mount(8) and mount_hammer(8), as arguments of `hammerfs mount`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import pytest

from hammerfs.cli import mount, mount_helper


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[argparse.Namespace]:
    """What `hammerfs mount` was asked for; nothing is mounted."""
    calls: list[argparse.Namespace] = []

    def run(args: argparse.Namespace) -> int:
        calls.append(args)
        return 0

    monkeypatch.setattr(mount, "run", run)
    return calls


@pytest.mark.parametrize(
    ("words", "options", "specials"),
    [
        (["a.img", "/mnt"], [], ["a.img"]),
        (["a.img:b.img", "/mnt", "-o", "rw,nofail"], ["rw,nofail"], ["a.img:b.img"]),
        (["a.img", "/mnt", "-s", "-n", "-v", "-N", "7", "-t", "hammer", "-o", "ro"], ["ro"], ["a.img"]),
        (["-o", "noatime", "-T", "0x0000000123456780", "a.img", "b.img", "/mnt"], None, ["a.img", "b.img"]),
    ],
)
def test_command_lines_of_mount(
    words: Sequence[str], options: list[str] | None, specials: list[str], asked: list[argparse.Namespace]
) -> None:
    assert mount_helper.main(words) == 0
    (args,) = asked
    assert args.options == (["noatime", "tid=0x0000000123456780"] if options is None else options)
    assert (args.specials, args.mountpoint, args.foreground) == (specials, "/mnt", False)


def test_a_fake_mount_looks_at_its_options_only(
    asked: list[argparse.Namespace], capsys: pytest.CaptureFixture[str]
) -> None:
    assert mount_helper.main(["-f", "a.img", "/mnt", "-o", "ro"]) == 0
    assert mount_helper.main(["-f", "a.img", "/mnt", "-o", "nohistroy"]) == 2
    assert capsys.readouterr().err == "mount.hammer: unknown mount option 'nohistroy'\n"
    assert not asked
