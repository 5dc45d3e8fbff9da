"""What becomes of ^C while an operation runs, or waits."""

from __future__ import annotations

import os
import signal

import pytest

from hammerfs.cli.hearing import ending_at_once, interrupts


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_interrupt_asks_and_the_second_ends() -> None:
    before = signal.getsignal(signal.SIGINT)
    asked: list[None] = []
    with interrupts(lambda: asked.append(None)):
        interrupt()
        assert len(asked) == 1
        with pytest.raises(KeyboardInterrupt):
            interrupt()
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_while_waiting_ends_at_once() -> None:
    with interrupts(lambda: pytest.fail("nothing to stop")), pytest.raises(KeyboardInterrupt), ending_at_once():
        interrupt()


def test_an_interrupt_just_before_waiting_is_not_forgotten() -> None:
    with interrupts(lambda: None):
        interrupt()
        with pytest.raises(KeyboardInterrupt), ending_at_once():
            pytest.fail("it waits, and nobody would end that")
