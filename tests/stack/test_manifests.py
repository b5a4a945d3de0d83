"""The Helm chart by the real Helm, and what the manifests tell agent, gateway and bridge, told to the real programs."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_train.bridge import read_run
from otel_train.bridge.wandb_rows import STEP_KEY
from otel_train.catalogue import Metric, rows
from otel_train.render.promql import cluster_series
from otel_train.ring import Identity, Kind, RingWriter, Schema, ring_path
from otel_train.smoke.child_process import running_process
from tests.support import stack_programs as programs
from tests.support.environment import clean_environment
from tests.support.manifest_pods import Pods
from tests.support.manifests import FOLDER, NEWEST, check, objects, parsed, pod_templates
from tests.support.pod_security import violations
from tests.support.ports import answers
from tests.support.prometheus import Prometheus, running_prometheus
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]
CHART = FOLDER / "chart"
TOKENS = ("--set-string=tokens.gateway=one,tokens.bridge=two",)
TRIAL = (f"--values={CHART}/trial.yaml", *TOKENS)
OTEL_TRAIN = (sys.executable, "-m", "otel_train")
LOSS = Metric("train/loss")
STEPS = [1, 2, 3]


def helm(*arguments: str) -> str:
    """Return what Helm prints."""
    done = subprocess.run([programs.helm(), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rendered(*arguments: str) -> list[dict[str, Any]]:
    """Return the chart's objects with some values."""
    return parsed(helm("template", "otel-train", str(CHART), f"--kube-version={NEWEST}.0", *arguments))


def base() -> list[dict[str, Any]]:
    """Return the base's objects, with the ConfigMaps that kustomize makes."""
    kustomization = yaml.safe_load((FOLDER / "base" / "kustomization.yaml").read_text())
    maps = []
    for generator in kustomization["configMapGenerator"]:
        pairs = (pair.split("=") for pair in generator["files"])
        data = {name: (FOLDER / "base" / path).read_text() for name, path in pairs}
        metadata = {"name": generator["name"], "labels": kustomization["generatorOptions"]["labels"]}
        maps.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    return [item for item in objects(FOLDER / "base") if item["kind"] != "Namespace"] + maps


