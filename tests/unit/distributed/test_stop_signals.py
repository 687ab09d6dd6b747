"""What Ray Tune pickles of the signals that end a search, and handlers that are left behind."""

from __future__ import annotations

import pickle
import signal

from sentinode.distributed.stop_signals import StopSignals, own_sigint


def test_former_handlers_stay_at_home() -> None:
    former = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda *_: None)  # which cannot be pickled
    try:
        with StopSignals() as signals:
            assert b"came" in pickle.dumps(signals)
    finally:
        signal.signal(signal.SIGINT, former)


def test_a_handler_left_behind_is_taken_away() -> None:
    former = signal.getsignal(signal.SIGINT)
    with own_sigint():
        signal.signal(signal.SIGINT, lambda *_: None)
    assert signal.getsignal(signal.SIGINT) is former
