"""Kubernetes without a node: etcd, API server, controllers and scheduler, as processes of this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from otel_train.smoke.child_process import running_process
from tests.support import stack_programs as programs
from tests.support.environment import clean_environment
from tests.support.ports import free_port
from tests.support.waiting import wait_until

TOKEN = "of-the-tests"  # of a server on this machine's own addresses, as long as the tests run
START = 180.0
"""Seconds that a program may take to start on a busy machine."""


class ControlPlane:
    """A cluster's API.

    Args:
        folder: Where its state and its logs are.
        address: Address and port of the API server.
    """

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        self.address = address

    @property
    def config(self) -> Path:
        """File that tells a client where the API server is and who the client is."""
        return self.folder / "kubeconfig"

    def write_config(self) -> None:
        """Write that file."""
        cluster = {"server": f"https://{self.address}", "certificate-authority": str(self.folder / "apiserver.crt")}
        named = {
            "clusters": [{"name": "tests", "cluster": cluster}],
            "users": [{"name": "tests", "user": {"token": TOKEN}}],
            "contexts": [{"name": "tests", "context": {"cluster": "tests", "user": "tests"}}],
        }
        self.config.write_text(
            yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **named, "current-context": "tests"})
        )

    def run(self, *arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl, with a text as its input, and return how it ended."""
        command = [str(programs.kubernetes("kubectl")), "--kubeconfig", str(self.config), *arguments]
        environment = clean_environment(HOME=str(self.folder))
        return subprocess.run(
            command, input=text, env=environment, capture_output=True, text=True, timeout=120, check=False
        )

    def kubectl(self, *arguments: str, text: str | None = None) -> str:
        """Run kubectl, with a text as its input, and return what it printed.

        Raises:
            AssertionError: It failed; the message is its own.
        """
        done = self.run(*arguments, text=text)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def get(self, *arguments: str) -> Any:
        """Return objects as the API has them."""
        return json.loads(self.kubectl("get", *arguments, "--output=json"))

    def apply(self, documents: Sequence[dict[str, Any]], *arguments: str) -> str:
        """Have the API server take manifests, and return what kubectl says of it."""
        return self.kubectl("apply", "--server-side", *arguments, "--filename=-", text=yaml.safe_dump_all(documents))

    def dry_run(self, documents: Sequence[dict[str, Any]], namespace: str) -> None:
        """Have the API server check manifests in a namespace, whole and with nothing that it doesn't know.

        Raises:
            AssertionError: It refuses one, or warns; the message is its own.
        """
        arguments = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename=-")
        done = self.run(f"--namespace={namespace}", *arguments, text=yaml.safe_dump_all(documents))
        assert (done.returncode, done.stderr) == (0, ""), done.stderr


@contextmanager
def running_control_plane(folder: Path, host: str = "127.0.0.1") -> Iterator[ControlPlane]:
    """Run a control plane whose API server listens on an address of this machine; all of it ends with the block."""
    etcd = shutil.which("etcd")
    assert etcd, "the tests of Kubernetes need etcd: apt-get install etcd-server"
    plane = ControlPlane(folder, f"{host}:{free_port()}")
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = (serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    (folder / "accounts.key").write_bytes(key.private_bytes(*pem))
    (folder / "tokens.csv").write_text(f"{TOKEN},tests,tests,system:masters\n")
    plane.write_config()
    clients, peers = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    port = plane.address.rpartition(":")[2]
    accounts = folder / "accounts.key"
    commands: dict[str, list[str]] = {
        "etcd": [
            etcd,
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
        ],
        "kube-apiserver": [
            f"--etcd-servers={clients}",
            f"--bind-address={host}",
            f"--secure-port={port}",
            f"--cert-dir={folder}",
            f"--token-auth-file={folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.99.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={accounts}",
            f"--service-account-signing-key-file={accounts}",
            "--endpoint-reconciler-type=none",
            "--kubelet-preferred-address-types=InternalIP",
        ],
        "kube-controller-manager": [
            f"--kubeconfig={plane.config}",
            f"--service-account-private-key-file={accounts}",
            f"--root-ca-file={folder / 'apiserver.crt'}",
            "--leader-elect=false",
            "--secure-port=0",
        ],
        "kube-scheduler": [f"--kubeconfig={plane.config}", "--leader-elect=false", "--secure-port=0"],
    }
    with ExitStack() as stack:
        for name, command in commands.items():
            whole = command if name == "etcd" else [str(programs.kubernetes(name)), *command]
            log = folder / f"{name}.log"
            process = stack.enter_context(running_process(whole, log, clean_environment(HOME=str(folder))))
            if name == "kube-apiserver":
                # It has a certificate once it serves.
                wait_until(
                    lambda: process.poll() is not None or plane.run("get", "--raw=/readyz").stdout == "ok",  # noqa: B023
                    START,
                    "the API server's start",
                    log=log,
                    pause=0.5,
                )
                assert process.poll() is None, log.read_text()[-4000:]
        yield plane
