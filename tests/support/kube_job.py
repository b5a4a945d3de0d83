"""A job in a cluster, by the manifest that is shipped, with what its user fills in and this machine's Python."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.support.kube_control import ControlPlane
from tests.support.kube_image import IMAGE, USER
from tests.support.manifests import FOLDER, objects, pod_templates
from tests.support.torchrun import ROOT
from tests.support.waiting import wait_until

RANKS = 2
OUT = "/out"
ALONE = "--nnodes=1 --rdzv-endpoint=localhost:29500 --max-restarts=0"
"""What torchrun is told otherwise than in the manifest where a job has one pod, which fails with its first rank."""
PROGRAMS = ("/bin", "/lib", "/lib64", "/usr", sys.base_prefix, str(ROOT))
"""Folders of this machine that a container gets, to read: Python, its packages, the checkout."""
LONG = 300.0
"""Seconds that a pod may take for anything, on a busy machine."""


def _steps_in(path: Path) -> set[int]:
    """Return the steps that a rank has written."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return {int(line.split()[0]) for line in lines}


class KubeJob:
    """A job that was started.

    Args:
        plane: The cluster.
        namespace: Where it is.
        home: Folder where its ranks write, one of each pod.
    """

    def __init__(self, plane: ControlPlane, namespace: str, home: Path) -> None:
        self.plane = plane
        self.namespace = namespace
        self.home = home

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        """Run kubectl in the job's namespace, with a text as its input, and return what it printed."""
        return self.plane.kubectl(f"--namespace={self.namespace}", *arguments, text=text)

    def get(self, kind: str) -> Any:
        """Return the objects of a kind in the job's namespace."""
        return self.plane.get(kind, f"--namespace={self.namespace}")["items"]

    def pods(self) -> list[Any]:
        """Return its pods, the oldest first."""
        pods = [pod for pod in self.get("pods") if pod["metadata"]["labels"]["job-name"] == "train"]
        return sorted(pods, key=lambda pod: pod["metadata"]["creationTimestamp"])

    def folder(self, number: int = 0) -> Path:
        """Wait for a pod's training to begin, and return where it writes; pods are numbered as they begin."""
        wait_until(lambda: len(self.folders()) > number, LONG, f"pod {number}", pause=0.2)
        return self.folders()[number]

    def folders(self) -> list[Path]:
        """Return where the pods that began to train write, the first one first."""
        return sorted((path for path in self.home.iterdir() if path.is_dir()), key=lambda path: path.stat().st_ctime_ns)

    def steps(self, number: int = 0) -> list[int]:
        """Return the steps that all ranks of a pod have made."""
        folder = self.folder(number)
        return sorted(set.intersection(*(_steps_in(folder / f"rank{rank}.times") for rank in range(RANKS))))

    def steps_over_pods(self) -> list[int]:
        """Return the steps that all ranks have made in their present attempt, where each is in a pod of its own."""
        paths = [path for rank in range(RANKS) for path in self.home.glob(f"*/rank{rank}.times")]
        newest = {path.name: path for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns)}
        if len(newest) < RANKS:
            return []
        return sorted(set.intersection(*(_steps_in(path) for path in newest.values())))

    def reach(self, step: int, number: int = 0) -> None:
        """Wait until all ranks of a pod have made a step."""
        wait_until(lambda: len(self.steps(number)) >= step, LONG, f"step {step}", pause=0.1)

    def stop(self, number: int = 0) -> None:
        """Tell the ranks of a pod to stop."""
        (self.folder(number) / "stop").touch()

    def await_condition(self, condition: str, name: str = "train") -> None:
        """Wait for a condition of the job, or of another one beside it: Complete or Failed."""
        wait_until(lambda: condition in self.conditions(name), LONG, f"{condition}", pause=0.5)

    def conditions(self, name: str = "train") -> dict[str, str]:
        """Return the job's conditions that hold, each with its reason."""
        (job,) = (job for job in self.get("jobs") if job["metadata"]["name"] == name)
        conditions = job["status"].get("conditions", ())
        return {one["type"]: one.get("reason", "") for one in conditions if one["status"] == "True"}

    def await_pods_end(self) -> None:
        """Wait until every container of every pod has ended, or the pods are gone."""
        wait_until(
            lambda: all(pod["status"]["phase"] in ("Succeeded", "Failed") for pod in self.pods()),
            LONG,
            "the pods' end",
            pause=0.5,
        )

    def processes(self, text: str) -> list[int]:
        """Return this machine's processes of the job whose command line has a text."""
        pids = []
        for path in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if path.name.isdecimal() and text in (path / "cmdline").read_text():
                    environment = (path / "environ").read_bytes().split(b"\0")
                    if f"OTEL_TRAIN_TEST={self.namespace}".encode() in environment:
                        pids.append(int(path.name))
        return sorted(pids)

    def kill(self, text: str, signal: int) -> None:
        """Send a signal to the one process of the job whose command line has a text."""
        (pid,) = self.processes(text)
        os.kill(pid, signal)

    def write(self, size: int) -> None:
        """Write a file of so many bytes into the training container's own file system."""
        (pid,) = self.processes("torch.distributed.run")
        Path(f"/proc/{pid}/root/tmp/file").write_bytes(bytes(size))

    def is_ended(self, container: str) -> bool:
        """Tell whether a container of the first pod has ended."""
        statuses = self.pods()[0]["status"].get("containerStatuses", ())
        return any("terminated" in status["state"] for status in statuses if status["name"] == container)

    def log(self, container: str) -> str:
        """Return what a container of the newest pod has printed."""
        return self.kubectl("logs", self.pods()[-1]["metadata"]["name"], f"--container={container}")


