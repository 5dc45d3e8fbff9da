"""The hashes of names, against what the original's hammer(8) prints."""

from __future__ import annotations

import pytest

from hammerfs.cli import hammer
from hammerfs.ondisk.constants import CAP_DIRHASH_ALG0
from hammerfs.ondisk.direntry import name_key
from hammerfs.ondisk.namekeys import namekey1, namekey2, namekey32

PRINTED = [
    ("a", "0x68b7be4300000000", "0x04000001e8b7be42", "0x68b7be43"),
    ("ab", "0x1e83486d00000000", "0x044000229e83486c", "0x1e83486d"),
    ("abc", "0x352441c200000000", "0x04430043352441c2", "0x352441c2"),
    ("abcd", "0x6d82cd1100000000", "0x04430064ed82cd10", "0x6d82cd11"),
    ("abcde", "0x0587d86500000000", "0x044300858587d864", "0x0587d865"),
    ("abcdef", "0x4b8e39ef00000000", "0x0443cca64b8e39ee", "0x4b8e39ef"),
    ("abcdefgh", "0x2eef2a5000000000", "0x0443a8e8aeef2a50", "0x2eef2a50"),
    ("Makefile", "0x6441a1ac00000000", "0x342b71856441a1ac", "0x6441a1ac"),
    ("snap-20261126", "0x1a288b1300000000", "0x4dc15e569a288b12", "0x1a288b13"),
]


@pytest.mark.parametrize(("name", "key1", "key2", "key32"), PRINTED)
def test_names_hash_as_the_original_prints_them(
    name: str, key1: str, key2: str, key32: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for word in ("namekey1", "namekey2", "namekey32"):
        assert hammer.main([word, name]) == 0
    assert capsys.readouterr().out.split() == [key1, key2, key32]
    assert namekey1(name.encode()) == name_key(CAP_DIRHASH_ALG0, name.encode())[0]


def test_no_name_hashes_to_nothing() -> None:
    assert namekey1(b"") == namekey2(b"") == 1 << 32
    assert namekey32(b"") == 1


@pytest.mark.parametrize("words", [["namekey1"], ["namekey2", "a", "b"]])
def test_one_name_at_a_time(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert hammer.main(words) == 1
    assert "usage: hammer namekey" in capsys.readouterr().err
