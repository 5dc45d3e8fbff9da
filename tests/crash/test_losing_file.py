"""The file below a real mount that loses what was not flushed: what it keeps, what it shows, what may be left of it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from crash_lib.losing_file import SECTOR_SIZE, LosingFile, survivors

A, B, C = (letter * SECTOR_SIZE for letter in (b"a", b"b", b"c"))


def test_none_or_any_of_the_versions_of_a_sector_is_left() -> None:
    unflushed = {7: [A, B, C], 9: [A, B]}
    left = [survivors(unflushed, random.Random(seed)) for seed in range(200)]
    assert {found.get(7) for found in left} == {None, A, B, C}
    assert {found.get(9) for found in left} == {None, A, B}
    assert {(found.get(7), found.get(9)) for found in left} >= {(A, B), (C, A), (None, B), (B, None)}


@pytest.mark.trio
async def test_every_write_since_the_last_fsync_is_kept_and_the_newest_shown(tmp_path: Path) -> None:
    backing = tmp_path / "backing"
    backing.write_bytes(bytes(8 * SECTOR_SIZE))
    file = LosingFile(str(backing), "seed")
    await file.write(2, SECTOR_SIZE, A + A)
    await file.write(2, 2 * SECTOR_SIZE + 10, b"!")
    torn = A[:10] + b"!" + A[11:]
    assert file.unflushed == {1: [A], 2: [A, torn]}
    assert await file.read(2, 0, 3 * SECTOR_SIZE) == bytes(SECTOR_SIZE) + A + torn
    assert not backing.read_bytes().strip(b"\0"), "nothing was flushed"
    await file.fsync(2, datasync=True)
    assert not file.unflushed
    assert backing.read_bytes()[: 3 * SECTOR_SIZE] == bytes(SECTOR_SIZE) + A + torn
