"""Files found without the B-tree, where nodes of long ago lie around, with places that hold something else now."""

from __future__ import annotations

import random

from administration import ask
from small_filesystem import fresh, make, mount, walk

from hammerfs.fs.mount import FileSystem
from hammerfs.ops.recover import Found, Scope, find_objects, read_extent
from hammerfs.store.volumes import VolumeSet

MIB = 1024 * 1024


def flush(fs: FileSystem) -> None:
    assert fs.flusher is not None
    fs.flusher.flush_now()


def content_of(volumes: VolumeSet, found: Found) -> bytes:
    pieces = [read_extent(volumes, extent) for extent in sorted(found.extents, key=lambda extent: extent.start)]
    return b"".join(piece or b"damaged" for piece in pieces)


def test_data_that_was_moved_is_found_although_its_old_place_was_used_again() -> None:
    fs = mount(devices := fresh())
    source = random.Random(1)
    kept = source.randbytes(20 * MIB)
    make(fs, fs.root, b"kept", kept)
    make(fs, fs.root, b"small", kept[:300])
    flush(fs)
    for number in range(6):
        name = b"passing-%d" % number
        make(fs, fs.root, name, source.randbytes(60 * MIB))
        flush(fs)
        fs.unlink(fs.root, name)
        flush(fs)
        ask(fs, "prune", everything=True)
        ask(fs, "reblock", parts="btree,inodes,dirs,data", percentage=100)
    numbers = [walk(fs, name).obj_id for name in (b"kept", b"small")]
    fs.close_now()
    volumes = VolumeSet.open(devices)
    objects = find_objects(volumes, Scope.USED)
    found, small = (objects[0, number] for number in numbers)
    assert any(len(extent.places) > 1 for extent in found.extents), "no node tells of an old place"
    assert content_of(volumes, found) == kept
    assert content_of(volumes, small)[:300] == kept[:300], "the end of a block may be zeros"
    for one, name in ((found, b"kept"), (small, b"small")):
        assert one.inode is not None
        assert one.names == [(1, name)]
