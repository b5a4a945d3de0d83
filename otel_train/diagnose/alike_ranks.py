"""Tell whether ranks draw in the same order: each of them then sees the mix of one, and their picks say it once."""

from __future__ import annotations

import math

from otel_train.catalogue import rows
from otel_train.diagnose.causes import shares
from otel_train.diagnose.finding import Finding, Severity
from otel_train.diagnose.ranks import ranks_text
from otel_train.read.history import History

_LEAST_INFORMATION = math.log(1e6)
"""Ranks that draw for themselves agree in so short an order by chance; nothing is said of one."""
_DEVIATIONS = 5.0
"""Standard deviations by which the estimate over the cluster must be above 1."""
_SHOWN = 4


def find_alike(history: History) -> list[Finding]:
    """Return the ranks that draw in the same order; nothing where none do."""
    row = rows.ALIKE_RANKS
    if complementary(history):
        return []
    groups = [group for group in history.order_groups if len(group) > 1 and _information(history, group[0])]
    if groups:
        alike = sum(map(len, groups))
        told = sum(map(len, history.order_groups))
        lines = [ranks_text(group) for group in sorted(groups, key=len, reverse=True)[:_SHOWN]]
        summary = f"{alike} of {told} ranks draw in the same order"
        if len(groups) > 1:
            summary = f"{alike} of {told} ranks draw in the same order as another, in {len(groups)} groups"
    else:
        size, error = _estimate(history)
        seen = sum(map(len, history.order_groups))
        if size <= 1 + _DEVIATIONS * error or seen >= history.world_size or not _information(history, None):
            return []
        lines = [f"by the signs of their orders' hashes over {len(history.cluster.steps)} log steps"]
        summary = f"about {size:.1f} of {history.world_size} ranks draw in the same order as any one of them"
    return [
        Finding(
            check=row.wandb_key,
            severity=Severity.NOTE,
            summary=summary,
            evidence=(*lines, "the drift of the mix is judged by what was drawn once"),
            cause="the ranks' mixers have one seed, or take turns without drawing",
            remedy=row.remedy,
        )
    ]


def complementary(history: History) -> bool:
    """Tell whether ranks hold the mix together only, row by row: equal orders are parts of it then, not one draw."""
    return history.facts.get("mixing.scope") == "cluster" and history.facts.get("mixing.unit") != "batch"


def size_of_alike(history: History) -> float:
    """Return how many ranks a rank draws alike with, itself included, on average; 1 where it can't be told."""
    if complementary(history):
        return 1.0
    ranks = sum(map(len, history.order_groups))
    if ranks and ranks >= history.world_size:
        return ranks / len(history.order_groups)
    size, error = _estimate(history)
    return size if size > 1 + _DEVIATIONS * error else 1.0


def _estimate(history: History) -> tuple[float, float]:
    """Return the size of the groups by the cluster's values, and its standard error where no ranks are alike.

    Each value is a mean of squares; of n ranks that draw for themselves a square has the variance 2 (1 - 1 / n).
    """
    values = history.cluster.finite_values(rows.ALIKE_RANKS.wandb_key)
    number = len(values) - sum(map((0.0).__eq__, values))
    size = math.fsum(values) / number if number else 1.0
    return size, math.sqrt(2 / rows.ORDER_SIGNS.size / max(1, number))


def _information(history: History, rank: int | None) -> bool:
    """Tell whether a rank has drawn enough for its order to say who drew it."""
    realised = [share for _, share, _ in shares(history.cluster, history.modalities)]
    track = history.cluster if rank is None else history.ranks[rank]
    picks = track.finite_sum(rows.PICKS.wandb_key)[0]
    drawn_at_once = history.facts.get("mixing.unit_rows", 1.0)
    if isinstance(drawn_at_once, int | float) and drawn_at_once > 1:
        picks /= drawn_at_once
    if rank is None and history.world_size:
        picks /= history.world_size
    # Two draws by the same shares agree with the sum of their squares.
    agree = math.fsum(share * share for share in realised)
    return 0 < agree < 1 and -math.log(agree) * picks > _LEAST_INFORMATION
