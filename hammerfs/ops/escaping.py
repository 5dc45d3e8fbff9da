"""Names, labels and other text of an image, for reports and messages: a line stays a line, whatever the image says."""

from __future__ import annotations

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}


def on_one_line(text: str) -> str:
    """Text with control characters written as `\\xff`, so that it breaks no line and gives a terminal no orders.

    Bytes that are not UTF-8, which are lone surrogates in it, stay as they are.
    """
    return text if text.isprintable() else text.translate(_CONTROLS)
