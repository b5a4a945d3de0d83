"""The manifests of deploy/kubernetes against schemas, the policy "restricted", each other and what runs in the pods."""

from __future__ import annotations

import copy
import re
from typing import Any

import jsonschema
import pytest
import yaml

import otel_train
from otel_train.ring.ring_size import FREE_SHARE
from otel_train.step.environment import Environment
from tests.support.crd_schemas import check as check_custom
from tests.support.manifests import (
    FOLDER,
    check,
    environment,
    job_templates,
    objects,
    pod_templates,
    sidecar_of,
    variables,
)
from tests.support.pod_security import violations

COLLECTOR = FOLDER.parents[1] / "collector"
FILES = [*(FOLDER / "base", FOLDER / "monitoring"), *sorted((FOLDER / "jobs").glob("*.yaml"))]
ALL = [
    pytest.param(item, id=f"{path.stem}-{item['kind']}-{item['metadata']['name']}")
    for path in FILES
    for item in objects(path)
]
BASE = {(item["kind"], item["metadata"]["name"]): item for item in objects(FOLDER / "base")}
MEBI = 2**20


@pytest.mark.parametrize("document", ALL)
def test_object_fits_its_schema(document: dict[str, Any]) -> None:
    """Every object has the fields that its kind has, and no others."""
    check(document)


def test_unknown_field_is_noticed() -> None:
    """The schemas that were trimmed here still tell a mistyped field, at any depth."""
    (rule,) = objects(FOLDER / "monitoring" / "prometheus-rule.yaml")
    rule["spec"]["groups"][0]["rules"][0]["fur"] = "2m"
    with pytest.raises(jsonschema.ValidationError, match="fur"):
        check_custom(rule)


@pytest.mark.parametrize("document", [item for item in ALL if pod_templates(item.values[0])])
def test_policy_admits_every_pod(document: dict[str, Any]) -> None:
    """The policy "restricted" admits all pods."""
    assert [violations(template) for template in pod_templates(document)] == [[] for _ in pod_templates(document)]


@pytest.mark.parametrize(
    ("where", "change", "refusal"),
    [
        ("pod", {"hostNetwork": True}, "spec.hostNetwork"),
        ("pod", {"volumes": [{"name": "node", "hostPath": {"path": "/"}}]}, "volume node"),
        ("pod", {"securityContext": {"runAsNonRoot": True}}, "collector: seccompProfile"),
        ("context", {"allowPrivilegeEscalation": None}, "collector: allowPrivilegeEscalation"),
        ("context", {"capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}}, "collector: capabilities"),
        ("context", {"capabilities": {}}, "collector: capabilities"),
        ("context", {"runAsUser": 0}, "collector: runAsUser"),
        ("context", {"runAsNonRoot": False}, "collector: runAsNonRoot"),
        ("context", {"seccompProfile": {"type": "Unconfined"}}, "collector: seccompProfile"),
        ("container", {"ports": [{"containerPort": 1, "hostPort": 1}]}, "collector: hostPort"),
        ("container", {"livenessProbe": {"httpGet": {"port": 1, "host": "10.0.0.1"}}}, "collector: host"),
    ],
)
def test_policy_refuses_a_change(where: str, change: dict[str, Any], refusal: str) -> None:
    """What the policy forbids is noticed."""
    (template,) = pod_templates(copy.deepcopy(BASE["DaemonSet", "otel-train-agent"]))
    (container,) = template["spec"]["containers"]
    target = {"pod": template["spec"], "context": container["securityContext"], "container": container}[where]
    target |= change
    if None in change.values():
        del target[next(iter(change))]
    assert violations(template) == [refusal]


@pytest.mark.parametrize(
    ("owner", "configuration"),
    [(("DaemonSet", "otel-train-agent"), "agent"), (("StatefulSet", "otel-train-gateway"), "gateway")],
)
def test_configuration_gets_its_variables(owner: tuple[str, str], configuration: str) -> None:
    """A collector's container sets what its configuration reads without a default, and nothing that it doesn't read."""
    text = (COLLECTOR / f"{configuration}.yaml").read_text()
    names = set(re.findall(r"\$\{env:(\w+)(?=[:}])", text))
    needed = set(re.findall(r"\$\{env:(\w+)\}", text))
    (container,) = BASE[owner]["spec"]["template"]["spec"]["containers"]
    assert needed <= set(variables(container)) <= names | {"GOMEMLIMIT"}


def test_services_lead_to_pods() -> None:
    """Every service and network policy selects the pods of one owner, by ports that these have."""
    for (kind, name), item in BASE.items():
        if kind not in ("Service", "NetworkPolicy"):
            continue
        selector = item["spec"].get("selector") or item["spec"]["podSelector"]["matchLabels"]
        (template,) = (
            template
            for owner in BASE.values()
            for template in pod_templates(owner)
            if selector.items() <= template["metadata"]["labels"].items()
        )
        ports = {port["name"] for container in template["spec"]["containers"] for port in container["ports"]}
        rules = item["spec"].get("ingress", [{"ports": item["spec"].get("ports")}])
        used = {port.get("targetPort", port["port"]) for rule in rules for port in rule["ports"]}
        assert used <= ports, name


def test_mounted_names_are_there() -> None:
    """Every mount has its volume, every configuration its ConfigMap, every probe a port of its name."""
    generators = yaml.safe_load((FOLDER / "base" / "kustomization.yaml").read_text())["configMapGenerator"]
    for item in BASE.values():
        for template in pod_templates(item):
            spec = template["spec"]
            claims = {claim["metadata"]["name"] for claim in item["spec"].get("volumeClaimTemplates", [])}
            volumes = {volume["name"] for volume in spec["volumes"]}
            maps = {volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume}
            assert maps <= {generator["name"] for generator in generators}
            for container in spec["containers"]:
                assert {mount["name"] for mount in container["volumeMounts"]} == volumes | claims


def test_chart_has_the_base_values() -> None:
    """A value that the chart has instead of one of the base is the same by default."""
    values = yaml.safe_load((FOLDER / "chart" / "values.yaml").read_text())
    count = 0
    for path in sorted([*(FOLDER / "base").glob("*.yaml"), *(FOLDER / "monitoring").glob("*.yaml")]):
        for before, name in re.findall(
            r"^ *(?:- )?[\w.]+: (.*) # \{\{ \.Values\.([\w.]+)(?: \| \w+)? \}\}$", path.read_text(), re.MULTILINE
        ):
            value: Any = values
            for part in name.split("."):
                value = value[part]
            assert yaml.safe_load(before) == value, f"{path.name}: {name}"
            count += 1
    assert count > 15


def test_images_have_this_version() -> None:
    """Every image of ours, in the base, the chart and the jobs, has the tag of this release."""
    texts = {path: path.read_text() for path in FOLDER.rglob("*.yaml") if "templates" not in path.parts}
    tags = [tag for text in texts.values() for tag in re.findall(r"image: otel-train-\w+:(\S+)|tag: (\S+)", text)]
    assert len(tags) >= 8
    assert {first or second for first, second in tags} == {otel_train.__version__}
    chart = yaml.safe_load(texts[FOLDER / "chart" / "Chart.yaml"])
    assert chart["version"] == chart["appVersion"] == otel_train.__version__


def test_jobs_share_one_sidecar() -> None:
    """All templates of jobs have the same sidecar, volumes and user, and let the ranks write what it reads."""
    first, *others = job_templates()
    for template in others:
        for key in ("initContainers", "volumes", "securityContext", "terminationGracePeriodSeconds"):
            assert template["spec"][key] == first["spec"][key]
        assert template["metadata"] == first["metadata"]
    for template in (first, *others):
        (train,) = template["spec"]["containers"]
        options = Environment.read(environment(train))
        assert options.external_sidecar
        assert str(options.ring_dir) == sidecar_of(template)["args"][-1]


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("indexed-job", "metadata.labels['batch.kubernetes.io/controller-uid']"),
        ("jobset", "metadata.labels['jobset.sigs.k8s.io/jobset-uid']"),
        ("pytorchjob", "metadata.namespace-metadata.labels['training.kubeflow.org/job-name']"),
    ],
)
def test_job_names_its_run(name: str, field: str) -> None:
    """All pods of a job, and those that are made again, have one run: the job's, by what the downward API has of it."""
    for template in pod_templates(objects(FOLDER / "jobs" / f"{name}.yaml")):
        (train,) = template["spec"]["containers"]
        options = Environment.read(environment(train))
        assert options.scheduled is not None
        assert (options.run_id or options.scheduled.name) == field
        assert {"k8s.namespace.name", "k8s.node.name", "k8s.pod.name", "k8s.pod.uid"} <= set(options.attributes)
        assert options.attributes["k8s.container.name"] == train["name"]
        assert not [value for value in options.attributes.values() if "$" in value]


