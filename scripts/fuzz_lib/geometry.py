"""Big-blocks of 128 KiB instead of 8 MiB, so that a whole image is looked at in milliseconds.

Three structures of HAMMER fill a big-block however small the file system is: both layers of the freemap and the UNDO
FIFO.  With 8 MiB a check of an empty image looks at 16,384 FIFO sectors and 786,432 freemap entries; with 128 KiB at
256 and 12,288.  The code under test is the same, as every number of the format comes from `ondisk/constants.py`; only
images of the two geometries cannot be mixed.  `--real` leaves the format's own numbers alone.
"""

from __future__ import annotations

import sys

from hammerfs.ondisk import constants

SMALL_BITS = 17
FIFO_READ_SIZE = 32 * 1024
"""Stands in for the megabyte in which recovery reads the FIFO, which must divide a big-block."""
_HARMLESS = {"hammerfs", "hammerfs.ondisk", "hammerfs.ondisk.constants"}


def shrink() -> None:
    """Change the geometry of this process; before any module of hammerfs that could have looked at it is loaded."""
    if is_small():
        return
    early = [name for name in sys.modules if name.startswith("hammerfs") and name not in _HARMLESS]
    assert not early, f"loaded too early: {', '.join(early)}"
    size = 1 << SMALL_BITS
    layer2 = size // constants.LAYER2_ENTRY_SIZE
    vars(constants).update(
        BIGBLOCK_BITS=SMALL_BITS,
        BIGBLOCK_SIZE=size,
        BIGBLOCK_MASK=size - 1,
        LAYER1_RADIX=size // constants.LAYER1_ENTRY_SIZE,
        LAYER2_RADIX=layer2,
        LAYER2_SPAN=layer2 * size,
    )
    from hammerfs.store import fiforeader

    vars(fiforeader).update(CHUNK_SIZE=FIFO_READ_SIZE)


def is_small() -> bool:
    """Whether this process works with small big-blocks."""
    return constants.BIGBLOCK_BITS == SMALL_BITS
