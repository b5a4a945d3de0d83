"""Read what OpenTelemetry's standard variables say of the resource that a rank's values belong to."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from urllib.parse import unquote

from otel_train.catalogue import MAX_TEXT
from otel_train.ring import MAX_ATTRIBUTES
from otel_train.step.slurm import slurm_attributes

HOST_NAME, SERVICE_NAME = "host.name", "service.name"
_OURS = ("train.", "service.instance.id")
"""Attributes that differ between ranks, attempts and runs: a variable that all ranks share can't give them."""

logger = logging.getLogger(__name__)


def resource_attributes(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the attributes of `OTEL_RESOURCE_ATTRIBUTES`, with `OTEL_SERVICE_NAME` above its `service.name`.

    Slurm's job is added, as far as there is room, where the variable does not say it otherwise.
    A pair that can't be sent is left out, which is logged: the platform sets these variables, not the job.
    """
    attributes: dict[str, str] = {}
    for pair in filter(str.strip, environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",")):
        key, equals, value = (unquote(valid_text(part)).strip() for part in pair.partition("="))
        if not (equals and key) or max(len(key), len(value)) > MAX_TEXT or len(attributes) == MAX_ATTRIBUTES:
            logger.warning(
                "telemetry: OTEL_RESOURCE_ATTRIBUTES has %.100r, which is left out; it must be key=value, with at most "
                "%d characters each, and at most %d of them",
                pair,
                MAX_TEXT,
                MAX_ATTRIBUTES,
            )
        elif key.startswith(_OURS):
            logger.warning("telemetry: OTEL_RESOURCE_ATTRIBUTES sets %s, which is each rank's own; it is left out", key)
        elif value or key not in (HOST_NAME, SERVICE_NAME):
            attributes[key] = value
    name = valid_text(environ.get("OTEL_SERVICE_NAME", "")).strip()[:MAX_TEXT]
    job = [
        (key, valid_text(text)[:MAX_TEXT]) for key, text in slurm_attributes(environ).items() if key not in attributes
    ]
    return dict(job[: MAX_ATTRIBUTES - len(attributes)]) | attributes | ({SERVICE_NAME: name} if name else {})


def valid_text(text: str) -> str:
    """Return a text that can be sent: what the system gave as no text at all has a `?` for each such byte."""
    return text.encode("utf-8", "replace").decode()