def test_job_reaches_the_agent() -> None:
    """The sidecar's endpoint is the agents' service, whose network policy lets the job's pods in."""
    for template in job_templates():
        endpoint = variables(sidecar_of(template))["OTEL_EXPORTER_OTLP_ENDPOINT"]
        host, port = re.fullmatch(r"http://([\w.-]+):(\d+)", endpoint).groups()  # type: ignore[union-attr]
        name, namespace = host.split(".")
        assert BASE["Service", name]["spec"]["ports"][0]["port"] == int(port)
        assert ("Namespace", namespace) in BASE
        first, *_ = BASE["NetworkPolicy", name]["spec"]["ingress"][0]["from"]
        assert first["podSelector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_rings_fit_their_volume() -> None:
    """Full rings of all ranks fit the part that they may take of their volume, and of the container's memory."""
    ranks, largest = 8, Environment.read({}).ring_bytes
    for template in job_templates():
        (volume,) = (item["emptyDir"] for item in template["spec"]["volumes"] if item["name"] == "rings")
        (train,) = template["spec"]["containers"]
        assert volume["medium"] == "Memory"
        assert int(train["resources"]["limits"]["nvidia.com/gpu"]) == ranks
        assert ranks * largest <= FREE_SHARE * _bytes(volume["sizeLimit"])
        assert ranks * largest <= FREE_SHARE * _bytes(train["resources"]["limits"]["memory"]) / 4


def test_grace_covers_the_sidecar() -> None:
    """A pod has time for torchrun's 30 seconds and then some of the sidecar's, whose own are over before the pod's."""
    for template in job_templates():
        pods = template["spec"]["terminationGracePeriodSeconds"]
        (grace,) = (int(option.partition("=")[2]) for option in sidecar_of(template)["args"] if "--grace" in option)
        assert 30 + 20 <= pods > grace


def _bytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()  # type: ignore[union-attr]
    return int(number) * {"Mi": MEBI, "Gi": 1024 * MEBI}[unit]


def test_render_knows_every_file() -> None:
    """Of deploy/kubernetes every file is one that `render` makes or one that it takes along."""
    from otel_train.render import monitoring_files, shipped_files

    names = {path.relative_to(FOLDER.parents[1]).as_posix() for path in FOLDER.rglob("*") if path.is_file()}
    assert names == {name for name in {*monitoring_files(), *shipped_files()} if name.startswith("deploy/kubernetes/")}
