"""Reasons of refusals, by what receivers say."""

from __future__ import annotations

import pytest

from otel_train.refusals import Refusal, refusal_of


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("out of bounds", Refusal.OUT_OF_BOUNDS),
        ("out of bounds: timestamp is too far in the future", Refusal.TOO_NEW),
        ("too old sample", Refusal.TOO_OLD),
        ("out of order sample", Refusal.TOO_OLD),
        ("duplicate sample for timestamp 17 rejected; already have value 1 with newer timestamp 18", Refusal.DUPLICATE),
        ("the sample has been rejected because its timestamp is too far in the future (err-mimir-2)", Refusal.TOO_NEW),
        ("the sample has been rejected because another sample with a more recent timestamp: out-of-order", "too_old"),
        ("per-user series limit of 150000 exceeded (err-mimir-max-series-per-user)", Refusal.LIMIT),
        ("the run has too many series (--max-series), or the step too many points", Refusal.LIMIT),
        ("the same timestamp, but a different value, is already stored", Refusal.DUPLICATE),
        ("timestamp is ahead of the server's clock", Refusal.TOO_NEW),
        ("points newer than now+10m are not accepted", Refusal.TOO_NEW),
        ("sample timestamp too far in past", Refusal.TOO_OLD),
        ("timestamp is outside of the retention period", Refusal.TOO_OLD),
        ("timestamp out of range", Refusal.OUT_OF_BOUNDS),
        ("received metric whose label value is not UTF-8", Refusal.INVALID),
        ("", Refusal.INVALID),
    ],
)
def test_text_gives_reason(text: str, reason: str) -> None:
    """Words of Prometheus, Mimir, our bridge and others; any other text gives the reason of its status."""
    assert refusal_of(text, Refusal.INVALID) == reason
