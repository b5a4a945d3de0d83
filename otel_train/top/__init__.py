"""A running job on a terminal, again each second."""
