"""A node of a test's Slurm: a machine of its own in all that its processes see, which can be cut off from its power."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.network import Host
from tests.support.stack_programs import ROOT

BINARIES = Path(sys.executable).parent
TOGETHER = ("setpriv", "--pdeathsig", "KILL")
"""A command that runs another one, which is killed as soon as this process is."""
FREEZER = Path("/sys/fs/cgroup/freezer")
NODE = """\
set -e
hostname {name}
mount --bind {home}/hosts /etc/hosts
[ ! -f {home}/{name}/slurm.conf ] || mount --bind {home}/{name}/slurm.conf {home}/slurm.conf
mount --bind {home}/{name}/shm /dev/shm
mkdir -p {home}/local
mount --bind {home}/{name}/disk {home}/local
{opened}
{freezer}
slurmd -D -N {name} &
wait
"""
"""What a node's first process does; it stays to reap what loses its parent, as an init does."""


class NodeHost:
    """A node of the cluster: a network, a name, processes, memory for rings and a disk of its own.

    Args:
        home: Folder of the cluster.
        host: Its network.
        name: Name that Slurm knows.
    """

    def __init__(self, home: Path, host: Host, name: str) -> None:
        self.home = home
        self.host = host
        self.name = name
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Its address."""
        return self.host.address

    @property
    def memory(self) -> Path:
        """Its /dev/shm, as seen from outside."""
        return self.home / self.name / "shm"

    @property
    def disk(self) -> Path:
        """Its disk, as seen from outside; there it is `home`/local."""
        return self.home / self.name / "disk"

    @property
    def _cgroup(self) -> Path:
        return FREEZER / f"{self.home.name}-{self.name}"

    def make(self) -> None:
        """Make its folders."""
        for name in ("spool", "shm", "disk", "container"):
            (self.home / self.name / name).mkdir(parents=True)
        for folder in (self.memory, self.disk):
            subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777", "none", str(folder)], check=True)

    def start(self) -> None:
        """Start it, with its processes killed as soon as its first one is."""
        script = self.home / self.name / "init"
        script.write_text(
            NODE.format(home=self.home, name=self.name, opened=opened(self.home), freezer=self._own_freezer())
        )
        join = f"echo $$ >{self._cgroup}/cgroup.procs && " if has_freezer() else ""
        if join:
            self._cgroup.mkdir(exist_ok=True)
        kinds = ["--mount", "--uts", "--pid", "--cgroup", "--fork", "--kill-child", "--mount-proc"]
        unshare = " ".join(["exec", "unshare", *kinds, "sh", str(script)])
        # `ip netns exec` would mount another /sys, without the cgroups.
        command = [f"--net=/run/netns/{self.host.namespace}", "sh", "-c", join + unshare]
        with (self.home / self.name / "init.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*TOGETHER, "nsenter", *command], env=daemon_environment(self.home), stdout=log, stderr=log
            )

    def _own_freezer(self) -> str:
        """Return what gives it cgroups of its own: both nodes have a step of the same number."""
        if not has_freezer():
            return ""
        mount = f"{self.home}/cgroup"
        return f"mount -t tmpfs none {mount}\nmkdir {mount}/freezer\nmount -t cgroup -o freezer none {mount}/freezer"

    def kill(self) -> None:
        """End all its processes at once, as a machine's end does; what is on its disk and in its memory stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def lose_memory(self) -> None:
        """Empty its memory, as a power cut does."""
        for path in self.memory.iterdir():
            shutil.rmtree(path)

    def remove(self) -> None:
        """End it and unmount what it had."""
        self.kill()
        for folder in (self.memory, self.disk):
            subprocess.run(["umount", "--lazy", str(folder)], check=False)
        for directory, _, _ in os.walk(self._cgroup, topdown=False):
            with contextlib.suppress(OSError):
                Path(directory).rmdir()

    def within(self, *command: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command there, as root."""
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        enter = ["nsenter", f"--target={children[0]}", "--mount", "--uts", "--pid", "--net"]
        return subprocess.run(
            [*enter, *map(str, command)],
            env=daemon_environment(self.home) | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


def has_freezer() -> bool:
    """Tell whether steps can be tracked by cgroups.

    Without, Slurm follows parents (proctrack/linuxproc) and does not see a process whose parent has ended: a sidecar
    outlives its step there, and what the tests say of its end is not tried.
    """
    return (FREEZER / "cgroup.procs").exists()


def opened(home: Path) -> str:
    """Return what lets a job's user reach the interpreter and this checkout where they are in root's own folders."""
    needed = dict.fromkeys(path.resolve() for path in (Path(sys.base_prefix), Path(sys.prefix), ROOT))
    closed: dict[Path, list[Path]] = {}
    for path in needed:
        barred = [parent for parent in path.parents if not parent.stat().st_mode & 0o001]
        if barred:
            closed.setdefault(barred[-1], []).append(path)
    lines = []
    for number, (parent, paths) in enumerate(closed.items()):
        kept = {path: f"{home}/opened/{number}-{index}" for index, path in enumerate(paths)}
        for path, copy in kept.items():
            lines += [f"mkdir -p {copy}", f"mount --bind {path} {copy}"]
        lines.append(f"mount -t tmpfs -o mode=755 none {parent}")
        for path, copy in kept.items():
            lines += [f"mkdir -p {path}", f"mount --bind {copy} {path}"]
    return "\n".join(lines)


def daemon_environment(home: Path) -> dict[str, str]:
    """Return the environment of Slurm's programs."""
    path = f"{BINARIES}:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
    return {"PATH": path, "SLURM_CONF": str(home / "slurm.conf"), "LANG": "C.UTF-8"}
