"""Metrics of the bridge to wandb."""

from __future__ import annotations

from otel_train.catalogue.metric import Instrument, Metric, Reduction

BRIDGE_ROWS = Metric(
    "bridge.rows",
    Reduction.LOCAL,
    Instrument.COUNTER,
    "{row}",
    description="Rows that wandb has durably, in its file or on its server, since the bridge began.",
)
BRIDGE_PARTIAL_ROWS = Metric(
    "bridge.rows.partial",
    Reduction.LOCAL,
    Instrument.COUNTER,
    "{row}",
    description="Rows that were made although some of their step's points had not come in time.",
    remedy="Look for a collector that splits a step's points or drops some of them.",
)
BRIDGE_WAITING = Metric(
    "bridge.steps.waiting",
    Reduction.LOCAL,
    Instrument.GAUGE,
    "{step}",
    description="Steps that the bridge has points of and wandb has no row of.",
)
BRIDGE_LAG = Metric(
    "bridge.lag",
    Reduction.LOCAL,
    Instrument.GAUGE,
    "s",
    description="Age of the oldest step that waits in the bridge; 0 when none waits.",
    remedy="Look at the bridge's log: wandb is down, slow, or refuses the key, or the disk is full.",
)
BRIDGE_INBOX_SIZE = Metric(
    "bridge.inbox.size",
    Reduction.LOCAL,
    Instrument.GAUGE,
    "By",
    description="Bytes that the bridge's inbox takes on the disk. It holds what wandb lacks, and shrinks when "
    "wandb has it.",
    remedy="Find out why wandb does not take the rows that wait; beyond --max-bytes senders are told to wait.",
)
BRIDGE_DUPLICATES = Metric(
    "bridge.points.duplicates",
    Reduction.LOCAL,
    Instrument.COUNTER,
    "{point}",
    description="Points that the bridge had already and dropped: senders try again after an outage.",
)
BRIDGE_LATE_POINTS = Metric(
    "bridge.points.late",
    Reduction.LOCAL,
    Instrument.COUNTER,
    "{point}",
    description="Points that came after their step's row was made without them, or whose step has no `train.step`, "
    "both of which wandb lacks, or after a later step's row, which are out of order there.",
    remedy="Raise the bridge's --settle above the longest delay between the points of one step, or of two steps.",
)
BRIDGE_REFUSED_POINTS = Metric(
    "bridge.points.refused",
    Reduction.LOCAL,
    Instrument.COUNTER,
    "{point}",
    description="Points that break a rule or are beyond a bound, which their sender learns and does not repeat.",
    remedy="Read the reason in the sender's log; --max-series bounds the series of a run.",
)
BRIDGE_REFUSED_REQUESTS = Metric(
    "bridge.requests.refused",
    Reduction.LOCAL,
    Instrument.COUNTER,
    "{request}",
    description="Requests that the bridge could not keep and asked to be sent again, or that are not OTLP.",
    remedy="Give the bridge's disk room or raise --max-bytes; find out why wandb does not take the rows that wait.",
)
BRIDGE: tuple[Metric, ...] = (
    BRIDGE_ROWS,
    BRIDGE_PARTIAL_ROWS,
    BRIDGE_WAITING,
    BRIDGE_LAG,
    BRIDGE_INBOX_SIZE,
    BRIDGE_DUPLICATES,
    BRIDGE_LATE_POINTS,
    BRIDGE_REFUSED_POINTS,
    BRIDGE_REFUSED_REQUESTS,
)
"""Metrics of the bridge itself; none of them is reduced."""
