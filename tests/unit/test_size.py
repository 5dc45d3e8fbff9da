"""Sizes as newfs_hammer reads them and hammer(8) prints them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hammerfs.cli.size import format_size, parse_size
from hammerfs.errors import UsageError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512", 512),
        ("16k", 16 << 10),
        ("24M", 24 << 20),
        ("1g", 1 << 30),
        ("5T", 5 << 40),
        ("0x10M", 16 << 20),
        ("0K", 0),
        ("010M", 10 << 20),
        (" 3M ", 3 << 20),
    ],
)
def test_a_size_is_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "M", "1.5G", "-1M", "1KB", "12X", "1 M", "0x", "\u0661M"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no size"):
        parse_size(text)


def test_a_suffix_can_be_required() -> None:
    assert parse_size("24M", suffix_required=True) == 24 << 20
    with pytest.raises(UsageError, match="'24' lacks a suffix"):
        parse_size("24", suffix_required=True)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "  0.00B"),
        (511, "511.00B"),
        (512, "  0.50KB"),
        (32 << 10, " 32.00KB"),
        (256 << 10, "256.00KB"),
        (512 << 10, "  0.50MB"),
        (24 << 20, " 24.00MB"),
        (512 << 20, "  0.50GB"),
        (629145600, "  0.59GB"),
        (1 << 39, "  0.50TB"),
        (4 << 50, "4096.00TB"),
    ],
)
def test_a_size_is_printed_as_hammer_prints_it(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(0, 1 << 20), st.sampled_from("KMGTkmgt"))
def test_reading_agrees_with_arithmetic(number: int, suffix: str) -> None:
    assert parse_size(f"{number}{suffix}") == number * 1024 ** ("KMGT".index(suffix.upper()) + 1)
