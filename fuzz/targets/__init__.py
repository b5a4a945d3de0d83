"""One module for each target, with a function `run` from bytes to nothing."""
