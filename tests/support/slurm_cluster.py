"""A real Slurm on this machine: a controller and nodes, each a host of its own, all of it below one folder."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from otel_train.smoke.child_process import ended_within
from otel_train.testing import OtlpReceiver
from tests.support.environment import clean_environment
from tests.support.mounts import require_root
from tests.support.network import Host, running_network
from tests.support.slurm_job import SlurmJob
from tests.support.slurm_node import TOGETHER, NodeHost, daemon_environment, has_freezer
from tests.support.stack_programs import ROOT
from tests.support.waiting import wait_until

USER = 65534
"""Owner of the jobs, who is nobody: what root does for a job must do for another user."""
KILL_WAIT = 5
"""Seconds between SIGTERM and SIGKILL, 30 by default."""
DAEMONS = ("munged", "slurmctld", "slurmd")
CPUS = 5
"""Of each node: as many jobs run side by side."""
ARRAY = "array.env"
"""Variables of arrays, one of which runs at a time."""
CLONE_NEWNET = 0x40000000
CONFIGURATION = """\
ClusterName=otel-train
SlurmctldHost={controller.name}({controller.address})
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={home}/munge/socket,cred_expire=10
CryptoType=crypto/munge
ProctrackType={proctrack}
TaskPlugin=task/none
PrologFlags=Contain
Prolog={home}/prolog
Epilog={home}/epilog
TaskProlog={home}/task-prolog
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
StateSaveLocation={home}/state
SlurmctldPidFile={home}/slurmctld.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdPidFile={home}/%n/slurmd.pid
SlurmdLogFile={home}/%n/slurmd.log
SlurmdSpoolDir={home}/%n/spool
KillWait={kill_wait}
OverTimeLimit=0
SlurmdTimeout=10
MessageTimeout=20
ReturnToService=2
JobRequeue=1
MpiDefault=none
DebugFlags=NO_CONF_HASH
MailProg=/bin/true
{nodes}
PartitionName=main Nodes={plain} Default=YES State=UP
PartitionName=private Nodes={private} State=UP
"""


class SlurmCluster:
    """A running cluster.

    Args:
        home: Folder of all that belongs to it.
        controller: Host of slurmctld, and of the receivers.
        nodes: The nodes; the last one gives each job a /dev/shm of its own.
    """

    def __init__(self, home: Path, controller: Host, nodes: list[NodeHost]) -> None:
        self.home = home
        self.controller = controller
        self.nodes = nodes
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._numbers = itertools.count(1)
        self._ports = itertools.count(4317)

    @property
    def local(self) -> Path:
        """The path of each node's disk, on the node."""
        return self.home / "local"

    def start(self) -> None:
        """Start all daemons and wait until the nodes are idle."""
        self._configure()
        munge = self.home / "munge"
        files = [f"--{kind}-file={munge / kind}" for kind in ("key", "log", "pid", "seed")]
        self._daemon("munged", "--foreground", "--force", f"--socket={munge / 'socket'}", *files)
        wait_until((munge / "socket").exists, 60, "munge's socket")
        named = f"hostname {self.controller.name} && mount --bind {self.home}/hosts /etc/hosts && exec slurmctld -D -c"
        self._daemon("unshare", "--uts", "--mount", "sh", "-c", named)
        for node in self.nodes:
            node.start()
        self.await_nodes()

    def await_nodes(self) -> None:
        """Wait until all nodes take jobs."""
        wait_until(
            lambda: {*self.command("sinfo", "--noheader", "--format=%T").split()} <= {"idle", "mixed", "allocated"},
            60,
            "the nodes' start",
            pause=0.2,
            log=self.home / "slurmctld.log",
        )

    def _configure(self) -> None:
        for folder, mode in (
            ("munge", 0o755),
            ("state", 0o700),
            ("local", 0o755),
            ("cgroup", 0o755),
            ("jobs", 0o777),
            ("logs", 0o777),
        ):
            (self.home / folder).mkdir()
            (self.home / folder).chmod(mode)
        key = self.home / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        hosts = {host.name: host.address for host in self.nodes} | {self.controller.name: self.controller.address}
        lines = "".join(f"{address} {name}\n" for name, address in hosts.items())
        (self.home / "hosts").write_text("127.0.0.1 localhost\n" + lines)
        configuration = self.home / "slurm.conf"
        configuration.write_text(
            CONFIGURATION.format(
                home=self.home,
                controller=self.controller,
                proctrack="proctrack/cgroup" if has_freezer() else "proctrack/linuxproc",
                kill_wait=KILL_WAIT,
                nodes="\n".join(f"NodeName={node.name} NodeAddr={node.address} CPUs={CPUS}" for node in self.nodes),
                plain=",".join(node.name for node in self.nodes[:-1]),
                private=self.nodes[-1].name,
            )
        )
        (self.home / "cgroup.conf").write_text(
            f"CgroupPlugin=cgroup/v1\nCgroupAutomount=no\nCgroupMountpoint={self.home}/cgroup\n"
        )
        last = self.home / self.nodes[-1].name
        (last / "slurm.conf").write_text(f"{configuration.read_text()}JobContainerType=job_container/tmpfs\n")
        (self.home / "job_container.conf").write_text(f"AutoBasePath=true\nBasePath={last}/container\n")
        for kind in ("prolog", "task-prolog", "epilog"):
            variable = kind.upper().replace("-", "_")
            script = self.home / kind
            # A daemon starts them with none of the site's variables; here each job has its own.
            script.write_text(
                "#!/bin/sh\n"
                f"exec 2>>{self.home}/logs/$SLURMD_NODENAME-{kind}.log\n"
                f"cd {self.home}/jobs\n"
                "export OTEL_TRAIN_SLURM_ENV=$PWD/$SLURM_JOB_ID.env\n"
                f'[ -r "$OTEL_TRAIN_SLURM_ENV" ] || OTEL_TRAIN_SLURM_ENV=$PWD/{ARRAY}\n'
                f'. "$OTEL_TRAIN_SLURM_ENV"\n'
                f'[ -z "${variable}" ] || exec "${variable}"\n'
            )
            script.chmod(0o755)

    def _daemon(self, *command: str) -> None:
        with (self.home / f"{command[0]}.out").open("wb") as output:
            enter = [*TOGETHER, "nsenter", f"--net=/run/netns/{self.controller.namespace}"]
            process = subprocess.Popen(
                [*enter, *command], env=daemon_environment(self.home), stdout=output, stderr=output
            )
        self._daemons.append(process)

    def command(self, *command: object, **environment: str) -> str:
        """Run one of Slurm's commands and return what it printed."""
        done = subprocess.run(
            ["nsenter", f"--net=/run/netns/{self.controller.namespace}", *map(str, command)],
            env=daemon_environment(self.home) | environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.returncode} {done.stdout}{done.stderr}"
        return done.stdout

    def submit(
        self, file: Path, *arguments: object, options: Sequence[str] = (), environment: Mapping[str, str]
    ) -> SlurmJob:
        """Submit a batch file.

        Args:
            file: The file.
            *arguments: Of the file; `{job}` in them is the job's folder.
            options: sbatch's.
            environment: Of the job, and of its prolog and epilog, where PROLOG, TASK_PROLOG and EPILOG name
                what runs as such.
        """
        number = next(self._numbers)
        home = self.home / "jobs" / f"{file.stem}-{number}"
        home.mkdir()
        home.chmod(0o777)
        variables = {**environment, "HOME": str(home), "PYTHONPATH": str(ROOT)}
        # Its prolog must not run before the variables for it are there.
        command = ["sbatch", "--parsable", "--hold", f"--uid={USER}", f"--gid={USER}", f"--chdir={home}"]
        command += [f"--output={home}/job.log", *options, str(file)]
        command += [str(argument).replace("{job}", str(home)) for argument in arguments]
        job = int(self.command(*command, **clean_environment(**daemon_environment(self.home), **variables)))
        lines = [f"{name}='{value}'\n" for name, value in environment.items()]
        # Tasks of an array have ids of their own, and a prolog is not told of which array they are.
        name = ARRAY if any(option.startswith("--array") for option in options) else f"{job}.env"
        (self.home / "jobs" / name).write_text("".join(lines))
        self.command("scontrol", "release", job)
        return SlurmJob(self.command, job, home)

    def receiver(self, port: int = 0) -> OtlpReceiver:
        """Return a receiver that all nodes reach; it does not run yet."""
        made = []

        def make() -> None:
            # Sockets stay in the network in which their thread made them.
            with Path(f"/run/netns/{self.controller.namespace}").open("rb") as namespace:
                assert ctypes.CDLL(None).setns(namespace.fileno(), CLONE_NEWNET) == 0
            made.append(OtlpReceiver(f"{self.controller.address}:{port}"))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        return made[0]

    def free_port(self) -> int:
        """Return a port of the controller's that no receiver has had."""
        return next(self._ports)

    def stop(self) -> None:
        """End everything."""
        for node in self.nodes:
            node.remove()
        for process in reversed(self._daemons):
            process.terminate()
            if not ended_within(process, 15):
                process.kill()
                process.wait()


@contextlib.contextmanager
def running_slurm() -> Iterator[SlurmCluster]:
    """Run a cluster of three nodes, the third with private directories, as long as the block."""
    require_root("make nodes of a cluster")
    missing = [name for name in DAEMONS if shutil.which(name, path=daemon_environment(Path())["PATH"]) is None]
    if missing:
        raise FileNotFoundError(f"{', '.join(missing)}: apt-get install slurmctld slurmd slurm-client munge")
    home = Path(tempfile.mkdtemp(prefix="otel-train-slurm-", dir="/var/tmp"))
    home.chmod(0o755)
    try:
        with running_network(["node1", "node2", "node3", "controller"]) as hosts:
            nodes = [NodeHost(home, host, f"node{host.number}") for host in hosts[:3]]
            cluster = SlurmCluster(home, hosts[3], nodes)
            try:
                for node in nodes:
                    node.make()
                cluster.start()
                yield cluster
            finally:
                cluster.stop()
    finally:
        shutil.rmtree(home, ignore_errors=True)
