"""What every test may lean on: golden images, a guard on the log, and programs that may be missing.

Three rules are enforced here rather than repeated in tests: a warning in hammerfs' log that no test
asked for is a failure, a test that needs /dev/fuse or a program skips and says so where there is
none, and `kill -USR1` shows where a hanging test run stands.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import zstandard

from hammerfs import compiled

PROJECT_ROOT = Path(__file__).resolve().parent.parent
COPY_CHUNK = 64 * 1024  # bytes; what is not written when all zero, so that images stay sparse
ZERO_CHUNK = bytes(COPY_CHUNK)

# Machines differ, and a slow one is no failure; the blob replays a failing example elsewhere.
# A change is judged by the same examples each time; who looks for new failures asks for new ones.
RANDOM = os.environ.get("HAMMERFS_RANDOM") == "1"
hypothesis.settings.register_profile("hammerfs", deadline=None, print_blob=True, derandomize=not RANDOM)
hypothesis.settings.load_profile("hammerfs")

# Tests replace parts of hammerfs, so this process runs the sources, unless it is asked to try compiled modules.
if os.environ.get("HAMMERFS_TEST_COMPILED") == "1":
    compiled.use()
    assert compiled.in_use(), "there are no compiled modules of these sources: scripts/compile makes them"

GROWTH_BYTES_MAX = 200 * 1024 * 1024

Manifest = dict[str, Any]
STACKS_FD = pytest.StashKey[int]()


# ------------------------------------------------------------------------------------------------
# the run as a whole


def pytest_configure(config: pytest.Config) -> None:
    """Let SIGUSR1 print all threads' stacks on the terminal, past pytest's capturing, and keep an eye on memory."""
    config.stash[STACKS_FD] = os.dup(2)
    faulthandler.register(signal.SIGUSR1, file=config.stash[STACKS_FD], all_threads=True)
    config.pluginmanager.register(Memory())


def pytest_unconfigure(config: pytest.Config) -> None:
    faulthandler.unregister(signal.SIGUSR1)
    os.close(config.stash[STACKS_FD])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was not asked for want of a program, in tests that are right without it."""
    opinion = sys.modules.get("second_opinion")
    if opinion is not None and opinion.missed:
        terminalreporter.write_line(
            f"no second opinion on {opinion.missed} file systems: {opinion.VARIABLE} names no program"
        )


def why_no_mount() -> str | None:
    """The reason why nothing can be mounted by FUSE here, or None."""
    if shutil.which("fusermount3") is None:
        return "fusermount3 is not installed (Debian package fuse3)"
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"/dev/fuse cannot be opened: {error.strerror}"
    return None


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("mount") and (reason := why_no_mount()):
        pytest.skip(reason)
    for marker in item.iter_markers("programs"):
        if absent := [name for name in marker.args if shutil.which(name) is None]:
            pytest.skip(f"not installed: {', '.join(absent)}")


class Memory:
    """Takes back what the last tests' file systems occupied, whenever that has become much.

    They lie in cycles of few objects with hundreds of megabytes behind them.  The collector counts objects, and lets
    several of them come together.
    """

    def __init__(self) -> None:
        self._kept = resident_bytes()

    def pytest_runtest_logfinish(self) -> None:
        if resident_bytes() < self._kept + GROWTH_BYTES_MAX:
            return
        gc.collect()
        if (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)) is not None:
            trim(0)
        self._kept = resident_bytes()


def resident_bytes() -> int:
    """What this process occupies; 0 where nobody tells."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


# ------------------------------------------------------------------------------------------------
# the log


class RecordList(logging.Handler):
    """Keeps warnings and worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def log_complaints(records: Sequence[logging.LogRecord], patterns: Sequence[str]) -> list[str]:
    """What is wrong with a test's log: records no pattern expects, patterns that nothing matched."""
    messages = [record.getMessage() for record in records]
    unexpected = [
        f"unexpected {record.levelname} of {record.name}: {message}"
        for record, message in zip(records, messages, strict=True)
        if not any(re.search(pattern, message) for pattern in patterns)
    ]
    unmet = [
        f"expected in the log, but not there: {pattern}"
        for pattern in patterns
        if not any(re.search(pattern, message) for message in messages)
    ]
    return unexpected + unmet


