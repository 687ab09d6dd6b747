"""What Ray Tune pickles of the signals that end a search, and handlers that are left behind."""

from __future__ import annotations

import pickle
import signal

import pytest

from sentinode.distributed.stop_signals import StopSignals, interruptible


def test_former_handlers_stay_at_home() -> None:
    former = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda *_: None)  # which cannot be pickled
    try:
        with StopSignals() as signals:
            assert b"came" in pickle.dumps(signals)
    finally:
        signal.signal(signal.SIGINT, former)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_interrupt_and_are_then_heard_as_before(number: signal.Signals) -> None:
    former = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), interruptible():
        signal.raise_signal(number)
    assert signal.getsignal(number) is former
