"""Run the reference job, with a bridge of its own or against a given receiver, and judge what arrived."""

from otel_train.smoke.job import SmokeOptions, SmokeResult, run_smoke
from otel_train.smoke.verdict import Judgement, judge

__all__ = ["Judgement", "SmokeOptions", "SmokeResult", "judge", "run_smoke"]