def by_name(items: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return objects by kind and name, without the annotation by which the chart starts pods anew."""
    for template in pod_templates(items):
        template["metadata"].pop("annotations", None)
    return {(item["kind"], item["metadata"]["name"]): item for item in items}


def test_chart_is_the_base() -> None:
    """With its default values the chart makes the objects of the base, and Helm has nothing against it."""
    assert by_name(rendered()) == by_name(base())
    assert by_name(rendered("--set=global.team=us")) == by_name(base())
    assert "0 chart(s) failed" in helm("lint", str(CHART), f"--kube-version={NEWEST}.0")


def test_chart_carries_monitoring() -> None:
    """For the operators the chart makes what the folder for kustomize has."""
    made = by_name(rendered("--set=monitoring.operator=true,monitoring.dashboards=true,monitoring.labels.release=prom"))
    for item in objects(FOLDER / "monitoring"):
        labels = made[item["kind"], item["metadata"]["name"]]["metadata"]["labels"]
        assert labels.pop("release") == "prom"
        assert made[item["kind"], item["metadata"]["name"]] == item
    dashboards = made["ConfigMap", "otel-train-dashboards"]
    assert dashboards["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert dashboards["data"] == {path.name: path.read_text() for path in (FOLDER / "monitoring").glob("*.json")}


@pytest.mark.parametrize(
    "values",
    [
        TRIAL,
        ("--set=bridge.enabled=false,networkPolicies.enabled=false",),
        ("--set=gateway.replicas=3,gateway.storage.className=fast,bridge.storage.className=slow",),
        (
            "--set=collector.image.repository=r.example/c,imagePullSecrets[0].name=pull",
            "--set-string=bridge.image.tag=9",
        ),
        ("--set=tokens.existingSecret=mine,agent.priorityClassName=high,agent.nodeSelector.gpu=yes",),
        (
            "--set=listenHost=[::],bridge.wandbMode=online",
            "--set=bridge.extraEnv[0].name=WANDB_ENTITY,bridge.extraEnv[0].value=us",
        ),
    ],
    ids=["trial", "no-bridge", "replicas", "images", "names", "ipv6"],
)
def test_chart_takes_values(values: tuple[str, ...]) -> None:
    """With other values, too, the objects fit their schemas, and the policy "restricted" admits their pods."""
    items = rendered(*values)
    for item in items:
        check(item)
    assert [violations(template) for template in pod_templates(items)] == [[]] * len(pod_templates(items))


def test_host_queue_needs_privilege() -> None:
    """Queues in a folder of the node are what the policy forbids, and nothing else is."""
    items = rendered("--set=agent.queue.hostPath=/var/lib/otel-train")
    refusals = {refusal for item in items for template in pod_templates(item) for refusal in violations(template)}
    owner = "own-the-queue"
    assert refusals == {"volume queue", *(f"{owner}: {what}" for what in ("capabilities", "runAsNonRoot", "runAsUser"))}
    for item in items:
        check(item)


@pytest.mark.parametrize(
    ("value", "refusal"),
    [
        ("tokens.existingSecret=", "tokens.gateway is empty; give a long random text, or tokens.existingSecret"),
        ("bridge.enable=false", "additional properties 'enable' not allowed"),
        ("bridge.image.tag=9", "got number, want string"),
        ("bridge.wandbMode=onlin", "value must be one of 'offline', 'online'"),
    ],
)
def test_wrong_value_is_refused(value: str, refusal: str) -> None:
    """A value that is missing, mistyped or of another type ends the installation with a message that says so."""
    command = [str(programs.helm()), "template", str(CHART), f"--kube-version={NEWEST}.0", f"--set={value}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert refusal in done.stderr


def with_secrets() -> list[dict[str, Any]]:
    """Return the base's objects and the secrets that the script makes."""
    script = subprocess.run(["bash", FOLDER / "secrets.sh"], capture_output=True, text=True, check=True)
    secrets = parsed(script.stdout)
    for secret in secrets:
        check(secret)
    return [*base(), *secrets]


@contextmanager
def running_pods(home: Path, items: list[dict[str, Any]], *, tls: bool = True) -> Iterator[tuple[Pods, Prometheus]]:
    """Run Prometheus and the bridge, gateway and agent of some manifests as long as the block."""
    # The certificates are for the services' names.
    overrides = {
        name: (f"--config=yaml:exporters::otlp/{sink}::tls::server_name_override: otel-train-{sink}",) if tls else ()
        for name, sink in (("gateway", "bridge"), ("agent", "gateway"))
    }
    with ExitStack() as running:
        prometheus = running.enter_context(running_prometheus(home))
        pods = Pods(home, items, {"http://prometheus-operated.monitoring:9090": prometheus.url})
        bridged = any(item["metadata"]["name"] == "otel-train-bridge" for item in items)
        if bridged:
            running.enter_context(pods.running("bridge", *OTEL_TRAIN))
        for name, more in overrides.items():
            running.enter_context(pods.running(name, str(programs.collector()), more=more))
            wait_until(partial(answers, f"http://127.0.0.1:{pods.health[name]}"), 60, f"the {name}'s start")
        if bridged:
            probe = [*OTEL_TRAIN, *pods.probe("bridge")[1:]]
            wait_until(lambda: subprocess.run(probe, check=False).returncode == 0, 60, "the bridge's readiness")
        yield pods, prometheus


@contextmanager
def sending(pods: Pods, run_id: str) -> Iterator[None]:
    """Let a real sidecar send a job's ring to the agent as long as the block."""
    rings, identity, schema = pods.home / run_id, Identity(run_id=run_id, attempt=1), Schema((LOSS, rows.PICKS))
    rings.mkdir(mode=0o700)
    ring = RingWriter(ring_path(rings, identity), schema, identity)
    begin = time.time_ns() - 5 * 10**9
    for step in STEPS:
        ring.write(step, begin + step * 10**9, Kind.CLUSTER, [float(step), 1.0, 2.0])
    ring.close(STEPS[-1], begin)
    environment = clean_environment(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{pods.ports['agent']}")
    with running_process([*OTEL_TRAIN, "sidecar", str(rings)], pods.home / "sidecar.log", environment):
        yield


def in_wandb(pods: Pods, run_id: str) -> list[int | None]:
    """Return the steps of a run that the bridge has written."""
    return [row.values[STEP_KEY] for row in read_run(pods.state("bridge", "state", "state"), run_id)]


def in_prometheus(prometheus: Prometheus, run_id: str) -> int:
    """Return how many samples of a run's loss Prometheus has."""
    return sum(map(len, prometheus.samples(f'{cluster_series(LOSS)}{{train_run_id="{run_id}"}}').values()))


@pytest.mark.parametrize("tls", [True, False], ids=["tls", "plain"])
def test_pods_deliver_a_job(tls: bool, tmp_path: Path) -> None:
    """Agent, gateway and bridge as the manifests start them: what a sidecar sends is in Prometheus and in wandb."""
    items = with_secrets() if tls else rendered(*TRIAL)
    with running_pods(tmp_path, items, tls=tls) as (pods, prometheus), sending(pods, "job"):
        wait_until(lambda: in_wandb(pods, "job") == STEPS, 60, "rows")
        wait_until(lambda: in_prometheus(prometheus, "job") == len(STEPS), 60, "samples")


def test_gateway_does_without_bridge(tmp_path: Path) -> None:
    """Where the chart has no bridge, nothing waits for one, and Prometheus gets everything."""
    items = rendered(*TRIAL, "--set=bridge.enabled=false")
    with running_pods(tmp_path, items, tls=False) as (pods, prometheus), sending(pods, "job"):
        wait_until(lambda: in_prometheus(prometheus, "job") == len(STEPS), 60, "samples")
        with urllib.request.urlopen(f"http://127.0.0.1:{pods.metrics}/metrics", timeout=10) as answer:
            page = answer.read().decode()
        sizes = dict(re.findall(r'^otelcol_exporter_queue_size\{.*?exporter="([^"]+)".*\} (\S+)$', page, re.MULTILINE))
        assert float(sizes["otlp/bridge"]) == 0


def test_changed_secret_needs_no_restart(tmp_path: Path) -> None:
    """A token that changes in the mounted secret counts for the gateway, and for the agent, which kept its data."""
    log = tmp_path / "agent.log"
    with running_pods(tmp_path, with_secrets()) as (pods, _):
        pods.change("gateway", "token", gateway=b"another")
        wait_until(lambda: "refresh token" in (tmp_path / "gateway.log").read_text(), 90, "the gateway's new token")
        with sending(pods, "job"):
            wait_until(lambda: "refused, keep your data" in log.read_text(), 60, "the refusal")
            assert in_wandb(pods, "job") == []
            pods.change("agent", "token", gateway=b"another")
            wait_until(lambda: in_wandb(pods, "job") == STEPS, 90, "rows")
