"""The page as text: whole, alone, inert, and with the figures at their places."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_train.catalogue import HEADLINE, rows
from otel_train.diagnose.finding import Severity
from otel_train.report import ReportRun
from tests.support.report_pages import HOSTILE, a_history, a_run, hostile, page_of, starved

SVG = ".//figure/div/div/svg"


def parsed(page: str) -> ET.Element:
    """Return the page's tree; it is XML too, so that a tag left open is an error."""
    return ET.fromstring(page.removeprefix("<!DOCTYPE html>\n"))


def chart(page: str, title: str) -> ET.Element:
    """Return a chart's picture."""
    return next(svg for svg in parsed(page).iterfind(SVG) if svg.findtext("title") == title)


@pytest.mark.parametrize("make", [a_run, starved, hostile, lambda: a_run(a_history(0))])
def test_page_is_well_formed(make: Callable[[], ReportRun]) -> None:
    """Nothing in a page makes a browser load something, and its policy forbids the rest."""
    page = page_of(make())
    tree = parsed(page)
    for element in tree.iter():
        for name in ("src", "href", "action", "data", "srcset", "poster", "{http://www.w3.org/1999/xlink}href"):
            assert element.get(name, "#").startswith(("#", "data:,"))
    assert not re.search(r"@import|url\(", page)
    policy = tree.find("head/meta[@http-equiv='Content-Security-Policy']")
    assert policy is not None
    assert policy.get("content", "").startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:;")


def test_hostile_names_are_text() -> None:
    """Hostile names make no element and no attribute, and characters that hide or reverse text are shown."""
    page = page_of(hostile(), hostile())
    tree = parsed(page)
    assert [len(list(tree.iter(name))) for name in ("script", "img", "style")] == [1, 0, 1]
    assert not [name for element in tree.iter() for name in element.attrib if name.startswith("on")]
    assert not set("\u202e\u2066\x00\x1b\ud800") & set(page)
    assert "\\u202ertl\\u2066\\x00\\x1b[31m\\ud800" in page
    assert HOSTILE[0] in "".join(tree.itertext())


def test_verdict_comes_first() -> None:
    """The reader sees first what is wrong and since when, the worst first."""
    tree = parsed(page_of(starved()))
    main = tree.find("body/main")
    assert main is not None
    verdict = "".join(main[0].itertext())
    assert "3 of 15 figures out of range since step 1" in verdict
    cards = [card.get("class") for card in main.iterfind("section/article")]
    assert cards == [f"card {Severity.CRITICAL}", f"card {Severity.WARNING}"]


def test_band_and_strip_match_values() -> None:
    """The age of a reader is healthy up to 16, and is larger from step 27 of 60 on."""
    picture = chart(page_of(starved()), rows.STALENESS_MAX.wandb_key)
    band, strip = (picture.find(f"rect[@class='{name}']") for name in ("band", "strip"))
    assert band is not None
    assert strip is not None
    top = 50 * 1.06
    assert float(band.get("y", "")) == pytest.approx(100 * (1 - 16 / top), abs=0.1)
    assert float(band.get("y", "")) + float(band.get("height", "")) == pytest.approx(100)
    assert float(strip.get("x", "")) == pytest.approx(1000 * (27 - 1) / 59, abs=2)
    assert float(strip.get("x", "")) + float(strip.get("width", "")) == pytest.approx(1000)
    assert "Out of range in steps 27 to 60 (34 of 60)." in page_of(starved())


def test_strip_begins_with_finding() -> None:
    """A mean is out of range from its window's first step on, in the chart as in the finding."""
    run = starved()
    since = {finding.check: finding.since_step for finding in run.findings if finding.since_step is not None}
    for row in (rows.FALSE_EVICTIONS, rows.STALENESS_MAX):
        assert run.judged(row.wandb_key).outside[-1][0] == since[row.wandb_key]


def test_healthy_run_has_no_strip() -> None:
    """A healthy run has a chart of each metric, and no mark of steps out of range."""
    page = page_of(a_run())
    tree = parsed(page)
    assert "All 15 figures in their ranges" in page
    assert not tree.findall(".//rect[@class='strip']")
    titles = {svg.findtext("title") for svg in tree.iterfind(SVG)}
    assert {row.wandb_key for row in HEADLINE} <= titles


def test_pictures_have_text() -> None:
    """Each picture has a name, a description and its numbers, for readers who can't see it."""
    tree = parsed(page_of(starved()))
    figures = tree.findall(".//figure")
    assert len(figures) > 12
    for figure in figures:
        svg = figure.find("div/div/svg")
        assert svg is not None
        assert svg.get("role") == "img"
        assert svg.findtext("title")
        assert svg.findtext("desc")
        assert figure.findall("details/div/table/tbody/tr")


