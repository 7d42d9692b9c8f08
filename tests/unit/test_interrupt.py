"""Signals while training are noticed between steps."""

from __future__ import annotations

import os
import signal

import pytest

from linne.training.interrupt import Interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_the_first_signal_is_noted_and_a_second_one_interrupts_at_once(number):
    before = signal.getsignal(number)
    with Interrupt() as interrupt:
        os.kill(os.getpid(), number)
        assert interrupt.number == number
        with pytest.raises(KeyboardInterrupt) as caught:
            os.kill(os.getpid(), signal.SIGTERM)
        assert caught.value.args == (signal.SIGTERM,)
        assert interrupt.number == number
    assert signal.getsignal(number) == before


def test_work_of_many_pieces_stops_at_the_piece_after_the_signal():
    seen = []
    with Interrupt() as interrupt:
        for piece in interrupt.until(range(10)):
            seen.append(piece)
            if piece == 2:
                os.kill(os.getpid(), signal.SIGTERM)
    assert seen == [0, 1, 2]
