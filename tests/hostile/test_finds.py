"""Images that once led hammerfs astray, each a program for `scripts/fuzz` under the name of what went wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_lib.bases import CORPUS
from fuzz_lib.campaign import Laboratory
from fuzz_lib.changes import Program

ROOT = Path(__file__).resolve().parents[2]
FINDS = json.loads((CORPUS / "finds.json").read_text())
IMAGES = 1500
SECONDS = 30
IMAGES_MIN = 25
"""Tried in that time even on a machine that has much else to do."""


@pytest.fixture(scope="module")
def laboratory() -> Laboratory:
    """Base images in the format's own geometry, which is that of this process."""
    return Laboratory()


@pytest.mark.parametrize("name", FINDS)
def test_a_find_is_mended_with_real_big_blocks(laboratory: Laboratory, name: str) -> None:
    laboratory.look(Program.from_json(FINDS[name]), "write")


def fuzz(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts" / "fuzz"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_all_finds_are_mended_in_every_way_of_looking() -> None:
    result = fuzz("--replay", str(CORPUS / "finds.json"))
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"{len(FINDS)} images replayed, 0 failures" in result.stdout


def test_hostile_images_of_a_fixed_seed() -> None:
    result = fuzz("--seed", "default", "--images", str(IMAGES), "--seconds", str(SECONDS))
    assert result.returncode == 0, result.stdout + result.stderr
    images = int(result.stdout.splitlines()[-1].split()[1])
    assert images >= IMAGES_MIN, result.stdout
