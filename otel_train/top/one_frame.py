"""A job's rings as `otel-train top` reads them, and one frame for scripts and pictures.

Without the live view's library, which takes longer to load than the rings to read.
"""

from __future__ import annotations

import io
import os
import re
import time
from pathlib import Path

from rich.console import Console

from otel_train.catalogue import Ranges, healthy_range
from otel_train.read.rings import RingJob
from otel_train.top.frame import frame, whole_width
from otel_train.top.snapshot import RANK_KEYS, Snapshot, take_snapshot

NEWEST = 512
"""Newest records of each ring that are read: the verdicts reach back over 256 log steps of rank 0, which writes two."""


class Watch:
    """The rings of a job, attached read-only: it writes nothing, holds no lock and asks no rank anything.

    Args:
        directory: The directory of the rings.
        ranges: Gives the healthy range of a headline key.
    """

    def __init__(self, directory: Path, ranges: Ranges = healthy_range) -> None:
        self._ranges = ranges
        self._job = RingJob(directory, newest=NEWEST, rank_keys=RANK_KEYS)

    def snapshot(self, *, refresh: bool = True) -> Snapshot:
        """Read the new records, and return the job's present state."""
        if refresh:
            self._job.refresh()
        notices = [
            f"attempt {state.identity.attempt} goes on too (rank {state.identity.rank}, process {state.pid}): two jobs "
            "have one run id"
            for state in self._job.rivals()[:1]
        ]
        notices += [f"{path.name}: {why}" for path, why in self._job.damaged.items()]
        return take_snapshot(
            self._job.history, self._job.last_states, time.time_ns(), ranges=self._ranges, notices=notices
        )

    def close(self) -> None:
        """Release the rings."""
        self._job.close()


def print_frame(directory: Path, ranges: Ranges = healthy_range) -> None:
    """Print one frame to stdout: of the terminal's size, or, elsewhere, all ranks in COLUMNS columns or whole lines."""
    watch = Watch(directory, ranges)
    snapshot = watch.snapshot(refresh=False)
    console = Console(highlight=False, soft_wrap=True)
    piped = not console.is_terminal
    width = _number("COLUMNS") or (whole_width(snapshot) if piped else console.width)
    height = _number("LINES") or (None if piped else max(1, console.height - 1))
    for line in frame(snapshot, width=width, height=height, plain=not prints_unicode(console)):
        console.print(line, width=width, no_wrap=True, crop=False)
    watch.close()


def save_frame(directory: Path, file: Path, ranges: Ranges = healthy_range) -> None:
    """Save one frame as an SVG picture that requests nothing from other hosts.

    Raises:
        OSError: The file can't be written.
    """
    watch = Watch(directory, ranges)
    width = _number("COLUMNS") or 96
    console = Console(record=True, file=io.StringIO(), width=width, force_terminal=True, color_system="truecolor")
    for line in frame(watch.snapshot(refresh=False), width=width, height=_number("LINES")):
        console.print(line, no_wrap=True)
    watch.close()
    picture = console.export_svg(title="otel-train top")
    file.write_text(re.sub(r"<!--.*?-->|@font-face \{.*?\}", "", picture, count=3, flags=re.DOTALL), encoding="utf-8")


def _number(name: str) -> int | None:
    text = os.environ.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and 0 < len(text) < 5 and int(text) > 0 else None


def prints_unicode(console: Console) -> bool:
    """Tell whether a console's encoding has more than ASCII."""
    return console.encoding.lower().replace("-", "").startswith("utf")
