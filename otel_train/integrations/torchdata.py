"""torchdata.nodes: the sources of a MultiNodeWeightedSampler, with its weights."""

from __future__ import annotations

from typing import Any

from torchdata.nodes import BaseNode, MultiNodeWeightedSampler

from otel_train.exceptions import ConfigurationError
from otel_train.mixing import SourceMeter
from otel_train.mixing.tags import Field

REPEAT_KEY = "otel_train_repeat"
"""Key of a source's pass in the state of its node."""


def track(
    sampler: Any, *, tokens: Field | None = None, sample: Field | None = None, **options: Any
) -> tuple[SourceMeter, Any]:
    """Tag the rows of a sampler's sources, and return a meter with its weights, and the sampler.

        meter, sampler = torchdata.track(MultiNodeWeightedSampler(nodes, weights), tokens="tokens")
        loader = nodes.Loader(nodes.Prefetcher(nodes.Batcher(sampler, 8), 4))
        for batch in meter.counted(loader): ...

    Exact: picks, tokens, shares and switches of what the loop has read, whatever prefetches, maps and pins; restarts,
    as a source that begins again is seen, over a resume too. Not known: that a source has ended for good
    (`ALL_DATASETS_EXHAUSTED`): call `meter.end(source)`. A state that was saved without the meter can be loaded.

    Args:
        sampler: A MultiNodeWeightedSampler that has not begun; its sources are replaced.
        tokens: As for `SourceMeter.tag`.
        sample: As for `SourceMeter.tag`.
        options: For the `SourceMeter`.

    Raises:
        ConfigurationError: It is no MultiNodeWeightedSampler.
    """
    if not isinstance(sampler, MultiNodeWeightedSampler):
        raise ConfigurationError(
            f"sampler must be a MultiNodeWeightedSampler, got {type(sampler).__name__}; put Batcher, Prefetcher and "
            "Loader around what track(...) returns"
        )
    meter = SourceMeter(sampler.weights, **options)
    sampler.source_nodes = {
        source: TaggedNode(node, meter, source, tokens=tokens, sample=sample)
        for source, node in sampler.source_nodes.items()
    }
    return meter, sampler


class TaggedNode(BaseNode):  # type: ignore[misc]  # torchdata ships no types
    """A node whose rows carry a tag, with the number of the pass; its state is the wrapped node's, and that number."""

    def __init__(self, node: Any, meter: SourceMeter, source: str, **fields: Field | None) -> None:
        super().__init__()
        self.node = node
        self.repeat, self._begun = 0, False
        self._tag = meter.tag(source, repeat=self.repeat_of, **fields)  # a method can be pickled

    def reset(self, initial_state: dict[str, Any] | None = None) -> None:
        """Begin again, or at a state."""
        super().reset(initial_state)
        state = None if initial_state is None else {**initial_state}
        self.repeat = self.repeat + self._begun if state is None else state.pop(REPEAT_KEY, 0)
        self._begun = state is not None
        self.node.reset(state)

    def next(self) -> Any:
        """Return the next row with its tag."""
        row, self._begun = next(self.node), True
        return self._tag(row)

    def repeat_of(self, _row: Any) -> int:
        """Return the number of the present pass."""
        return self.repeat

    def get_state(self) -> dict[str, Any]:
        """Return the state of the wrapped node, and the number of the pass."""
        return {**self.node.state_dict(), REPEAT_KEY: self.repeat}
