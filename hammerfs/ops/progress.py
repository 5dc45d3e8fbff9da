"""How a long operation tells whoever started it how far it is, without knowing what a terminal is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the phases of an operation and the work done in each."""

    def phase(self, name: str, total: int) -> None:
        """A phase begins; `total` is its amount of work in units of its own, 0 when unknown."""

    def advance(self, amount: int) -> None:
        """`amount` more units of the current phase are done."""


class SilentProgress:
    """Tells nobody."""

    def phase(self, name: str, total: int) -> None:
        """Begin a phase."""

    def advance(self, amount: int) -> None:
        """Count work."""
