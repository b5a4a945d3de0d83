"""Which rings of ended jobs are kept: in the default directory, and when somebody asks to clean up."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from otel_train.cli import main
from otel_train.ring import (
    Fact,
    Kind,
    RingReader,
    RingWriter,
    clean_beside,
    default_base,
    directory,
    look_at_run,
    retention,
    ring_files,
    ring_path,
)
from tests.support.written_rings import IDENTITY, SCHEMA


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory that is this user's by default."""
    monkeypatch.setattr(directory, "MEMORY", tmp_path)
    monkeypatch.setattr(retention, "has_open_ring", lambda _: False)  # the live ones stand for another process's
    return default_base()


def leave(
    run: Path, *, closed: bool = True, delivered: bool = True, days: float = 0.0, facts: dict[str, Fact] | None = None
) -> Path:
    """Leave a run's ring behind, which ended so many days ago."""
    run.mkdir()
    ring = RingWriter(ring_path(run, IDENTITY), SCHEMA, IDENTITY, records=64, facts=facts)
    ended_ns = int((time.time() - 86400 * days) * 1e9)
    ring.write(1, ended_ns, Kind.RANK, [0.0] * ring.geometry.values)
    if delivered:
        with closing(RingReader(ring.path, writable=True)) as reader:
            reader.move_cursor(reader.cursor._replace(position=1))
    if closed:
        ring.close(1, ended_ns)
        ring.release()
    else:
        LIVE.append(ring)
    return run


LIVE: list[RingWriter] = []
"""Rings that stay open, as those of running jobs."""


@pytest.mark.parametrize(
    ("bound", "value", "kept"), [("KEPT_RUNS", 3, 3), ("KEPT_BYTES", 140_000, 2), ("KEPT_SECONDS", 86400 * 2.5, 2)]
)
def test_newest_ended_runs_are_kept(
    bound: str, value: float, kept: int, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest ended runs are kept, bounded by number, by bytes and by age."""
    monkeypatch.setattr(retention, bound, value)
    runs = [leave(base / str(days), days=days) for days in range(1, 6)]
    clean_beside(base / "new")
    assert [run.exists() for run in runs] == [number < kept for number in range(5)]


def test_needed_or_foreign_files_stay(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rings of live jobs, undelivered ones, other files, links and other directories are never removed."""
    monkeypatch.setattr(retention, "KEPT_SECONDS", -1.0)
    kept = [leave(base / "lives", closed=False), leave(base / "undelivered", delivered=False), leave(base / "mixed")]
    kept += [base / "junk", leave(base.parent / "elsewhere"), base / "link"]
    (base / "mixed" / "notes.txt").touch()
    (base / "junk").mkdir()
    (base / "junk" / "some.ring").write_text("no ring")
    (base / "link").symlink_to(base.parent / "elsewhere")
    gone = leave(base / "gone")
    clean_beside(base / "new")
    assert [path.exists() for path in (*kept, gone)] == [True] * 6 + [False]
    assert all(ring_files(path) for path in kept)


def test_clean_command_removes_delivered(base: Path) -> None:
    """`clean` removes what is delivered and names what stays; undelivered rings go only when asked for."""
    leave(base / "done")
    leave(base / "undelivered", delivered=False)
    leave(base / "lives", closed=False)
    on_paper = CliRunner().invoke(main, ["clean", "--dry-run"]).output
    assert f"{base / 'done'}: would be removed, 1 rings, " in on_paper
    assert sorted(path.name for path in base.iterdir()) == ["done", "lives", "undelivered"]
    output = CliRunner().invoke(main, ["clean"]).output
    assert "undelivered: kept, 1 records are not delivered" in output
    assert "lives: kept, its job or its sidecar runs" in output
    assert sorted(path.name for path in base.iterdir()) == ["lives", "undelivered"]
    CliRunner().invoke(main, ["clean", "--undelivered", str(base / "undelivered")])
    assert sorted(path.name for path in base.iterdir()) == ["lives"]


def test_undeliverable_records_keep_no_run(base: Path) -> None:
    """Records without a receiver keep no run: they were for `otel-train top` only."""
    leave(base / "run", delivered=False, facts={"telemetry.delivers": False})
    run = look_at_run(base / "run")
    assert run is not None
    assert run.done
