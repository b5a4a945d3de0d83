"""The reference job: a recurrent encoder over real files, its configuration, and four shipped configurations."""

from otel_train.trainer.config import TrainerConfig, find_config, load_config, shipped_configs

__all__ = ["TrainerConfig", "find_config", "load_config", "shipped_configs"]
