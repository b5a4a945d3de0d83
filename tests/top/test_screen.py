"""The live view, driven by its keys."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from otel_train.top.frame import Arrangement
from otel_train.top.one_frame import Watch, save_frame
from otel_train.top.screen import Top
from tests.support.job_rings import FakeRank, write_job


def shown(app: Top) -> list[str]:
    """Return the lines on the screen."""
    return [line.rstrip() for line in str(app.query_one(Static).content).splitlines()]


async def reach(pilot: Pilot[None], look: Callable[[], object], expected: object) -> None:
    """Wait until the screen shows what is expected: a layout may come a moment after the key."""
    deadline = time.monotonic() + 30.0
    while look() != expected and time.monotonic() < deadline:
        await pilot.pause(0.01)
    assert look() == expected


def drive(directory: Path, steps: Callable[[Top, Pilot[None]], Awaitable[None]]) -> Top:
    """Run the view on 80 by 24 cells without a terminal, until its first frame is there, and then some steps."""

    async def run() -> Top:
        watch = Watch(directory)
        app = Top(watch)
        async with app.run_test(size=(80, 24)) as pilot:
            while app.shown is None:
                await pilot.pause(0.01)
            await steps(app, pilot)
        watch.close()
        return app

    return asyncio.run(run())


def test_keys_arrange_and_quit(tmp_path: Path) -> None:
    """Each key does as the footer says, and the arrangement holds for the next frame."""

    def ranks_shown(app: Top) -> list[int]:
        """Return the ranks on the screen, in their order."""
        lines = shown(app)
        heading = next(index for index, line in enumerate(lines) if line.lower().lstrip("- ").startswith("rank "))
        rows = [line.lstrip("*! ").split() for line in lines[heading + 1 :]]
        return [int(row[0]) for row in rows if row and row[0].isdigit()]

    for rank in write_job(tmp_path, 16, 3, starved=9):
        rank.ring.close(3, 3)

    async def steps(app: Top, pilot: Pilot[None]) -> None:
        await reach(pilot, lambda: ranks_shown(app), [9, 0, 1, 2, 3])
        await pilot.press("s", "s", "s")
        await reach(pilot, lambda: app.arrangement, Arrangement(sort="staleness"))
        await reach(pilot, lambda: ranks_shown(app), [9, 15, 14, 13, 12])
        await pilot.press("r")
        await reach(pilot, lambda: ranks_shown(app), [9, 0, 1, 2, 3])
        await pilot.press("slash", *"10-12", "enter", "r")
        await reach(pilot, lambda: ranks_shown(app), [12, 11, 10])
        await pilot.press("f", "escape")
        await reach(pilot, lambda: ranks_shown(app), [9, 15, 14, 13, 12])
        await pilot.press("down", "down")
        await reach(pilot, lambda: ranks_shown(app), [14, 13, 12, 11, 10])
        await pilot.press("q")

    assert drive(tmp_path, steps).return_code == 0


def test_filter_takes_letters(tmp_path: Path) -> None:
    """A letter in the filter is not a key: a host's name may have a q in it."""
    write_job(tmp_path, 2, 3)

    async def steps(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("f", *"spqr")
        expected = Arrangement(filter="spqr"), "spqr"
        await reach(pilot, lambda: (app.arrangement, app.query_one(Input).value), expected)
        await reach(pilot, lambda: "no rank matches the filter" in shown(app)[-1], True)

    drive(tmp_path, steps)


def test_paused_frame_stays(tmp_path: Path) -> None:
    """A paused frame stays, and goes on with the newest values when it is resumed."""
    [rank] = write_job(tmp_path, 1, 3)

    async def steps(app: Top, pilot: Pilot[None]) -> None:
        await pilot.press("p")
        await reach(pilot, lambda: "PAUSED" in shown(app)[0] and not app._reading, True)
        rank.write(77)
        app.tick()
        assert not app._reading, "nothing is read for a frame that stays"
        app._show(app._watch.snapshot(), "")  # one that was under way
        await pilot.pause()
        assert "PAUSED" in shown(app)[0]
        assert shown(app)[1].startswith("step 3 ")
        await pilot.press("p")
        while not shown(app)[1].startswith("step 77 "):
            await pilot.pause(0.01)

    drive(tmp_path, steps)


def test_view_follows_new_attempt(tmp_path: Path) -> None:
    """The view goes on into a new attempt, and names a ring that can't be read."""
    write_job(tmp_path, 1, 3)

    async def steps(app: Top, pilot: Pilot[None]) -> None:
        FakeRank(tmp_path, 0, 2, attempt=1_700_000_001_000).write(41)
        while not shown(app)[1].startswith("step 41 "):
            app.tick()
            await pilot.pause(0.01)
        (tmp_path / "rank00003-9.ring").write_bytes(b"no ring")
        while "rank00003-9.ring" not in shown(app)[2]:
            app.tick()
            await pilot.pause(0.01)

    drive(tmp_path, steps)


@pytest.mark.parametrize(
    ("environment", "plain"), [({"PYTHONIOENCODING": "ascii"}, True), ({"PYTHONIOENCODING": "utf-8"}, False)]
)
def test_pipe_gets_one_frame(environment: dict[str, str], plain: bool, tmp_path: Path) -> None:
    """A pipe gets 80 columns with all ranks, without colour, and in ASCII where the encoding has nothing else."""
    write_job(tmp_path, 16, 3, starved=9)
    own = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "FORCE_COLOR")}
    command = [sys.executable, "-m", "otel_train", "top", "--once", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, env=own | environment, timeout=60, check=True)
    text = run.stdout.decode()
    assert (text.isascii(), run.stderr, "\x1b" in text) == (plain, b"", False)
    assert "???" not in text  # a curve in ASCII, not one whose characters are lacking
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    assert len([line for line in lines if line[2:4].strip().isdigit()]) == 16


def test_pipe_cuts_no_name(tmp_path: Path) -> None:
    """A pipe, which is searched, gets a long name of a run, a host or a modality whole."""
    name = "run-of-a-long-name-" + "x" * 45
    write_job(tmp_path, 2, 3, name=name)
    own = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "FORCE_COLOR")}
    command = [sys.executable, "-m", "otel_train", "top", "--once", str(tmp_path)]
    lines = subprocess.run(command, capture_output=True, env=own, text=True, check=True).stdout.splitlines()
    title, marked = lines[0], next(line for line in lines if line.startswith("! 0 "))
    assert title.startswith(f"{name}  2 ranks  since ")
    assert [line for line in lines if line.startswith(f"{name} ") and " of 75.0%" in line]
    assert f" {name} for " in marked


def test_picture_makes_no_requests(tmp_path: Path) -> None:
    """A picture is well-formed whatever a run is called, and has no address but the one that names its format."""
    write_job(tmp_path, 2, 3, name="<script>@font-face {&")
    save_frame(tmp_path, tmp_path / "frame.svg")
    text = (tmp_path / "frame.svg").read_text()
    assert ET.fromstring(text).tag.endswith("svg")
    assert re.findall(r"\w+://[^\"]*|url\((?!#)", text) == ["http://www.w3.org/2000/svg"]
    assert "@font-face" in text
    assert "<script" not in text
