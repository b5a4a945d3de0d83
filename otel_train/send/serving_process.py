"""The process that serves a directory which is to be sent: have a stuck sidecar make way, and say who does not."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from otel_train.delivery import read_status
from otel_train.ring import ask_for_turn, lock_holder, start_time, turn_is_asked_for, withdraw
from otel_train.send.time_limit import BoundedExporter

logger = logging.getLogger(__name__)

EMPTY_REQUEST = b"\n\0"
"""Metrics of one resource, which has none: whoever answers that it is taken is a receiver."""


class ServingProcess:
    """Whoever has the lock of a directory for which this process waits.

    A sidecar whose session is over makes way for a process that asks, and leaves where that still serves the directory
    10 s later. So it is asked only when it delivers nothing and no rank lives whose records it has still to send, and
    when this process's receiver answers: one that is away for a while is the sidecar's to wait for, which tries longer.

    Args:
        directory: Directory of the rings.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._claim = f"{os.getpid()} {start_time(os.getpid())}"
        self._lives = False
        self._address = ""
        self._missing = ""
        """Why this process has no receiver that takes anything either."""
        self._asked = self._asks = False
        self.met = False
        """Whether it was waited for."""

    def wait(self, exporter: BoundedExporter, missing: str, *, lives: bool) -> None:
        """Note that it serves the directory, and ask it once to make way, where nothing is lost by that.

        Args:
            exporter: The connection.
            missing: Why there is no receiver to try; empty where there is one.
            lives: Whether a rank may write more records.
        """
        if not self.met:
            logger.info("another process serves %s%s; it is waited for", self._directory, self._pid())
        self.met, self._lives, self._address = True, lives, str(exporter.endpoint)
        self._missing = missing or self._missing
        status = read_status(self._directory)
        if missing or lives or self._asked or status is None or not status.failing:
            return
        if turn_is_asked_for(self._directory):
            return
        answer = exporter.send(EMPTY_REQUEST)
        if answer is not exporter.out_of_time:
            text = f": {answer.text}" if answer.text else ""
            self._missing = "" if answer.taken else f"{exporter.endpoint} takes nothing either ({answer.cause}{text})"
        if answer.taken:
            self._asked = self._asks = True
            ask_for_turn(self._directory, self._claim)
            logger.info("the process that serves %s is asked to make way: %s", self._directory, status)

    def withdraw(self) -> bool:
        """Ask no longer, and tell whether it was asked until now."""
        asks, self._asks = self._asks, False
        if asks:
            withdraw(self._directory, self._claim)
        return asks

    def why_left(self) -> str:
        """Return who serves the directory, where it sends to, and what to do."""
        pid, status = lock_holder(self._directory), read_status(self._directory)
        who = f"another process serves it, its sidecar or another send{self._pid()}"
        if status is None or not status.failing:
            where = f", sends to {status.address}" if status is not None and status.address else ""
            return f"{who}{where} and has not delivered it yet"
        kill = f"`kill {pid}`" if pid else "by a SIGTERM"
        if self._lives and status.address == self._address:
            remedy = "The job goes on, and so does its sidecar: what is recorded arrives when that receiver takes it"
        elif self._lives:
            remedy = (
                "The job goes on, and its sidecar keeps its receiver: run this again when the job has ended, or end "
                f"that sidecar, {kill}, for which no other is started, and run this again now and after the job"
            )
        elif self._missing:
            remedy = f"It goes on trying, for {self._missing}"
        else:
            remedy = f"End that process, {kill}, and run this again"
        return f"{who}: {str(status).removesuffix('.')}. {remedy}"

    def _pid(self) -> str:
        pid = lock_holder(self._directory)
        return f" (pid {pid})" if pid else ""
