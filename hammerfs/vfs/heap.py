"""How memory is given back: by the C library's allocator, and by Python's collector of cyclic garbage.

**Freed memory.**  Each large READ and WRITE takes buffers of up to 1 MiB and frees them at once.  By default glibc
gives such memory back to the kernel, which clears 256 pages and maps them in again for the next one: 480 page faults
and 1.7 of the 2.0 ms of CPU time of a 1 MiB READ.  Kept in the heap, the same buffers go round.

**Cyclic garbage.**  Nothing that requests and flushes leave behind is a cycle, so counting references frees all of it.
Looking for cycles all the same, after each 700 new objects, took 9 to 14 % of the CPU of creating, looking up and
reading files, and each look at everything 40 to 55 ms with 70,000 objects, during which nobody was answered.  With what
there is after the mount set aside, and looks that are that much rarer, it takes 2 to 3 %, at most 5 ms at a time.
"""

from __future__ import annotations

import ctypes
import gc
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
"""Parameters of mallopt(3), from malloc.h."""

KEPT_BYTES: Final = 8 * 1024 * 1024
"""More than the buffers of a few requests together, little beside the memory that caches may take."""
LARGEST_BUFFER: Final = 4 * 1024 * 1024
"""What is larger, hence rare, still comes straight from the kernel and goes back there."""
NEW_OBJECTS_MIN: Final = 10_000
"""Objects more than before the last look for cycles among them, before there is another."""


def keep_freed_memory() -> bool:
    """Let up to KEPT_BYTES of freed memory stay mapped; False where the allocator has no such setting."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, LARGEST_BUFFER)) and bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES))


def seldom_look_for_cycles() -> None:
    """Leave out what there is now from all looks for cyclic garbage, and look at what is new less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS_MIN)
