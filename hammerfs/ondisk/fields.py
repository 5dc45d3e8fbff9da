"""Typed views on structures that are patched in place: one descriptor per field, offset and format stated once."""

from __future__ import annotations

import struct
import uuid
from typing import overload


class Structure:
    """A fixed-size structure inside a buffer.  `raw` may be shared; `base` is where the structure starts in it."""

    SIZE = 0
    __slots__ = ("base", "raw")

    def __init__(self, raw: bytes | bytearray | memoryview, base: int = 0) -> None:
        if len(raw) - base < self.SIZE:
            raise ValueError(f"{type(self).__name__} needs {self.SIZE} bytes, got {len(raw) - base}")
        self.raw = raw
        self.base = base

    def copy(self) -> bytes:
        """The structure's bytes, detached from the buffer."""
        return self.part(0, self.SIZE)

    def part(self, start: int, end: int) -> bytes:
        """Some of its bytes, detached from the buffer."""
        return bytes(self.raw[self.base + start : self.base + end])


class IntField:
    """A little-endian integer at a fixed offset of a Structure; `code` is a struct format character."""

    __slots__ = ("layout", "offset")

    def __init__(self, code: str, offset: int) -> None:
        self.layout = struct.Struct("<" + code)
        self.offset = offset

    @overload
    def __get__(self, instance: None, owner: type[Structure]) -> IntField: ...
    @overload
    def __get__(self, instance: Structure, owner: type[Structure]) -> int: ...
    def __get__(self, instance: Structure | None, owner: type[Structure]) -> IntField | int:
        if instance is None:
            return self
        value: int = self.layout.unpack_from(instance.raw, instance.base + self.offset)[0]
        return value

    def __set__(self, instance: Structure, value: int) -> None:
        assert not isinstance(instance.raw, bytes), "structure view is read-only"
        self.layout.pack_into(instance.raw, instance.base + self.offset, value)


class BytesField:
    """A fixed-length byte string; values shorter than the field are padded with NULs when set."""

    __slots__ = ("length", "offset")

    def __init__(self, length: int, offset: int) -> None:
        self.length = length
        self.offset = offset

    @overload
    def __get__(self, instance: None, owner: type[Structure]) -> BytesField: ...
    @overload
    def __get__(self, instance: Structure, owner: type[Structure]) -> bytes: ...
    def __get__(self, instance: Structure | None, owner: type[Structure]) -> BytesField | bytes:
        if instance is None:
            return self
        start = instance.base + self.offset
        return bytes(instance.raw[start : start + self.length])

    def __set__(self, instance: Structure, value: bytes) -> None:
        assert not isinstance(instance.raw, bytes), "structure view is read-only"
        if len(value) > self.length:
            raise ValueError(f"{len(value)} bytes do not fit a field of {self.length}")
        start = instance.base + self.offset
        instance.raw[start : start + self.length] = value.ljust(self.length, b"\0")


class UuidField:
    """A uuid as DragonFly stores it: the first three parts little-endian."""

    __slots__ = ("offset",)

    def __init__(self, offset: int) -> None:
        self.offset = offset

    @overload
    def __get__(self, instance: None, owner: type[Structure]) -> UuidField: ...
    @overload
    def __get__(self, instance: Structure, owner: type[Structure]) -> uuid.UUID: ...
    def __get__(self, instance: Structure | None, owner: type[Structure]) -> UuidField | uuid.UUID:
        if instance is None:
            return self
        start = instance.base + self.offset
        return uuid.UUID(bytes_le=bytes(instance.raw[start : start + 16]))

    def __set__(self, instance: Structure, value: uuid.UUID) -> None:
        assert not isinstance(instance.raw, bytes), "structure view is read-only"
        start = instance.base + self.offset
        instance.raw[start : start + 16] = value.bytes_le
