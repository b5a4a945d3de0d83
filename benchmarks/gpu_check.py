"""Run the GPU's sections on a machine that has torch and nothing else of ours, and keep what they give.

    python -m benchmarks.gpu_check [--quick]

Where there is no GPU it says so, rehearses the same on the CPU, and keeps nothing. It ends with 1 where a goal that is
no matter of speed is missed: a synchronising call, a wrong value.
"""

from __future__ import annotations

import sys

import torch

from benchmarks import gpu, gpu_values, report
from benchmarks.device import GPU
from benchmarks.measure import Goal, Section


def main(*, quick: bool) -> int:
    """Run both sections, print them, and return the exit status."""
    on_device, failed = torch.cuda.is_available(), False
    if not on_device:
        print("no device: torch sees no GPU here; what follows rehearses the check on the CPU, and is not kept")
    for module in (gpu, gpu_values):
        section = module.measure(GPU if on_device else "cpu", quick=quick or not on_device)
        print(f"\n{section.number}. {section.title}\n{section.how}")
        for row in report.table(section):
            print("  " + " | ".join(row))
        for goal in section.goals:
            speed = goal.measured.endswith(gpu.SHARE)
            failed |= not goal.met and not speed
            print(f"  {verdict(goal, on_device=on_device, speed=speed)}", flush=True)
        for note in section.notes:
            print(f"  {note}")
        if on_device and not quick:
            keep(section)
    return int(failed)


def verdict(goal: Goal, *, on_device: bool, speed: bool) -> str:
    """Return what became of a goal, in a line; without a device none is met, and a wrong value is one all the same."""
    if on_device:
        return f"{'met   ' if goal.met else 'MISSED'}  {goal.text}: {goal.measured}"
    return f"no device  {goal.text}" if goal.met or speed else f"FAILED  {goal.text}: {goal.measured}"


def keep(section: Section) -> None:
    """Write the section into the results, with this machine's name and versions."""
    kept = report.HERE / "results.json"
    sections = report.load(kept)
    sections[section.number] = section, report.machine()
    report.keep(sections, kept)
    (report.HERE / "results.md").write_text(report.render(sections))


if __name__ == "__main__":
    sys.exit(main(quick="--quick" in sys.argv[1:]))
