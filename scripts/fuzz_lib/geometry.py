"""Big-blocks of 128 KiB instead of 8 MiB, so that a whole image is looked at in milliseconds.

Three structures of HAMMER fill a big-block however small the file system is: both layers of the freemap and the UNDO
FIFO.  With 8 MiB a check of an empty image looks at 16,384 FIFO sectors and 786,432 freemap entries; with 128 KiB at
256 and 12,288.  The code under test is the same, as every number of the format comes from `ondisk/constants.py`; only
images of the two geometries cannot be mixed.  `--real` leaves the format's own numbers alone.

Layer 1 still has to cover all 2^60 bytes of addresses, or no volume but the first could exist, as the next one's
begin at 2^52.  A small layer 1 has 4,096 entries, so each covers 256 TiB, of which its layer 2 describes the first GiB.
Volumes of the fuzzer have a few MiB.
"""

from __future__ import annotations

import sys

from hammerfs.ondisk import constants

SMALL_BITS = 17
FIFO_READ_SIZE = 32 * 1024
"""Stands in for the megabyte in which recovery reads the FIFO, which must divide a big-block."""
_ADDRESSES = 1 << 60
_HARMLESS = {"hammerfs", "hammerfs.ondisk", "hammerfs.ondisk.constants"}


def shrink() -> None:
    """Change the geometry of this process; before any module of hammerfs that could have looked at it is loaded."""
    if is_small():
        return
    early = [name for name in sys.modules if name.startswith("hammerfs") and name not in _HARMLESS]
    assert not early, f"loaded too early: {', '.join(early)}"
    size = 1 << SMALL_BITS
    layer1 = size // constants.LAYER1_ENTRY_SIZE
    vars(constants).update(
        BIGBLOCK_BITS=SMALL_BITS,
        BIGBLOCK_SIZE=size,
        BIGBLOCK_MASK=size - 1,
        LAYER1_RADIX=layer1,
        LAYER2_RADIX=size // constants.LAYER2_ENTRY_SIZE,
        LAYER2_SPAN=_ADDRESSES // layer1,
    )
    from hammerfs.store import fiforeader

    vars(fiforeader).update(CHUNK_SIZE=FIFO_READ_SIZE)


def is_small() -> bool:
    """Whether this process works with small big-blocks."""
    return constants.BIGBLOCK_BITS == SMALL_BITS
