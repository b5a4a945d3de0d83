"""The wait of a process for whatever ends it."""

from __future__ import annotations

import signal
import threading

from otel_train.wakeup import Wakeup


def test_any_threads_signal_ends_wait() -> None:
    """A signal that the system gives to another thread runs its handler and ends the main thread's wait."""
    wakeup, handled = Wakeup(), threading.Event()
    hand_over = threading.Timer(0.2, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1))
    with wakeup.handling({signal.SIGUSR1: handled.set}):
        hand_over.start()
        assert wakeup.wait(60)
    assert handled.is_set()


def test_wait_ends_once() -> None:
    """However often it was set before, the next wait ends at once and the one after it lasts."""
    wakeup = Wakeup()
    for _ in range(100_000):  # more than a pipe holds
        wakeup.set()
    assert wakeup.wait(10)
    assert not wakeup.wait(0)


def test_handlers_are_restored() -> None:
    """A program that embeds a service has its own handlers back."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with Wakeup().handling({signal.SIGTERM: lambda: None, signal.SIGINT: lambda: None}):
        pass
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
