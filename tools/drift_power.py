"""Simulate jobs that mix as real loaders do: how soon the drift test detects a wrong mix, and how often it errs.

    python -m tools.drift_power [--runs 200] [--out docs/images/drift.svg]

Meters, records, reader and test are the real ones; only the processes are missing. It prints a table for
docs/decisions/drift.md.
"""

from __future__ import annotations

import argparse
import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otel_train.diagnose.drift import ALPHA, test_mix
from otel_train.read.mix import Mix
from tests.support.mixing_schemes import (
    Scheme,
    alike_ranks,
    alike_workers,
    in_groups,
    independent_rows,
    mixed_job,
    one_source_a_batch,
    stratified,
)

WEIGHTS = {"code": 1.0, "prose": 3.0}
WRONG = (0.5, 0.5)
SLIGHTLY_WRONG = (0.32, 0.68)
STEPS = 150
SIZES = (2, 8, 64)
COLOURS = ("#2463b0", "#b5531c", "#3b7d3a", "#7a4aa0", "#8a6d00", "#555")
LEFT, TOP, WIDTH, HEIGHT, RIGHT = 60, 44, 560, 250, 150


@dataclass(frozen=True, slots=True)
class Case:
    """A way of mixing."""

    name: str
    scheme: Scheme
    options: Mapping[str, Any]


CASES = (
    Case("independent rows", independent_rows, {}),
    Case("ranks alike", alike_ranks, {}),
    Case("pairs of ranks alike", in_groups(2), {}),
    Case("4 alike workers a rank", alike_workers(4), {}),
    Case("batches of one source", one_source_a_batch, {"unit": "batch"}),
    Case("exact over all ranks", stratified, {"scope": "cluster"}),
)


def detections(case: Case, ranks: int, real: tuple[float, ...] | None, runs: int) -> list[tuple[float, float]]:
    """Return for each run the picks of a rank, and the draws of all, when the drift was certain; infinite for never."""
    seen = []
    for seed in range(runs):
        options = case.options
        job = mixed_job(case.scheme, weights=WEIGHTS, real=real, ranks=ranks, steps=STEPS, seed=seed, options=options)
        intervals = list(Mix.of(job.mix).drawn())
        detected = test_mix(intervals).detected
        if detected is None:
            seen.append((math.inf, math.inf))
        else:
            seen.append(((detected + 2) * 8.0, sum(sum(interval.picks) for interval in intervals[: detected + 1])))
    return seen


def middle(values: list[float]) -> str:
    """Return the median in words."""
    value = sorted(values)[len(values) // 2]
    return f"{value:.0f}" if math.isfinite(value) else f"more than {STEPS * 8}"


def svg(curves: Mapping[str, list[float]], title: str) -> str:
    """Return a chart: for each case the part of the runs whose drift is detected, by the picks of a rank."""
    last = STEPS * 8.0

    def x(picks: float) -> float:
        return LEFT + WIDTH * math.log(max(picks, 16.0) / 16.0) / math.log(last / 16.0)

    def y(part: float) -> float:
        return TOP + HEIGHT * (1 - part)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + RIGHT} {TOP + HEIGHT + 60}"',
        ' font-family="sans-serif" font-size="13">',
        f'<rect width="100%" height="100%" fill="#fff"/><text x="{LEFT}" y="24" font-size="15">{title}</text>',
    ]
    for part in (0.0, 0.5, 1.0):
        lines.append(f'<path d="M{LEFT} {y(part):.1f}h{WIDTH}" stroke="#ccc"/>')
        lines.append(f'<text x="{LEFT - 8}" y="{y(part) + 4:.1f}" text-anchor="end">{100 * part:.0f} %</text>')
    lines += [
        f'<text x="{x(picks):.1f}" y="{TOP + HEIGHT + 20}" text-anchor="middle">{picks}</text>'
        for picks in (16, 32, 64, 128, 256, 512, 1024)
    ]
    lines.append(f'<text x="{LEFT + WIDTH / 2}" y="{TOP + HEIGHT + 44}" text-anchor="middle">picks of a rank</text>')
    for number, (name, values) in enumerate(curves.items()):
        ordered = sorted(values)
        points = [(picks, bisect_right(ordered, picks) / len(ordered)) for picks in map(float, range(16, 1201, 8))]
        path = "L".join(f"{x(picks):.1f} {y(part):.1f}" for picks, part in points)
        colour = COLOURS[number]
        lines.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines.append(
            f'<text x="{LEFT + WIDTH + 8}" y="{TOP + 14 + 20 * number}" fill="{colour}" font-size="12">{name}</text>'
        )
    return "\n".join([*lines, "</svg>", ""])


def main() -> None:
    """Simulate, print the table and write the chart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path("docs/images/drift.svg"))
    options = parser.parse_args()
    print(f"| mixing | ranks | false alarms (bound {ALPHA:g}) | picks of a rank: 50 % for 25 % | 32 % for 25 % |")
    print("|---|---|---|---|---|")
    curves = {}
    for case in CASES:
        for ranks in SIZES:
            runs = options.runs if ranks < max(SIZES) else options.runs // 5
            false = [picks for picks, _ in detections(case, ranks, None, runs) if math.isfinite(picks)]
            wrong = [picks for picks, _ in detections(case, ranks, WRONG, runs // 4)]
            slight = [picks for picks, _ in detections(case, ranks, SLIGHTLY_WRONG, runs // 4)]
            print(
                f"| {case.name} | {ranks} | {len(false)} of {runs} | {middle(wrong)} | {middle(slight)} |", flush=True
            )
            if ranks == 2:
                curves[case.name] = wrong
    options.out.write_text(svg(curves, "Runs whose drift is certain: 2 ranks, 50 % instead of 25 % code"))


if __name__ == "__main__":
    main()
