"""What is made from the catalogue and committed: written anew, or compared with what is there."""

from otel_train.render.docs import metrics_page
from otel_train.render.files import drifted, generated_files, write_files

__all__ = ["drifted", "generated_files", "metrics_page", "write_files"]
