"""Trees of files, copied in and out by the programs that people copy trees with."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hammer_mount import HammerMount, run
from sample_tree import describe, differences

pytestmark = [pytest.mark.real, pytest.mark.mount, pytest.mark.slow]

RSYNC = ("rsync", "-aHAX", "--checksum", "--delete")


def assert_rsync_finds_no_difference(source: Path, target: Path) -> None:
    found = run(*RSYNC, "--dry-run", "--itemize-changes", f"{source}/", f"{target}/")
    assert found == ""


@pytest.mark.programs("cp", "rsync")
def test_cp_in_and_rsync_out(hammer: HammerMount, sample_tree: Path, tmp_path: Path) -> None:
    copy, back = hammer.path / "copy", tmp_path / "back"
    run("cp", "-a", sample_tree, copy)
    assert_rsync_finds_no_difference(sample_tree, copy)
    hammer.remount()
    assert_rsync_finds_no_difference(sample_tree, copy)
    run(*RSYNC, f"{copy}/", f"{back}/")
    assert not differences(describe(sample_tree), describe(back))
    shutil.rmtree(back)
    shutil.rmtree(copy)
    hammer.remount()
    assert os.listdir(hammer.path) == []


@pytest.mark.programs("tar", "rsync")
def test_tar_in_and_out(hammer: HammerMount, sample_tree: Path, tmp_path: Path) -> None:
    wanted = describe(sample_tree)
    del wanted[b"special/socket"]  # tar leaves sockets out
    first, second, archive = hammer.path / "first", hammer.path / "second", hammer.path / "tree.tar"
    run("tar", "--sparse", "--format=pax", "-cf", archive, "-C", sample_tree, ".")
    for folder in (first, second):
        folder.mkdir()
        run("tar", "-xpf", archive, "-C", folder)
    assert not differences(wanted, describe(first))
    hammer.remount()
    assert not differences(wanted, describe(first))
    assert not differences(wanted, describe(second))


@pytest.mark.programs("cp", "rsync", "setfacl")
def test_attributes_and_acls(hammer_mount: Callable[..., HammerMount], sample_tree: Path, tmp_path: Path) -> None:
    decorated = tmp_path / "decorated"
    run("cp", "-a", sample_tree / "modes", decorated)
    try:
        os.setxattr(decorated, "user.top", b"\0\xff" * 500)
    except OSError as error:
        pytest.skip(f"no extended attributes on this machine's own file system: {error.strerror}")
    for number, path in enumerate(sorted(decorated.iterdir())):
        os.setxattr(path, f"user.number-{number}", b"v" * (number * 37))
        subprocess.run(["setfacl", "-m", f"u:{number + 1}:rx,g:77:r", path], check=True)
        if path.is_dir():
            subprocess.run(["setfacl", "-d", "-m", "u:99:rwx", path], check=True)
    hammer = hammer_mount()
    hammer.mount("xattr")
    copy = hammer.path / "copy"
    run("cp", "-a", decorated, copy)
    assert not differences(describe(decorated), describe(copy))
    hammer.remount()
    assert_rsync_finds_no_difference(decorated, copy)
    run(*RSYNC, f"{copy}/", f"{hammer.path / 'again'}/")
    assert not differences(describe(decorated), describe(hammer.path / "again"))
