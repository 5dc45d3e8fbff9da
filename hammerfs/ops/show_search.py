"""The part of the B-tree that hammer(8) show is asked for: `localization[:obj_id[:rec_type[:key[:create_tid]]]]`.

Source: `cmd_show.c: init_btree_search`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from hammerfs.errors import UsageError
from hammerfs.ondisk.element import InternalElement, pack_key

_HEX = re.compile(r"(0[xX])?[0-9a-fA-F]*\Z")
_NAMES = ("localization", "obj_id", "rec_type", "key", "create_tid")
_SHOWN = ("lo", "objid", "rt", "key", "tid")
_DIGITS = (8, 16, 4, 16, 16)
_SHOWN_DIGITS = (8, 16, 2, 16, 16)
_PREFIX_SIZES = (4, 12, 14, 22, 30)
_WHOLE_KEY = _PREFIX_SIZES[-1]
_SIGN = 1 << 63


@dataclass(frozen=True, slots=True)
class Search:
    """The beginning of a key.

    text -- as the user wrote it
    fields -- the numbers in it, one to five, unsigned as on disk
    prefix -- the bytes that every packed key sought begins with
    """

    text: str
    fields: tuple[int, ...]
    prefix: bytes

    @classmethod
    def parse(cls, text: str) -> Search | None:
        """Hexadecimal fields between colons, an empty one is 0; None for `none`; UsageError for what is no number."""
        if text == "none":
            return None
        words = text.split(":")[: len(_NAMES)]
        fields = tuple(_number(word, index) for index, word in enumerate(words))
        localization, obj_id, rec_type, key, create_tid = (*fields, *(0,) * (len(_NAMES) - len(fields)))
        packed = pack_key(localization, _signed(obj_id), rec_type, _signed(key), create_tid)
        return cls(text, fields, packed[: _PREFIX_SIZES[len(fields) - 1]])

    def line(self) -> str:
        """What is searched for, as the report says in front of the B-tree."""
        fields = zip(_SHOWN, _SHOWN_DIGITS, self.fields, strict=False)
        return f'arg="{self.text}"' + "".join(f" {name}={value:0{digits}x}" for name, digits, value in fields)

    def matches(self, key: bytes) -> bool:
        """Whether a packed key is one of those sought."""
        return key.startswith(self.prefix)

    def below(self, element: InternalElement, following: InternalElement) -> bool:
        """Whether what is sought may lie below `element`, whose right boundary is the element that follows it.

        Versions of one record, or records of one object, may lie on both sides of a boundary; one whole key may not.
        """
        size = len(self.prefix)
        right = following.packed_key()[:size]
        return element.packed_key()[:size] <= self.prefix and (
            self.prefix < right or (self.prefix == right and size < _WHOLE_KEY)
        )


def _number(word: str, index: int) -> int:
    digits = word[2:] if word[:2].lower() == "0x" else word
    if not _HEX.match(word) or len(digits.lstrip("0")) > _DIGITS[index]:
        raise UsageError(f"'{word}' is no {_NAMES[index]}: up to {_DIGITS[index]} hexadecimal digits")
    return int(digits or "0", 16)


def _signed(number: int) -> int:
    return number - 2 * _SIGN if number & _SIGN else number
