"""Buffers of large requests go round in the heap, without page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import resource
from hammerfs.vfs.heap import keep_freed_memory

kept = keep_freed_memory()

def request():
    buffers = [bytes([number]) * (1 << 20) for number in range(4)]

request()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    request()
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_large_buffers_are_not_mapped_in_again_for_each_request() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True, check=True)
    kept, faults = done.stdout.split()
    if kept != "True":
        pytest.skip("this C library's allocator cannot be told")
    assert int(faults) < 20 * 256, "each request mapped in at least one whole buffer"