StartJob = Callable[..., AbstractContextManager[KubeJob]]


@contextmanager
def running_kube_job(
    plane: ControlPlane,
    home: Path,
    target: str,
    *arguments: str,
    pods: int = 1,
    train: Mapping[str, Any] | None = None,
    rings: Mapping[str, Any] | None = None,
    grace: int | None = None,
    **spec: Any,
) -> Iterator[KubeJob]:
    """Run the shipped Indexed Job, of one pod, in a namespace of its own; nothing of it is left at the end.

    Args:
        plane: The cluster, with a node.
        home: A folder to be made, where its ranks write; the namespace gets its name.
        target: The receiver.
        *arguments: Of the ranks' program, tests/support/fault_ranks.py.
        pods: How many share the ranks: 1, or as many as the manifest has, of one rank each.
        train: Fields of the training container that its user sets.
        rings: The rings' volume, if not the one that is shipped.
        grace: Seconds that the sidecar goes on for, if not those that are shipped: for what nobody takes in them.
        **spec: Fields of the job likewise.
    """
    namespace = home.name
    home.mkdir()
    home.chmod(0o777)
    plane.kubectl("create", "namespace", namespace)
    wait_until(
        lambda: not plane.run("get", "serviceaccount", "default", f"--namespace={namespace}").returncode,
        LONG,
        "the namespace",
        pause=0.2,
    )
    documents = objects(FOLDER / "jobs" / "indexed-job.yaml")
    for document in documents:
        document["metadata"]["namespace"] = namespace
        if document["kind"] == "Job":
            document["spec"] |= {"completions": pods, "parallelism": pods, **spec}
    (template,) = pod_templates(documents)
    _fill_in(template["spec"], home, target, arguments, pods)
    if grace is not None:
        (sidecar,) = template["spec"]["initContainers"]
        sidecar["args"] = ["sidecar", f"--grace={grace}", sidecar["args"][-1]]
    (training,) = template["spec"]["containers"]
    training.update(train or {})
    if rings is not None:
        volumes = [volume for volume in template["spec"]["volumes"] if volume["name"] != "rings"]
        template["spec"]["volumes"] = [{"name": "rings", **rings}, *volumes]
    plane.apply(documents)
    try:
        yield KubeJob(plane, namespace, home)
    finally:
        plane.kubectl("delete", "namespace", namespace, "--wait=false")
        plane.kubectl("delete", "pods", "--all", f"--namespace={namespace}", "--grace-period=1")


