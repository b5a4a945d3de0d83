"""Run the reference job, with a bridge of its own or against a given receiver, and judge what arrived."""

from otel_train.diagnose.judgement import Judgement, judge
from otel_train.smoke.job import SmokeOptions, SmokeResult, run_smoke

__all__ = ["Judgement", "SmokeOptions", "SmokeResult", "judge", "run_smoke"]
