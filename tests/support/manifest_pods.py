"""Run a pod's container as a process of this machine: what its manifest says, with the machine's folders and ports.

Nothing of a container is set by the tests but where its mounts are and which ports of the loopback stand for the pods'.
"""

from __future__ import annotations

import base64
import os
import shutil
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen
from typing import Any

from otel_train.smoke.child_process import running_process
from tests.support.environment import clean_environment
from tests.support.manifests import pod_templates
from tests.support.ports import free_port

COMPONENTS = ("agent", "gateway", "bridge")


@dataclass
class Pods:
    """The pods of some manifests.

    Args:
        home: The folder of what they mount, and of their logs.
        objects: Those of the manifests, with secrets and configurations.
        instead: Further texts, by what the manifests have instead.
    """

    home: Path
    objects: list[dict[str, Any]]
    instead: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ports = {name: free_port() for name in COMPONENTS}
        self.health = {name: free_port() for name in COMPONENTS}
        self.metrics = free_port()
        """Port of the gateway's own metrics."""

    def container(self, component: str) -> dict[str, Any]:
        """Return the container of a component."""
        (template,) = (
            template
            for template in pod_templates(self.objects)
            if template["metadata"]["labels"]["app.kubernetes.io/component"] == component
        )
        for volume in template["spec"]["volumes"]:
            self._fill(component, volume)
        (container,) = template["spec"]["containers"]
        assert isinstance(container, dict)
        return container

    def running(
        self, component: str, *program: str, more: tuple[str, ...] = ()
    ) -> AbstractContextManager[Popen[bytes]]:
        """Run the program that is in a container's image as long as the block."""
        container = self.container(component)
        environment = {
            item["name"]: self._here(component, container, item["value"]) if "value" in item else self._secret(item)
            for item in container["env"]
        }
        ports = {
            f"OTEL_TRAIN_{component.upper()}_PORT": str(self.ports[component]),
            f"OTEL_TRAIN_{component.upper()}_HEALTH_PORT": str(self.health[component]),
            "OTEL_TRAIN_GATEWAY_METRICS_PORT": str(self.metrics),
            "OTEL_TRAIN_QUEUE_DIR": str(self._folder(component, "queue")),
        }
        arguments = [self._here(component, container, argument) for argument in container["args"]]
        command = [*program, *arguments, *more]
        return running_process(command, self.home / f"{component}.log", clean_environment(**environment, **ports))

    def probe(self, component: str) -> list[str]:
        """Return the program that a component's readiness probe runs."""
        container = self.container(component)
        return [self._here(component, container, part) for part in container["readinessProbe"]["exec"]["command"]]

    def state(self, component: str, volume: str, path: str) -> Path:
        """Return a path below a component's volume."""
        return self._folder(component, volume) / path

    def change(self, component: str, volume: str, **content: bytes) -> None:
        """Change what a component's volume holds, as the kubelet does when a secret has changed."""
        mount(self._folder(component, volume), content)

    def _folder(self, component: str, volume: str) -> Path:
        folder = self.home / component / volume
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _fill(self, component: str, volume: dict[str, Any]) -> None:
        folder = self._folder(component, volume["name"])
        if "configMap" in volume:
            data = self._named("ConfigMap", volume["configMap"]["name"])["data"]
            mount(folder, {name: text.encode() for name, text in data.items()})
        elif "secret" in volume:
            content = _content(self._named("Secret", volume["secret"]["secretName"]))
            items = volume["secret"].get("items", [{"key": name, "path": name} for name in content])
            mount(folder, {item["path"]: content[item["key"]] for item in items})

    def _named(self, kind: str, name: str) -> dict[str, Any]:
        (item,) = (item for item in self.objects if (item["kind"], item["metadata"]["name"]) == (kind, name))
        return item

    def _secret(self, item: dict[str, Any]) -> str:
        reference = item["valueFrom"]["secretKeyRef"]
        if reference.get("optional"):
            return ""
        return _content(self._named("Secret", reference["name"]))[reference["key"]].decode()

    def _here(self, component: str, container: dict[str, Any], text: str) -> str:
        """Return a text with what stands here for the first address or folder of the cluster's in it."""
        mounts = {item["mountPath"]: str(self._folder(component, item["name"])) for item in container["volumeMounts"]}
        own, others = (
            f"127.0.0.1:{self.ports[component]}",
            {f"otel-train-{name}:4317": f"127.0.0.1:{port}" for name, port in self.ports.items()},
        )
        replaced = {**self.instead, **others, "0.0.0.0:4317": own, "127.0.0.1:4317": own, "0.0.0.0": "127.0.0.1"}
        for old, new in (*replaced.items(), *sorted(mounts.items(), key=lambda item: -len(item[0]))):
            head, separator, rest = text.partition(old)
            if separator and (not old.startswith("/") or rest[:1] in ("", os.sep)):
                text = head + new + rest
                break
        return text


def mount(folder: Path, content: dict[str, bytes]) -> None:
    """Fill a folder as the kubelet does: all files change at once, by a link to another folder of them."""
    version = folder / f"..{time.time_ns()}"
    version.mkdir()
    for name, data in content.items():
        (version / name).write_bytes(data)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    old = (folder / "..data").resolve() if (folder / "..data").exists() else None
    (folder / "..data_tmp").symlink_to(version.name)
    (folder / "..data_tmp").replace(folder / "..data")
    if old:
        shutil.rmtree(old)


def _content(secret: dict[str, Any]) -> dict[str, bytes]:
    encoded = {name: base64.b64decode(value) for name, value in secret.get("data", {}).items()}
    return encoded | {name: value.encode() for name, value in secret.get("stringData", {}).items()}
