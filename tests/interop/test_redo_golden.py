"""REDO images of DragonFly: a read-write mount gives back what fast fsyncs promised there."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hammerfs.device.file import FileDevice
from hammerfs.fs.mount import FileSystem
from hammerfs.fs.options import REDO_REQUIRED, REDO_SKIPPED, MountOptions
from hammerfs.ops.check import check_devices

NAMES = ["g4-crash-redo", "g4-crash-redo-ext", "g4-crash-redo-v4"]


def _contents(fs: FileSystem, tree: list[dict[str, Any]]) -> dict[str, tuple[int, str]]:
    found = {}
    for entry in tree:
        if entry["type"] != "file":
            continue
        inode = fs.root
        for part in entry["path"].strip("/").split("/"):
            inode = fs.lookup(inode, part.encode("utf-8", "surrogateescape"))
        data = fs.read(inode, 0, inode.data.size)
        found[entry["path"]] = (inode.data.size, hashlib.sha256(data).hexdigest())
    return found


@pytest.mark.parametrize("name", NAMES)
def test_redo_gives_what_the_original_recovers(
    name: str,
    golden_image: Callable[[str], Path],
    golden_manifest: Callable[[str], dict[str, Any]],
) -> None:
    manifest = golden_manifest(name)
    expected = {e["path"]: (e["size"], e["sha256"]) for e in manifest["tree_rw"] if e["type"] == "file"}
    image = golden_image(name)
    for _ in range(2):
        fs = FileSystem.open([FileDevice(str(image), writable=True)], MountOptions())
        assert _contents(fs, manifest["tree_rw"]) == expected
        fs.close_now()
    device = FileDevice(str(image), writable=False)
    report = check_devices([device])
    device.close()
    assert not report.problems


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("skip_redo", "view"),
    [
        (REDO_REQUIRED, "tree_rw"),
        pytest.param(REDO_SKIPPED, "tree_ro", marks=pytest.mark.expect_log("recovery redo skipped")),
    ],
)
def test_a_read_only_mount_redoes_in_memory(
    name: str,
    skip_redo: int,
    view: str,
    golden_image: Callable[[str], Path],
    golden_manifest: Callable[[str], dict[str, Any]],
) -> None:
    """What fsync promised is shown; the original shows it to those only who mount for writing, as without REDO here."""
    manifest = golden_manifest(name)
    expected = {e["path"]: (e["size"], e["sha256"]) for e in manifest[view] if e["type"] == "file"}
    image = golden_image(name)
    before = hashlib.sha256(image.read_bytes()).digest()
    options = MountOptions(read_only=True, skip_redo=skip_redo)
    fs = FileSystem.open([FileDevice(str(image), writable=False)], options)
    assert _contents(fs, manifest[view]) == expected
    fs.close_now()
    assert hashlib.sha256(image.read_bytes()).digest() == before
