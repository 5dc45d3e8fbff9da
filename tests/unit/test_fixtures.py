"""The shared fixtures do what they promise: the guard on the log fails tests, images unpack exactly."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).resolve().parents[1] / "conftest.py"


GUARDED = """
import logging
import pytest

logger = logging.getLogger("hammerfs")

def test_quiet():
    logger.info("as it should be")
    logging.getLogger("other").warning("not ours")

@pytest.mark.expect_log("^odd .*40$")
def test_expected():
    logger.warning("odd at %#x", 64)

def test_unexpected():
    logger.getChild("store.undo").error("odd")

@pytest.mark.expect_log("^odd")
def test_expected_and_unexpected():
    logger.warning("odd")
    logger.warning("unrelated")

@pytest.mark.expect_log("^odd")
def test_expected_in_vain():
    pass

@pytest.mark.programs("sh")
def test_program_at_hand():
    pass

@pytest.mark.programs("sh", "no-such-program")
def test_program_missing():
    raise AssertionError("not to be run")
"""


def test_marks_and_log_decide(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makeini("[pytest]\nmarkers =\n    expect_log\n    programs\n")
    pytester.makepyfile(GUARDED)
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-rEs")
    result.assert_outcomes(passed=6, errors=3, skipped=1)
    result.stdout.fnmatch_lines_random(
        [
            "ERROR *::test_unexpected - Failed: unexpected ERROR of hammerfs.store.undo: odd*",
            "ERROR *::test_expected_and_unexpected - *: unexpected WARNING of hammerfs: unrelated*",
            "ERROR *::test_expected_in_vain - *expected in the log, but not there: ^odd*",
            "SKIPPED * not installed: no-such-program",
        ]
    )


def test_an_unpacked_image_is_what_its_manifest_says(
    golden_manifest: Callable[[str], dict[str, Any]], golden_original: Callable[[str], Path]
) -> None:
    image = golden_original("g1-basic.img")
    volume = golden_manifest("g1-basic")["volumes"][0]
    assert image.stat().st_size == volume["image_bytes"]
    assert image.stat().st_blocks * 512 < volume["image_bytes"] // 2, "the image is not sparse"
    with image.open("rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == volume["image_sha256"]


def test_a_copy_is_private(golden_image: Callable[[str], Path], golden_original: Callable[[str], Path]) -> None:
    copy = golden_image("g1-basic")
    with copy.open("r+b") as file:
        file.write(b"changed")
    for path in (golden_original("g1-basic.img"), golden_image("g1-basic")):
        with path.open("rb") as file:
            assert file.read(7) != b"changed"


def test_all_volumes_are_copied(golden_volumes: Callable[[str], list[Path]]) -> None:
    assert [path.name for path in golden_volumes("g8-twovol")] == ["g8-vol0.img", "g8-vol1.img"]
