"""The policy "restricted" of Kubernetes' Pod Security Standards, as they are for 1.37, as far as Linux goes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

VOLUMES = {
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
}
PROFILES = {"RuntimeDefault", "Localhost"}
SYSCTLS = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ping_group_range",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.tcp_wmem",
}
SELINUX = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}


def violations(template: dict[str, Any]) -> list[str]:
    """Return what the policy would refuse a pod template for."""
    spec = template["spec"]
    of_pod = spec.get("securityContext", {})
    return [
        *(f"spec.{key}" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)),
        *(f"volume {volume['name']}" for volume in spec.get("volumes", []) if not set(volume) - {"name"} <= VOLUMES),
        *(f"sysctl {sysctl['name']}" for sysctl in of_pod.get("sysctls", []) if sysctl["name"] not in SYSCTLS),
        *(
            f"{container['name']}: {what}"
            for kind in ("initContainers", "containers", "ephemeralContainers")
            for container in spec.get(kind, [])
            for what in _of_container(container, of_pod)
        ),
    ]


def _of_container(container: dict[str, Any], of_pod: dict[str, Any]) -> Iterator[str]:
    own = container.get("securityContext", {})
    context = of_pod | own
    capabilities = own.get("capabilities", {})
    if own.get("privileged"):
        yield "privileged"
    if own.get("allowPrivilegeEscalation", True):
        yield "allowPrivilegeEscalation"
    if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "capabilities"
    if context.get("runAsNonRoot") is not True:
        yield "runAsNonRoot"
    if 0 in (context.get("runAsUser"), of_pod.get("runAsUser")):
        yield "runAsUser"
    if context.get("seccompProfile", {}).get("type") not in PROFILES:
        yield "seccompProfile"
    if context.get("appArmorProfile", {}).get("type", "RuntimeDefault") not in PROFILES:
        yield "appArmorProfile"
    options = context.get("seLinuxOptions", {})
    if options.get("type", "") not in SELINUX or options.get("user") or options.get("role"):
        yield "seLinuxOptions"
    if own.get("procMount", "Default") != "Default":
        yield "procMount"
    if any(port.get("hostPort") for port in container.get("ports", [])):
        yield "hostPort"
    lifecycle = container.get("lifecycle", {}).values()
    for handler in (*lifecycle, *(container.get(f"{name}Probe", {}) for name in ("startup", "liveness", "readiness"))):
        if any(handler.get(way, {}).get("host") for way in ("httpGet", "tcpSocket")):
            yield "host"
