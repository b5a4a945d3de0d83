"""Work on a user's files as that user: in a child of root's process that has become the user before it opens any."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import select
import signal
from collections.abc import Callable, Iterable
from typing import Any

NOBODYS_GROUP = 65534
"""Group of a user that the system does not know."""


def become(uid: int) -> None:
    """Give up root's rights for good, and take those of a user, with the user's groups.

    No other program is run: so root's environment, with the receiver's token, stays hidden from the user, as the
    kernel keeps processes apart that have changed their user (proc(5), PR_SET_DUMPABLE).

    Raises:
        OSError: The system does not let this process do that.
    """
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        group = NOBODYS_GROUP
        os.setgroups([])
    else:
        group = entry.pw_gid
        os.initgroups(entry.pw_name, group)
    os.setresgid(group, group, group)
    os.setresuid(uid, uid, uid)
    os.umask(0o077)


class OwnerProcess:
    """A child that does some work as a user, and returns what the work returned, as JSON.

    Args:
        uid: The user.
        work: The work.
        prepare: What the process does before, with root's rights: load what the user may not be able to read.
    """

    def __init__(self, uid: int, work: Callable[[], Any], prepare: Callable[[], None] = lambda: None) -> None:
        self.uid = uid
        self.descriptor, writer = os.pipe2(os.O_CLOEXEC)
        self.pid = os.fork()
        if not self.pid:
            _run(uid, prepare, work, writer)
        os.close(writer)
        self._output = b""

    def read(self) -> bool:
        """Read what the child has written by now, and tell whether that was all."""
        data = os.read(self.descriptor, 1 << 16)
        self._output += data
        return not data

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send it a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def result(self) -> Any:
        """Wait for its end, and return what the work returned.

        Raises:
            ChildProcessError: It was killed, or could not do the work.
        """
        os.close(self.descriptor)
        _, status = os.waitpid(self.pid, 0)
        try:
            content = json.loads(self._output)
        except ValueError:
            raise ChildProcessError(f"the process for uid {self.uid} has ended with status {status}") from None
        if "failed" in content:
            raise ChildProcessError(content["failed"])
        return content["result"]


def readable(processes: Iterable[OwnerProcess], seconds: float) -> list[OwnerProcess]:
    """Return the processes that can be read from, after that many seconds at most."""
    poll = select.poll()
    by_descriptor = {process.descriptor: process for process in processes}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.POLLIN)
    return [by_descriptor[number] for number, _ in poll.poll(1000 * seconds)]


def _run(uid: int, prepare: Callable[[], None], work: Callable[[], Any], writer: int) -> None:
    """Do the work as the user, in the child, and end it."""
    content: dict[str, Any] = {"failed": f"nothing can be done as uid {uid}"}
    try:
        prepare()
        if uid != os.geteuid():
            become(uid)
        content = {"result": work()}
    except Exception as error:  # noqa: BLE001  # the parent says it
        content = {"failed": f"nothing can be done as uid {uid}: {error}"}
    finally:
        with contextlib.suppress(OSError), os.fdopen(writer, "w") as pipe:
            json.dump(content, pipe)
        os._exit(0)
