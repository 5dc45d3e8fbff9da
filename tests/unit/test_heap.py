"""Buffers of large requests go round in the heap, without page faults; cyclic garbage is looked for seldom."""

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


CYCLES = """
import gc
from hammerfs.vfs.heap import NEW_OBJECTS_MIN, seldom_look_for_cycles

class Knot:
    gone = 0

    def __init__(self):
        self.myself = self

    def __del__(self):
        Knot.gone += 1

seldom_look_for_cycles()
looks = sum(each["collections"] for each in gc.get_stats())
kept = [[] for _ in range(NEW_OBJECTS_MIN // 2)]
few = sum(each["collections"] for each in gc.get_stats()) - looks
for _ in range(NEW_OBJECTS_MIN):
    Knot()
print(few, Knot.gone)
"""


def test_cycles_are_looked_for_seldom_but_still_found() -> None:
    done = subprocess.run([sys.executable, "-c", CYCLES], stdout=subprocess.PIPE, text=True, check=True)
    looks_for_few, gone = map(int, done.stdout.split())
    assert looks_for_few == 0
    assert gone > 0
