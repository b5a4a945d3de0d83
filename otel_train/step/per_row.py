"""Values of a batch's rows, as the training loop gives them, each with its source: a loss that is reduced by source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from otel_train.catalogue import Metric
from otel_train.step.declarations import declared_sources
from otel_train.step.source_protocols import Source, modalities_of, row_sources_of
from otel_train.torch_modes import outside_modes


@dataclass(frozen=True, slots=True, eq=False)  # tensors have no one truth
class PerRow:
    """Values of the rows of a batch, for a scalar that is declared with `by=`.

    A tensor of the values alone does it where each row counts alike and `by=` of `Telemetry.step`, or the session's
    meter, gives the sources.

    Examples:
        >>> import otel_train
        >>> loss = otel_train.Scalar("train/loss", by=("code", "prose"))
        >>> with otel_train.init(metrics=[loss], blocking=True) as telemetry:
        ...     rows = otel_train.PerRow([2.0, 4.0, 8.0], weights=[1, 3, 4])
        ...     values = telemetry.step(1, {"train/loss": rows}, by=["code", "code", "prose"])
        >>> values["train/loss"], values["train/loss/code"], values["train/loss/prose"]
        (5.75, 3.5, 8.0)

    Args:
        values: Numbers [rows], or [rows, ...] such as one for each token: a tensor on any device, an array, or a list.
        weights: How much each counts in its mean, [rows] or of the values' shape: its tokens, say, or a mask of 0 and
            1. What has the weight 0 counts for nothing, whatever its value is. All count alike when None.
        by: The source of each row: int64 [rows], indices into the job's sources, -1 for none, on any device; or their
            names; or one name for all rows. Of each value where there are as many. As the call has it when None.
    """

    values: Any
    weights: Any = None
    by: Any = None

    @outside_modes
    def by_value(self) -> PerRow:
        """Return a copy that does not change with its tensors."""
        return PerRow(*map(_copy, (self.values, self.weights, self.by)))


def _copy(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    return list(value) if isinstance(value, list) else value


class RowBinding:
    """Gives the values of a call's rows their sources, when the call comes.

    Args:
        declarations: The user's scalars.
        declared: Their rows by name.
        sources: The session's: the first one that can tell the sources of a batch's rows is asked.

    Raises:
        ConfigurationError: A scalar is by source and no source is named, or others than elsewhere.
    """

    def __init__(self, declarations: Sequence[Any], declared: Mapping[str, Metric], sources: Sequence[Source]) -> None:
        self.modalities = declared_sources(declarations, next(filter(None, map(modalities_of, sources)), ()))
        """Names of the job's sources."""
        self._declared = {name for name, metric in declared.items() if metric.attribute}
        self.needed = bool(self._declared)
        """Whether a call without `by=` may have values of rows."""
        self._ask: Callable[[], Any] | None = next(
            (ask for source in sources if (ask := row_sources_of(source)) is not None), None
        )

    def bind(self, scalars: Any, by: Any = None) -> Any:
        """Return the scalars of a call, values of rows as `PerRow` with their sources. It raises nothing.

        Args:
            scalars: By key; whatever is no mapping comes back as it is.
            by: The sources of the rows, as the call has them; None for those of the meter's last batch.
        """
        if not isinstance(scalars, Mapping):
            return scalars
        try:
            keys = scalars if by is not None else self._declared & scalars.keys()
            rows = {key: scalars[key] for key in keys}
            bound = {key: self._bound(value, by) for key, value in rows.items() if self._is_per_row(key, value)}
        except Exception:  # noqa: BLE001  # a mapping or a value of the user's own: it is dropped, with its reason
            return scalars
        return {**scalars, **bound} if bound else scalars

    def _is_per_row(self, key: str, value: Any) -> bool:
        if isinstance(value, PerRow):
            return value.by is None
        if value is None or isinstance(value, int | float | str | bytes | Mapping):
            return key in self._declared and isinstance(value, int | float)
        if isinstance(value, list | tuple):
            return True
        return key in self._declared or getattr(value, "ndim", 0) > 0

    def _bound(self, value: Any, by: Any) -> PerRow:
        if by is None and self._ask is not None:
            by = self._ask()
        return replace(value, by=by) if isinstance(value, PerRow) else PerRow(value, by=by)
