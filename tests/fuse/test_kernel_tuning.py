"""What a mount tells the kernel beside libfuse."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hammerfs.vfs.kerneltuning import BACKGROUND_MAX, READ_AHEAD_KIB, tune_kernel

pytestmark = [
    pytest.mark.mount,
    pytest.mark.skipif(os.geteuid() != 0, reason="the kernel's control files take root"),
]


def device_of(here: Path) -> tuple[int, int]:
    number = here.stat().st_dev
    return os.major(number), os.minor(number)


@pytest.mark.skipif(shutil.which("unshare") is None, reason="a look without unshare(1) could be seen by others")
def test_the_kernel_asks_for_few_writes_behind_at_once(here: Path) -> None:
    _, minor = device_of(here)
    folder = "/sys/fs/fuse/connections"
    look = f"mount -t fusectl none {folder} && cat {folder}/{minor}/max_background"
    told = subprocess.run(["unshare", "--mount", "sh", "-c", look], capture_output=True, text=True, check=True)
    assert told.stdout.split() == [str(BACKGROUND_MAX)]


def test_the_kernel_reads_ahead_as_much_as_a_request_may_ask_for(here: Path) -> None:
    major, minor = device_of(here)
    assert Path(f"/sys/class/bdi/{major}:{minor}/read_ahead_kb").read_text().strip() == str(READ_AHEAD_KIB)


def test_what_is_no_mount_is_let_be(tmp_path: Path) -> None:
    tune_kernel(str(tmp_path))
