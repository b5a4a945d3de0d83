"""torchtitan's own program, by a config registry: that of the example, with a model and a device module for a CPU."""

from __future__ import annotations

import sys
from typing import Any

from tests.integrations.support import titan_on_cpu as titan  # before torchtitan's own

# isort: split
from torchtitan.train import main

from examples.trainers.torchtitan_registry import mixed


def on_cpu() -> Any:
    """Return the example's configuration, of which only the model is another one."""
    config = mixed()
    config.model_spec, config.loss, config.tokenizer = titan.SPEC, titan.NotedLoss.Config(), titan.Words.Config()
    config.parallelism.pipeline_parallel_schedule = "1F1B"
    config.training.disable_cuda_graphs = True
    return config


if __name__ == "__main__":
    sys.argv[1:] = ["--module", "tests.integrations.jobs.torchtitan_main_job", "--config", "on_cpu", *sys.argv[1:]]
    main()