@pytest.fixture(autouse=True)
def log_guard(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test that makes hammerfs log a warning or an error.

    `@pytest.mark.expect_log(PATTERN, ...)` names those that belong to the test. Each pattern must
    occur, and nothing else may.
    """
    patterns = [pattern for marker in request.node.iter_markers("expect_log") for pattern in marker.args]
    logger = logging.getLogger("hammerfs")
    handler = RecordList()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    if complaints := log_complaints(handler.records, patterns):
        pytest.fail("\n".join(complaints), pytrace=False)


# ------------------------------------------------------------------------------------------------
# golden images: file systems written by DragonFly's own code, kept beside the project


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden images and manifests; tests that want it skip where it is absent."""
    folder = PROJECT_ROOT.parent / "shared" / "golden"
    if not folder.is_dir():
        pytest.skip("no golden images: ../shared/golden is not there")
    return folder


@pytest.fixture(scope="session")
def golden_manifest(golden: Path) -> Callable[[str], Manifest]:
    """A function from a manifest's name, such as "g1-basic", to its contents."""

    def load(name: str) -> Manifest:
        manifest: Manifest = json.loads((golden / f"{name}.json").read_bytes())
        return manifest

    return load


def decompress_sparsely(packed: Path, target: Path) -> None:
    """Unpack a .zst file, leaving holes where it is zero."""
    with (
        packed.open("rb") as source,
        zstandard.ZstdDecompressor().stream_reader(source, read_size=COPY_CHUNK) as reader,
        target.open("wb") as image,
    ):
        while chunk := reader.read(COPY_CHUNK):
            if chunk == ZERO_CHUNK[: len(chunk)]:
                image.seek(len(chunk), os.SEEK_CUR)
            else:
                image.write(chunk)
        image.truncate()


@pytest.fixture(scope="session")
def golden_original(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function from a file's name without .zst, such as "g1-basic.img", to the file unpacked.

    All tests of a run share it: for reading only, and its mode says so.
    """
    folder = tmp_path_factory.mktemp("golden")

    def unpack(name: str) -> Path:
        target = folder / name
        if not target.exists():
            unfinished = folder / f"{name}.unfinished"
            decompress_sparsely(golden / f"{name}.zst", unfinished)
            unfinished.chmod(0o444)
            unfinished.rename(target)
        return target

    return unpack


@pytest.fixture
def golden_image(golden_original: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    """A function from an image's name, such as "g8-vol0", to this test's own writable copy of it.

    Every call makes a fresh copy; asked twice for the same one, it overwrites the first.
    """

    def copy(name: str) -> Path:
        original = golden_original(f"{name}.img")
        target = tmp_path / original.name
        subprocess.run(["cp", "--force", "--sparse=always", "--reflink=auto", original, target], check=True)
        target.chmod(0o644)
        return target

    return copy


@pytest.fixture
def golden_volumes(
    golden_manifest: Callable[[str], Manifest], golden_image: Callable[[str], Path]
) -> Callable[[str], list[Path]]:
    """A function from a manifest's name to this test's own copies of all volumes it lists."""

    def copy(name: str) -> list[Path]:
        volumes = golden_manifest(name)["volumes"]
        return [golden_image(volume["file"].removesuffix(".img.zst")) for volume in volumes]

    return copy


# ------------------------------------------------------------------------------------------------
# compiled modules


@pytest.fixture(scope="session")
def compiled_modules() -> None:
    """There are compiled modules of these very sources, as there have to be where `scripts/test` compiled them."""
    if not Path(compiled.store(), compiled.fingerprint()).is_dir():
        if os.environ.get("HAMMERFS_COMPILE") == "1":
            pytest.fail("the modules could not be compiled; scripts/compile --force tells why")
        pytest.skip("no compiled modules of these sources: scripts/compile makes them")


# ------------------------------------------------------------------------------------------------
# the local clock


@pytest.fixture
def time_zone() -> Iterator[Callable[[str], None]]:
    """Sets this process's time zone for one test; tests of other modules share the process and its clock."""
    with pytest.MonkeyPatch.context() as patch:

        def enter(name: str) -> None:
            patch.setenv("TZ", name)
            time.tzset()

        yield enter
    time.tzset()


@pytest.fixture
def utc(time_zone: Callable[[str], None]) -> None:
    """The local clock shows UTC."""
    time_zone("UTC")
