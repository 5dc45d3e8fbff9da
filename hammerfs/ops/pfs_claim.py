"""Having a PFS to oneself while its records are rewritten behind the front end's back.

Promotion, demotion, destruction and a batch of mirroring each take long, give way at every step, and rest on what the
PFS was when they began.  So only one of them at a time may work on a PFS.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from hammerfs.errors import BusyError
from hammerfs.fs.mount import FileSystem


@contextmanager
def claimed(fs: FileSystem, pfs_id: int) -> Iterator[None]:
    """Nobody else rewrites the PFS within the block; BusyError while somebody does."""
    taken = fs.ctx.rewritten_pfs
    if pfs_id in taken:
        raise BusyError(f"PFS#{pfs_id} is being changed by somebody else")
    taken.add(pfs_id)
    try:
        yield
    finally:
        taken.discard(pfs_id)
