"""Send a receiver a test step under a run of its own, and tell which settings it lacks: `doctor --receiver`.

`check_receiver` makes the findings, of what `probe_run` sends over `receiver_address` and `kept_points` reads back.
"""