@settings(max_examples=10)
@given(st.lists(st.floats(), min_size=1, max_size=30), st.data())
def test_any_values_are_drawn(values: list[float], data: st.DataObject) -> None:
    """Values that are not finite, huge or next to nothing are drawn as far as they can be."""
    history = a_history(30)
    for column in (*history.cluster.values.values(), *history.ranks[1].values.values()):
        at = data.draw(st.integers(0, 30 - len(values)))
        column[at : at + len(values)] = values
    parsed(page_of(ReportRun(history=history, findings=())))


def test_two_runs_are_compared() -> None:
    """Each chart has the curves of both runs, and the table their differences."""
    page = page_of(starved(), a_run(a_history(run_id="another", staleness=lambda _: 5.0)))
    picture = chart(page, rows.STALENESS_MAX.wandb_key)
    assert [path.get("class") for path in picture.iterfind("path") if "line" in path.get("class", "")] == [
        "line main",
        "line other",
    ]
    differences = next(
        part for part in parsed(page).iterfind("body/main/section") if part[0].get("id") == "differences"
    )
    cells = {
        "".join(row[0].itertext()): [cell.text for cell in row][3] for row in differences.iterfind("div/table/tbody/tr")
    }
    assert cells[f"{rows.STALENESS_MAX.wandb_key} steps"] == "-45 (-90 %)"


def test_long_run_stays_small() -> None:
    """A page's size does not grow with the steps."""
    assert len(page_of(a_run(a_history(5_000, world_size=1)))) < 500_000


def test_long_curve_is_band() -> None:
    """A curve with more points than pixels is a band from its lowest to its highest, with its means in it."""
    steps = 2_000
    page = page_of(a_run(a_history(steps, staleness=lambda step: 14.0 if step == 777 else float(step % 2))))
    picture = chart(page, rows.STALENESS_MAX.wandb_key)
    band, means = (picture.find(f"path[@class='{name} main']") for name in ("envelope", "line"))
    assert band is not None
    assert means is not None
    edge, middle = (
        [tuple(map(float, point.split())) for point in re.split("[MLZ]", path.get("d", "")) if point]
        for path in (band, means)
    )
    top = 16 * 1.06
    assert len(edge) == 2 * len(middle) == 2 * 200
    assert min(y for _, y in edge) == pytest.approx(100 * (1 - 14 / top), abs=0.1)
    assert [x for x, y in edge if y < 50] == [pytest.approx(1000 * 777 / steps, abs=5)]
    assert [y for _, y in middle[90:]] == pytest.approx([100 * (1 - 0.5 / top)] * 110, abs=0.1)
    assert [x for x, _ in edge] == [*(x for x, _ in middle), *(x for x, _ in reversed(middle))]
    assert "envelope" not in "".join(
        path.get("class", "") for path in chart(page_of(a_run()), rows.STALENESS_MAX.wandb_key).iterfind("path")
    )


def test_few_values_are_a_page() -> None:
    """Parts that a source has no values for are missing from the page, and nothing else."""
    history = a_history(1, modalities=(), scalars=("loss",))
    history.cluster.values["loss"] = [float("inf")]
    history.ranks.clear()
    page = page_of(a_run(history))
    parsed(page)
    assert "No values." in page
    assert 'id="mix"' not in page


@pytest.mark.parametrize(("share", "verdict"), [(0.0, "All 16 figures"), (0.5, "1 of 16 figures out of range")])
def test_repeats_are_shown_where_measured(share: float, verdict: str) -> None:
    """A run whose rows carry sample keys has one figure more than others, with its chart."""
    history = a_history()
    history.cluster.values[rows.REPEATS.wandb_key] = [share] * len(history.cluster.steps)
    page = page_of(a_run(history))
    assert verdict in page
    assert chart(page, rows.REPEATS.wandb_key) is not None


def test_rising_source_comes_first() -> None:
    """A loss by source has a chart for each source, beside the whole, and none among the other scalars."""
    history = a_history(scalars=("train/loss", "train/loss/code", "train/loss/prose", "train/loss/other"))
    history.cluster.values["train/loss/prose"] = [2 + step / 60 for step in range(60)]
    page = page_of(a_run(history))
    titles = [svg.findtext("title") or "" for svg in parsed(page).iterfind(SVG)]
    losses = ["train/loss/prose", "train/loss/code", "train/loss", "train/loss/other"]
    assert [title for title in titles if title.startswith("train/loss")] == losses
    assert page.index('id="sources"') < page.index('id="training"')
    assert [path.get("class") for path in chart(page, "train/loss/prose") if "line" in (path.get("class") or "")] == [
        "line main",
        "line target",
    ]
    compared = page_of(a_run(history), a_run(a_history(scalars=("train/loss", "train/loss/code"))))
    assert compared.count("B, code") > 0
    assert 'id="sources"' not in page_of(a_run(a_history()))
