"""transformers' Trainer, which drops each column that the model's forward does not name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import Trainer

from otel_train.exceptions import ConfigurationError
from otel_train.mixing import Collate, SourceMeter
from otel_train.mixing.tags import SAMPLE_KEY, TAG_KEY


def track(trainer: Any, meter: SourceMeter) -> tuple[SourceMeter, Any]:
    """Have a Trainer keep the tags of its training rows and count each batch when it trains on it; return both.

        meter, rows = hf_datasets.track({"code": code, "prose": prose}, [0.25, 0.75], tokens="length")
        trainer = Trainer(model, args, train_dataset=rows, callbacks=[transformers.OtelTrainCallback(meter=meter)])

    The callback calls it; alone, for a session of the user's own, it is `meter, trainer = track(trainer, meter)`.

    Exact: every value of what the Trainer trains on, with any collator, gradient accumulation and removal of columns,
    with map-style and iterable datasets; what it skips at a resume or evaluates does not count. Not known to it: when
    the Trainer saves; the callback saves `meter.state_dict()` beside the checkpoint.

    Args:
        trainer: One that has not begun; its training batches are mappings.
        meter: Made the tags of its training dataset's rows.

    Raises:
        ConfigurationError: It is no Trainer, or of a version that selects its columns in another way.
    """
    select_columns = getattr(trainer, "_set_signature_columns_if_needed", None)
    if not isinstance(trainer, Trainer) or select_columns is None:
        raise ConfigurationError(
            f"trainer must be a Trainer as transformers 5.23 has it, got {type(trainer).__name__}; set "
            "remove_unused_columns=False, and give each batch to meter.count in compute_loss"
        )
    if getattr(trainer.get_train_dataloader, "meter", None) is meter:
        return meter, trainer
    make_loader, train_step = trainer.get_train_dataloader, trainer.training_step

    def get_train_dataloader() -> Any:
        select_columns()
        # No public option keeps a column that the model does not name.
        collator, columns = trainer.data_collator, trainer._signature_columns  # noqa: SLF001
        trainer.data_collator = KeptTags(collator)
        trainer._signature_columns = [*columns, TAG_KEY, SAMPLE_KEY]  # noqa: SLF001
        try:
            return make_loader()
        finally:  # evaluation has its own batches, of which nothing takes the tags
            trainer.data_collator, trainer._signature_columns = collator, columns  # noqa: SLF001

    def training_step(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        return train_step(model, meter.count(inputs), *args, **kwargs)

    setattr(get_train_dataloader, "meter", meter)  # noqa: B010  # a function has no such attribute for mypy
    trainer.get_train_dataloader, trainer.training_step = get_train_dataloader, training_step
    return meter, trainer


@dataclass(frozen=True, slots=True)
class KeptTags:
    """A collator that gives another one the rows without their tags, and puts the tags into its batch."""

    collator: Callable[[list[Any]], Any]

    def __call__(self, rows: Sequence[Any]) -> Any:
        """Return the batch of these rows."""
        tagged = Collate(self.collator)(rows)
        tagged.sample[TAG_KEY], tagged.sample[SAMPLE_KEY] = tagged.otel_train, tagged.otel_train_sample
        return tagged.sample
