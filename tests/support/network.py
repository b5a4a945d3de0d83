"""Hosts of their own on this machine: network namespaces on a bridge, any two of which can be cut from each other.

Each has a name of its own, by which the others know it; the kernel, and so its boot id, they share.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.support.mounts import require_root

T = TypeVar("T")
DEVICE = "eth0"
CLONE_NEWNET = 0x40000000
"""Kind of namespace, of setns(2)."""
NOBODY = "02:00:00:00:00:ff"
"""A hardware address that nobody has."""
FILES = Path("/etc/netns")
"""What a namespace's folder in it holds stands over the files of /etc there; see ip-netns(8)."""


def ip(*arguments: str) -> None:
    """Run iproute2's command."""
    subprocess.run(["ip", *arguments], check=True)


@dataclass(frozen=True)
class Host:
    """One of the hosts."""

    namespace: str
    number: int

    @property
    def name(self) -> str:
        """Return its name in the network."""
        return self.namespace.rpartition("-")[2]

    @property
    def address(self) -> str:
        """Return its address."""
        return f"10.77.0.{self.number}"

    @property
    def hardware(self) -> str:
        """Return its device's hardware address."""
        return f"02:00:00:00:00:{self.number:02x}"

    @property
    def within(self) -> tuple[str, ...]:
        """Return a command that runs another one there."""
        named = ("unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.name)
        return ("ip", "netns", "exec", self.namespace, *named)

    def call(self, function: Callable[[], T]) -> T:
        """Call a function there, in a thread of its own: sockets stay in the network in which their thread made them.

        Returns:
            What the function does.
        """

        def enter() -> T:
            with Path(f"/run/netns/{self.namespace}").open("rb") as namespace:
                assert ctypes.CDLL(None).setns(namespace.fileno(), CLONE_NEWNET) == 0
            return function()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(enter).result()

    def kill(self) -> None:
        """End all of its processes at once, as the loss of its power does."""
        listed = subprocess.run(["ip", "netns", "pids", self.namespace], check=True, capture_output=True, text=True)
        for pid in listed.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def reach(self, other: Host, hardware: str) -> None:
        """Let what goes to another host go to that hardware address, also on connections that are open."""
        ip(
            "-n",
            self.namespace,
            "neigh",
            "replace",
            other.address,
            "lladdr",
            hardware,
            "dev",
            DEVICE,
            "nud",
            "permanent",
        )


def cut(one: Host, other: Host) -> None:
    """Let nothing through between two hosts; neither is told."""
    one.reach(other, NOBODY)
    other.reach(one, NOBODY)


def heal(one: Host, other: Host) -> None:
    """Let everything through again."""
    one.reach(other, other.hardware)
    other.reach(one, one.hardware)


@contextmanager
def running_network(names: Sequence[str]) -> Iterator[list[Host]]:
    """Make hosts as long as the block; what is left running there is the caller's to end."""
    require_root("make network namespaces")
    # Namespaces are the machine's: two runs of the suite must not meet.
    prefix = f"otel-train-{os.getpid()}"
    switch = f"{prefix}-switch"
    hosts = [Host(f"{prefix}-{name}", number) for number, name in enumerate(names, start=1)]
    resolved = "".join(f"{host.address} {host.name}\n" for host in hosts)
    made: list[str] = []
    try:
        for namespace in (switch, *(host.namespace for host in hosts)):
            ip("netns", "add", namespace)
            made.append(namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        ip("-n", switch, "link", "add", "bridge0", "type", "bridge")
        ip("-n", switch, "link", "set", "bridge0", "up")
        for host in hosts:
            port, files = f"port{host.number}", FILES / host.namespace
            files.mkdir(parents=True)
            (files / "hosts").write_text(f"127.0.0.1 localhost\n{resolved}")
            ip("-n", switch, "link", "add", port, "type", "veth", "peer", "name", DEVICE, "netns", host.namespace)
            ip("-n", switch, "link", "set", port, "master", "bridge0", "up")
            ip("-n", host.namespace, "link", "set", DEVICE, "address", host.hardware, "up")
            ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", DEVICE)
        yield hosts
    finally:
        for namespace in made:
            ip("netns", "del", namespace)
            shutil.rmtree(FILES / namespace, ignore_errors=True)
