"""pytorch-ignite's Engine: the steps of a trainer, and the evaluations that are made between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, Self

from ignite.engine import Engine, Events

from otel_train.integrations.assigned_metrics import AssignedMetrics, numbers
from otel_train.integrations.fit_session import FitSession
from otel_train.mixing import SourceMeter


class OtelTrainHandler(FitSession):
    """Records each run of a trainer: a session of its own, and a step for each iteration.

        OtelTrainHandler().attach(trainer, evaluators={"val": evaluator})
        trainer.run(loader, max_epochs=3)

    A number that the trainer's function returns is `train/loss`, the numbers of a mapping are `train/KEY`, and so are
    those that handlers and ignite's metrics assign to `trainer.state.metrics`, of the step in which they do. What an
    evaluator has measured is `val/NAME`, of the step that the trainer has come to. Attach it on every rank.

    Args:
        output_transform: Makes a number or a mapping of `trainer.state.output`, where that is neither.
        accumulation_steps: Iterations of a step of the optimizer, as in `create_supervised_trainer`.
        weight: Returns what an iteration counts in the means, such as its number of tokens; 1 by default.
        options: Of `FitSession`: `meter` (it counts each batch as the trainer gets it), `sources`, `telemetry`, and
            those of `otel_train.init`.

    Raises:
        ConfigurationError: An option is none of `init`'s.
    """

    def __init__(
        self,
        *,
        output_transform: Callable[[Any], Any] = lambda output: output,
        accumulation_steps: int = 1,
        weight: Callable[[Engine], float] = lambda _: 1.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self._transform, self._weight, self._every = output_transform, weight, accumulation_steps
        self._trainer: Any = None
        self._recorded = 0  # the newest iteration that is
        self._starts = False

    def attach(self, trainer: Engine, evaluators: Mapping[str, Engine] | None = None) -> Self:
        """Record a trainer from its next run on, and the evaluators by name; return this handler."""
        self._trainer, run = trainer, trainer.run

        @wraps(run)
        def recorded_run(*args: Any, **kwargs: Any) -> Any:
            self._starts = True
            trainer.state.metrics = AssignedMetrics(trainer.state.metrics)
            # They come after the user's, and see what those assign. With a handler of EXCEPTION_RAISED the engine would
            # swallow exceptions.
            ends = trainer.add_event_handler(Events.ITERATION_COMPLETED, self._record)
            epochs = trainer.add_event_handler(Events.EPOCH_COMPLETED, self._log_assigned)
            try:
                with ends, epochs:
                    return run(*args, **kwargs)
            finally:
                self._record_completed()
                self._log_assigned()
                self._starts = False
                if trainer.last_event_name != Events.INTERRUPT:  # else the next run goes on with this one
                    self.end()

        trainer.run = recorded_run
        trainer.add_event_handler(Events.STARTED, self._begin)
        trainer.add_event_handler(Events.GET_BATCH_COMPLETED, self._count)
        for name, evaluator in (evaluators or {}).items():
            evaluator.add_event_handler(Events.STARTED, self._begin)  # it may run in the trainer's own STARTED
            evaluator.add_event_handler(Events.COMPLETED, self._log_evaluation, name)
        return self

    def state_dict(self, *, gathered: bool = True) -> dict[str, Any]:
        """Return what `Checkpoint(to_save={"telemetry": handler})` keeps; with a meter all ranks call it together."""
        self._record_completed()
        return super().state_dict(gathered=gathered)

    @property
    def _step(self) -> int:
        return int(self._trainer.state.iteration) // self._every

    def _begin(self, engine: Engine) -> None:
        if self._starts and (engine is self._trainer or self.telemetry is None):
            self._starts, self._recorded = False, self._trainer.state.iteration
            self.begin(self._step)

    def _count(self, engine: Engine) -> None:
        if isinstance(self.meter, SourceMeter):
            engine.state.batch = self.meter.count(engine.state.batch)

    def _record_completed(self) -> None:
        if self._trainer is not None and self._trainer.last_event_name == Events.ITERATION_COMPLETED:
            self._record()  # one of its handlers saves it, or has raised

    def _record(self) -> None:
        state = self._trainer.state
        if state.iteration == self._recorded:
            self._log_assigned()
            return
        self._recorded = state.iteration
        output = self._transform(state.output)
        values = numbers("train", output if isinstance(output, Mapping) else {"loss": output})
        self.add(values | numbers("train", state.metrics.take(), lists=True), weight=self._weight(self._trainer))
        if state.iteration % self._every == 0:
            self.step(self._step)

    def _log_assigned(self) -> None:
        if values := numbers("train", self._trainer.state.metrics.take(), lists=True):
            self.log(values, step=self._step)

    def _log_evaluation(self, evaluator: Engine, name: str) -> None:
        self.log(numbers(name, evaluator.state.metrics, lists=True), step=self._step)