def start_sender(job: KubeJob, documents: Sequence[dict[str, Any]], target: str) -> None:
    """Have a job of its own deliver what a job's rings hold, by the manifest that a page shows."""
    (template,) = pod_templates(list(documents))
    (sender,) = template["spec"]["containers"]
    sender["command"] = [f"{sys.prefix}/bin/otel-train"]
    _set(sender, OTEL_EXPORTER_OTLP_ENDPOINT=target)
    use_host(template["spec"])
    job.kubectl("apply", "--server-side", "--filename=-", text=yaml.safe_dump_all(documents))


def claim(job: KubeJob, folder: Path) -> None:
    """Give a job the claim `rings` of a folder of the node, which its user owns."""
    folder.mkdir()
    os.chown(folder, USER, USER)
    capacity, modes = {"storage": "1Gi"}, ["ReadWriteOnce"]
    of_claim = {"storageClassName": "", "accessModes": modes}
    objects = [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": job.namespace},
            "spec": {
                **of_claim,
                "capacity": capacity,
                "hostPath": {"path": str(folder)},
                "claimRef": {"name": "rings", "namespace": job.namespace},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "rings"},
            "spec": {**of_claim, "volumeName": job.namespace, "resources": {"requests": capacity}},
        },
    ]
    job.kubectl("apply", "--server-side", "--filename=-", text=yaml.safe_dump_all(objects))


def _fill_in(pod: dict[str, Any], home: Path, target: str, arguments: Sequence[str], pods: int) -> None:
    """Fill in what a template of a job leaves to its user: programs, addresses, sizes."""
    (sidecar,) = pod["initContainers"]
    (training,) = pod["containers"]
    sidecar["command"] = [f"{sys.prefix}/bin/otel-train"]
    shipped = " ".join(option for option in training["command"] if option.startswith(("--rdzv", "--nnodes", "--max")))
    launcher = f"{sys.prefix}/bin/python -m torch.distributed.run --nproc-per-node={RANKS // pods} {shipped}"
    if pods == 1:
        launcher += f" {ALONE}"
    program = f"-m tests.support.fault_ranks {OUT}/$K8S_POD {' '.join(arguments)}"
    # The container's own process is torchrun, as it is where the manifest names it.
    training["command"] = ["/bin/sh", "-c", f"umask 0; mkdir {OUT}/$K8S_POD; exec {launcher} {program}"]
    training["resources"] = {}
    pod["volumes"].append({"name": "out", "hostPath": {"path": str(home)}})
    training["volumeMounts"].append({"name": "out", "mountPath": OUT})
    _set(sidecar, OTEL_EXPORTER_OTLP_ENDPOINT=target, OTEL_EXPORTER_OTLP_TIMEOUT="3")
    _set(training, PYTHONPATH=str(ROOT))
    for container in (sidecar, training):
        _set(container, OTEL_TRAIN_TEST=home.name, OMP_NUM_THREADS="1")
    use_host(pod)


def use_host(pod: dict[str, Any]) -> None:
    """Have a pod's containers run this machine's programs: no registry has an image with them."""
    folders = {f"host{number}": path for number, path in enumerate(PROGRAMS)}
    pod["volumes"] += [{"name": name, "hostPath": {"path": path}} for name, path in folders.items()]
    for container in (*pod.get("initContainers", ()), *pod["containers"]):
        container.update(image=IMAGE, imagePullPolicy="Never")
        container["volumeMounts"] += [
            {"name": name, "mountPath": path, "readOnly": True} for name, path in folders.items()
        ]


def _set(container: dict[str, Any], **variables: str) -> None:
    others = [variable for variable in container.get("env", ()) if variable["name"] not in variables]
    container["env"] = others + [{"name": name, "value": value} for name, value in variables.items()]
