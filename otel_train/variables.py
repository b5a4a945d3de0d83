"""The names of the project's variables of the environment, and what to say about one that nothing reads."""

from __future__ import annotations

import os
from collections.abc import Mapping

PREFIX = "OTEL_TRAIN_"
OWN = ("BRIDGE_TOKEN", "PURE", "RING_BYTES", "RING_DIR", "RING_RECORDS", "RUN_ID", "SIDECAR")
"""Those that ranks and commands read, without the prefix."""
DEPLOYED = frozenset(
    [
        "AGENT_HEALTH_HOST",
        "AGENT_HEALTH_PORT",
        "AGENT_HOST",
        "AGENT_PORT",
        "BRIDGE",
        "BRIDGE_CA",
        "BRIDGE_INSECURE",
        "COMMAND",
        "CONFIG",
        "GATEWAY",
        "GATEWAY_CA",
        "GATEWAY_CERTIFICATE",
        "GATEWAY_HEALTH_HOST",
        "GATEWAY_HEALTH_PORT",
        "GATEWAY_KEY",
        "GATEWAY_LISTEN",
        "GATEWAY_METRICS_HOST",
        "GATEWAY_METRICS_PORT",
        "GATEWAY_TOKEN_FILE",
        "PROMETHEUS",
        "QUEUE_DIR",
        "RANKS",
        "RINGS",
        "RUN",
        "SEND_TIMEOUT",
        "SLURM_ENV",
        "WANDB_MODE",
        "WANDB_PROJECT",
    ]
)
"""Those that the shipped collectors, manifests and scripts read."""


def warning_of_unknown(environ: Mapping[str, str] = os.environ) -> str:
    """Return a message about the variables with our prefix that nothing reads; empty where there are none."""
    # Kubernetes gives each pod such variables for each Service of its namespace: otel-train-bridge and others.
    services = [name.removesuffix("HOST") for name in environ if name.endswith("_SERVICE_HOST")]
    links = tuple(link for service in services for link in (service, service.removesuffix("SERVICE_") + "PORT"))
    unknown = sorted(
        name
        for name in environ
        if name.startswith(PREFIX) and name[len(PREFIX) :] not in DEPLOYED.union(OWN) and not name.startswith(links)
    )
    if not unknown:
        return ""
    import difflib  # noqa: PLC0415  # only a mistyped name needs it

    hints = []
    for name in unknown[:10]:
        nearest = difflib.get_close_matches(name[len(PREFIX) :].upper(), OWN, 1)
        hints.append(f"{name:.80} (did you mean {PREFIX}{nearest[0]}?)" if nearest else f"{name:.80}")
    return f"nothing reads {', '.join(hints)}; what is read: {', '.join(PREFIX + name for name in OWN)}"
