"""Make a workspace of wandb's, or its JSON, by way of the types of wandb-workspaces."""

from __future__ import annotations

import json
import re
from importlib import import_module
from typing import Any

from otel_train.exceptions import OtelTrainError
from otel_train.render.dashboards import dashboards
from otel_train.render.wandb_panels import STEP_KEY, WandbPanel, wandb_sections

DEFAULT_NAME = "otel_train"
_TIMEOUT = 15
_COLUMNS = 24
_HEIGHT = 8
_REFUSED = re.compile(r"error 40[13]|invalid credentials|API key", re.IGNORECASE)


class WorkspaceError(OtelTrainError, RuntimeError):
    """A workspace can't be saved."""


def workspace_json(project: str, *, entity: str = "", name: str = DEFAULT_NAME) -> str:
    """Return what would be sent to the server, as JSON that ends in a newline; nothing is asked of any server.

    Args:
        project: The wandb project.
        entity: The user or team that it belongs to; empty for the one that the key belongs to.
        name: The workspace's name.
    """
    view = _workspace(project, entity, name)._to_model()  # noqa: SLF001  # the library's only way without a server
    spec = json.loads(view.spec.model_dump_json(by_alias=True, exclude_none=True))
    content = {"entity": view.entity, "project": view.project, "displayName": view.display_name, "spec": spec}
    return json.dumps(content, indent=2) + "\n"


def save_workspace(project: str, *, entity: str = "", name: str = DEFAULT_NAME) -> str:
    """Save a new workspace on the server, and return its address.

    Args:
        project: The wandb project.
        entity: The user or team that it belongs to; empty for the one that the key belongs to.
        name: The workspace's name.

    Raises:
        WorkspaceError: The server does not answer, or refuses the key or the workspace; or there is no key.
    """
    wandb = import_module("wandb")
    try:
        api = wandb.Api(timeout=_TIMEOUT)
        return str(_workspace(project, entity or api.default_entity or "", name).save().url)
    except wandb.errors.UsageError as error:
        raise WorkspaceError(f"wandb has no key: {error}; set WANDB_API_KEY, or give --out FILE") from error
    except Exception as error:
        # Anything may come out of either library, and wandb has one class for a refusal and a server that is away.
        why = "refuses the key" if _REFUSED.search(str(error)) else "did not take the workspace"
        raise WorkspaceError(
            f"the wandb server {why}: {error!s:.300}; check WANDB_BASE_URL, WANDB_API_KEY, --entity and --project"
        ) from error


def _workspace(project: str, entity: str, name: str) -> Any:
    from wandb_workspaces import workspaces as interface  # noqa: PLC0415  # as late as wandb's own

    sections = [
        interface.Section(
            name=section.title,
            is_open=True,
            panels=[_panel(panel, index) for index, panel in enumerate(section.panels)],
        )
        for section in wandb_sections(dashboards())
    ]
    settings = interface.WorkspaceSettings(x_axis=STEP_KEY)
    # What a job logs beside comes in sections that wandb makes.
    return interface.Workspace(
        entity=entity, project=project, name=name, sections=sections, settings=settings, auto_generate_panels=True
    )


def _panel(panel: WandbPanel, index: int) -> Any:
    from wandb_workspaces.reports import v2 as reports  # noqa: PLC0415  # as above

    across = 3
    return reports.LinePlot(
        title=panel.title,
        x=STEP_KEY,
        y=[] if panel.pattern else list(panel.keys),
        custom_expressions=[panel.expression] if panel.expression else None,
        metric_regex=panel.pattern or None,
        title_y=panel.healthy or None,
        layout=reports.Layout(
            x=index % across * _COLUMNS // across, y=index // across * _HEIGHT, w=_COLUMNS // across, h=_HEIGHT
        ),
    )
