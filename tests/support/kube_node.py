"""A node: kubelet, containerd and containers in namespaces of their own, with which they and their mounts end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from otel_train.smoke.child_process import running_process
from tests.support import stack_programs as programs
from tests.support.environment import clean_environment
from tests.support.kube_control import START, ControlPlane
from tests.support.kube_image import IMAGE, write_image
from tests.support.mounts import require_root
from tests.support.network import ip
from tests.support.torchrun import ROOT
from tests.support.waiting import wait_until

PLUGINS = Path("/usr/lib/cni")
WARM = "import torch.distributed.run, otel_train.cli, otel_train.sidecar.service, tests.support.fault_ranks"
DOMAIN = "cluster.local"
CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Link:
    """A cable between this machine and a node."""

    namespace: str
    number: int
    """What sets its addresses apart from those of other tests on this machine."""

    @property
    def host(self) -> str:
        """This machine's address on it."""
        return f"10.88.{self.number}.1"

    @property
    def node(self) -> str:
        """The node's address on it."""
        return f"10.88.{self.number}.2"

    @property
    def pods(self) -> str:
        """Addresses of the node's pods."""
        return f"10.89.{self.number}.0/24"


@contextmanager
def running_link() -> Iterator[Link]:
    """Lay a cable to a network namespace, as long as the block."""
    require_root("make network namespaces")
    link = Link(f"otel-train-{os.getpid()}-node", os.getpid() % 250)
    ip("netns", "add", link.namespace)
    try:
        ours = f"node{link.number}"
        ip("link", "add", ours, "type", "veth", "peer", "name", "eth0", "netns", link.namespace)
        ip("addr", "add", f"{link.host}/30", "dev", ours)
        ip("link", "set", ours, "up")
        ip("route", "add", link.pods, "via", link.node)
        for device in ("lo", "eth0"):
            ip("-n", link.namespace, "link", "set", device, "up")
        ip("-n", link.namespace, "addr", "add", f"{link.node}/30", "dev", "eth0")
        ip("-n", link.namespace, "route", "add", "default", "via", link.host)
        yield link
    finally:
        ip("netns", "del", link.namespace)


class Node:
    """A node that is ready.

    Args:
        folder: Where its state is.
        name: Its name in the cluster.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder
        self.name = name


def _write_configuration(folder: Path, link: Link, cgroup: str) -> None:
    """Write what containerd and the kubelet read."""
    network = {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "pods0",
                "isGateway": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(folder / "addresses"),
                    "ranges": [[{"subnet": link.pods}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            }
        ],
    }
    (folder / "cni").mkdir()
    (folder / "cni" / "pods.conflist").write_text(json.dumps(network))
    (folder / "containerd.toml").write_text(
        f"""
version = 2
root = "{folder}/containerd"
state = "/run/containerd-state"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{IMAGE}"
restrict_oom_score_adj = true  # lower than its own needs a capability that root may lack
tolerate_missing_hugetlb_controller = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{PLUGINS}"
conf_dir = "{folder}/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""
    )
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": link.node,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup}",
        "clusterDNS": [link.host],
        "clusterDomain": DOMAIN,
        "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
        # The machine may be as full as it likes: only what a test does evicts a pod.
        "evictionHard": dict.fromkeys(("memory.available", "nodefs.available", "nodefs.inodesFree"), "0%"),
        "failCgroupV1": False,
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "podLogsDir": str(folder / "logs"),
        "registerWithTaints": [],
    }
    (folder / "kubelet.yaml").write_text(yaml.safe_dump(kubelet))


@contextmanager
def running_dns(folder: Path, plane: ControlPlane, link: Link) -> Iterator[None]:
    """Run the cluster's DNS, by which pods find each other."""
    configuration = f". {{\n errors\n bind {link.host}\n kubernetes {DOMAIN} {{\n kubeconfig {plane.config}\n }}\n}}\n"
    (folder / "Corefile").write_text(configuration)
    command = [str(programs.coredns()), "-conf", str(folder / "Corefile")]
    with running_process(command, folder / "coredns.log", clean_environment(HOME=str(folder))):
        yield


@contextmanager
def running_node(folder: Path, plane: ControlPlane, link: Link) -> Iterator[Node]:
    """Run a node that has joined a cluster; all its containers end with the block."""
    for program, package in {
        "containerd": "containerd",
        "runc": "runc",
        str(PLUGINS / "bridge"): "containernetworking-plugins",
    }.items():
        assert shutil.which(program), f"the tests of Kubernetes need {program}: apt-get install {package}"
    cgroup = link.namespace
    _write_configuration(folder, link, cgroup)
    write_image(folder / "image.tar")
    # A container can't keep what Python compiles of torch, and would do it anew at each start.
    environment = clean_environment(HOME=str(folder))
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    subprocess.run([sys.executable, "-c", WARM], cwd=ROOT, env=environment, check=True)
    name = "node"
    socket = f"{folder}/containerd.sock"
    command = f"""
set -e
mount --make-rshared /
# What they keep outside of the folders that they are given.
for path in /run /var/lib /var/log; do mount -t tmpfs tmpfs $path; done
mkdir /run/netns
containerd --config {folder}/containerd.toml --log-level warn >{folder}/containerd.log 2>&1 &
until ctr --address {socket} version >/dev/null 2>&1; do sleep 0.2; done
ctr --address {socket} --namespace k8s.io images import {folder}/image.tar
{programs.kubernetes("kubelet")} --config={folder}/kubelet.yaml --kubeconfig={plane.config} \
    --root-dir={folder}/kubelet --hostname-override={name} --node-ip={link.node} &
wait $!
"""
    for controller in _controllers():
        (controller / cgroup).mkdir()
    with contextlib.suppress(OSError):
        # Without its own values nothing could be put into it.
        for value in ("cpuset.cpus", "cpuset.mems"):
            (CGROUPS / "cpuset" / cgroup / value).write_text((CGROUPS / "cpuset" / value).read_text())
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    within = ["nsenter", f"--net=/run/netns/{link.namespace}", *namespaces]
    log = folder / "kubelet.log"
    try:
        with running_process([*within, "sh", "-c", command], log, clean_environment(HOME=str(folder))) as process:
            wait_until(
                lambda: process.poll() is not None or _is_ready(plane, name), START, "the node", log=log, pause=0.5
            )
            assert process.poll() is None, log.read_text()[-4000:]
            yield Node(folder, name)
            # Its first process would ignore another signal.
            process.kill()
    finally:
        _remove_cgroups(cgroup)


def _controllers() -> list[Path]:
    return (
        [CGROUPS]
        if (CGROUPS / "cgroup.controllers").exists()
        else [path for path in CGROUPS.iterdir() if not path.is_symlink() and path.is_dir()]
    )


def _remove_cgroups(name: str) -> None:
    """Remove the node's control groups, once the kernel has seen that their processes are gone."""
    for controller in _controllers():
        for path in sorted((controller / name).rglob("*"), reverse=True):
            if path.is_dir():
                wait_until(lambda: _removed(path), what=f"the end of {path}")  # noqa: B023
        wait_until(lambda: _removed(controller / name), what=f"the end of {controller / name}")  # noqa: B023


def _removed(path: Path) -> bool:
    with contextlib.suppress(OSError):
        path.rmdir()
    return not path.exists()


def _is_ready(plane: ControlPlane, name: str) -> bool:
    done = plane.run("get", "node", name, "--output=jsonpath={.status.conditions[?(@.type=='Ready')].status}")
    return done.stdout == "True"
