"""Our mkfs against newfs_hammer: same options, uuid and time, so the same bytes, in all versions and on two volumes."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hammerfs.cli.mkfs import main

Manifest = dict[str, Any]
CHUNK = 1 << 20
NAMES = [*(f"n0-mkfs-v{version}" for version in range(1, 8)), "n0-mkfs-multi"]


def digest(image: Path) -> str:
    """SHA-256 of a whole file."""
    state = hashlib.sha256()
    with image.open("rb") as source:
        while chunk := source.read(CHUNK):
            state.update(chunk)
    return state.hexdigest()


def make(manifest: Manifest, folder: Path) -> list[Path]:
    """The images that our mkfs makes of a manifest, over sparse files of the same length."""
    images = []
    for volume in manifest["volumes"]:
        image = folder / volume["file"].removesuffix(".zst")
        image.touch()
        os.truncate(image, volume["image_bytes"])
        images.append(image)
    arguments = shlex.split(manifest["options"])
    arguments += ["--fsid", manifest["fsid"], "--time", str(manifest["root_inode_ctime_us"] * 1000)]
    assert main([*arguments, *map(str, images)]) == 0
    return images


@pytest.mark.parametrize("name", NAMES)
def test_equals_newfs_hammer_byte_for_byte(
    name: str, golden_manifest: Callable[[str], Manifest], tmp_path: Path
) -> None:
    manifest = golden_manifest(name)
    images = make(manifest, tmp_path)
    assert [digest(image) for image in images] == [volume["image_sha256"] for volume in manifest["volumes"]]


def test_every_fresh_golden_image_is_compared(golden: Path) -> None:
    assert {path.stem for path in golden.glob("n0-mkfs-*.json")} == set(NAMES)
