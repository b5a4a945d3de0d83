"""How a process waits for what ends it."""

from __future__ import annotations

import signal
import threading

from otel_train.wakeup import Wakeup


def test_a_signal_that_another_thread_gets_ends_the_wait() -> None:
    """The system may give a signal to any thread; its handler runs, and who waits in the main thread goes on."""
    wakeup, handled = Wakeup(), threading.Event()
    hand_over = threading.Timer(0.2, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1))
    with wakeup.handling({signal.SIGUSR1: handled.set}):
        hand_over.start()
        assert wakeup.wait(10)
    assert handled.is_set()


def test_a_wait_ends_once_for_all_that_was_said_before() -> None:
    """However often it was told, the next wait ends at once and the one after it lasts."""
    wakeup = Wakeup()
    for _ in range(100_000):  # more than a pipe holds
        wakeup.set()
    assert wakeup.wait(10)
    assert not wakeup.wait(0)


def test_signals_are_handled_as_before_afterwards() -> None:
    """Whoever embeds a service has its own handlers back."""
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with Wakeup().handling({signal.SIGTERM: lambda: None, signal.SIGINT: lambda: None}):
        pass
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
