"""TERM records: a flush says in the FIFO what it commits of REDO, as the original does; nothing depends on it."""

from __future__ import annotations

from unittest import mock

import pytest
from small_filesystem import fresh, make, mount, recorded, walk
from test_filesystem_crash import flush_in_one_cycle
from test_redo_crash import fast_file, fast_fsync

from hammerfs.device.recording import drop_all, keep_all
from hammerfs.fs.cycle import Cycle
from hammerfs.fs.mount import FileSystem
from hammerfs.ondisk.address import Offset
from hammerfs.ondisk.constants import (
    HEAD_TYPE_REDO,
    REDO_SYNC,
    REDO_TERM_TRUNC,
    REDO_TERM_WRITE,
    REDO_TRUNC,
    REDO_WRITE,
)
from hammerfs.ondisk.fifo import RedoBody, redo_body
from hammerfs.store.fiforeader import FifoReader

_TERMS = (REDO_TERM_WRITE, REDO_TERM_TRUNC)


def redo_since(fs: FileSystem, start: Offset) -> list[RedoBody]:
    """The REDO records that were laid down from a place in the FIFO on."""
    undo = fs.ctx.undo
    assert undo is not None
    undo.flush()
    reader = FifoReader(fs.ctx.volumes)
    found = []
    for place in reader.scan(start, reader.distance(start, undo.next_offset)):
        body = redo_body(place.record()) if place.kind == HEAD_TYPE_REDO else None
        if body is not None:
            found.append(body)
    return found


def laid_until_now(fs: FileSystem) -> Offset:
    assert fs.ctx.undo is not None
    return fs.ctx.undo.next_offset


@pytest.mark.parametrize("version", [4, 6, 7])
def test_a_flush_terminates_what_fsyncs_laid(version: int) -> None:
    """By whole data records, and a truncation by where the blocks end (`hammer_inode.c: hammer_sync_inode`)."""
    fs = mount(fresh(version=version))
    fast_file(fs, b"f", b"x" * 100_000)
    fast_file(fs, b"untouched", b"y" * 100_000)
    inode = walk(fs, b"f")
    start = laid_until_now(fs)
    fs.write(inode, 20_000, b"page")
    fast_fsync(fs, b"f")
    fs.setattr(inode, size=70_000)
    fast_fsync(fs, b"f")
    fs.write(walk(fs, b"untouched"), 0, b"written, and not fsynced")
    flush_in_one_cycle(fs)
    bodies = redo_since(fs, start)
    assert [body.flags for body in bodies if body.flags not in _TERMS] == [REDO_SYNC, REDO_WRITE, REDO_TRUNC]
    terms = {
        (body.obj_id, body.localization, body.flags, body.offset, body.size) for body in bodies if body.flags in _TERMS
    }
    identity = inode.obj_id, inode.localization
    assert terms == {
        (*identity, REDO_TERM_WRITE, 16_384, 16_384),
        (*identity, REDO_TERM_WRITE, 65_536, 16_384),
        (*identity, REDO_TERM_TRUNC, 81_920, 0),
    }
    assert bodies.index(next(body for body in bodies if body.flags == REDO_TERM_TRUNC)) > 2


def test_a_truncation_that_is_cut_short_is_not_terminated() -> None:
    """Its rest is left to later groups, with nothing of it in the FIFO by then."""
    fs = mount(fresh())
    fast_file(fs, b"f", b"x" * 100_000)
    start = laid_until_now(fs)
    fs.setattr(walk(fs, b"f"), size=0)
    fast_fsync(fs, b"f")
    with (
        mock.patch("hammerfs.fs.sync_inode._RECORDS_PER_STRETCH", 1),
        mock.patch.object(Cycle, "should_cut_short", return_value=True),
    ):
        flush_in_one_cycle(fs)
        assert walk(fs, b"f").disk_end > 0, "it was not cut short"
    assert not [body for body in redo_since(fs, start) if body.flags in _TERMS]


def test_a_removed_file_is_not_terminated() -> None:
    """Recovery looks for no record of an object that is gone."""
    fs = mount(fresh())
    fast_file(fs, b"f", b"x" * 100_000)
    start = laid_until_now(fs)
    fs.write(walk(fs, b"f"), 20_000, b"page")
    fast_fsync(fs, b"f")
    fs.unlink(fs.root, b"f")
    flush_in_one_cycle(fs)
    assert not [body for body in redo_since(fs, start) if body.flags in _TERMS]


def test_terms_of_a_flush_that_is_rolled_back_hide_nothing() -> None:
    """They are in the FIFO before the header that commits the flush: until then what they name is redone."""
    recording, log = recorded(fresh())
    fs = mount(recording)
    fast_file(fs, b"f", b"x" * 50_000)
    begin = laid_until_now(fs)
    fs.write(walk(fs, b"f"), 20_000, b"fsynced")
    fast_fsync(fs, b"f")
    acknowledged = len(log.entries)
    make(fs, fs.root, b"other", b"o")
    flush_in_one_cycle(fs)
    assert [body for body in redo_since(fs, begin) if body.flags in _TERMS]
    for position in range(acknowledged, len(log.entries) + 1):
        for choose in (keep_all, drop_all):
            recovered = mount(log.power_cut(position, choose))
            assert recovered.read(walk(recovered, b"f"), 19_999, 9) == b"xfsyncedx"
