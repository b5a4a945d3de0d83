"""The page in headless Chromium: light and dark, phone and desktop, no request, readable."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.chromium import Tab, tab
from tests.support.report_pages import a_history, a_run, hostile, page_of, starved

pytestmark = pytest.mark.stack

WORST_CONTRAST = """
(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const over = (top, under) => {
    const alpha = top[3] ?? 1;
    return [0, 1, 2].map((place) => top[place] * alpha + under[place] * (1 - alpha));
  };
  const behind = (element) => {
    const above = [];
    for (let each = element; each; each = each.parentElement) above.unshift(getComputedStyle(each).backgroundColor);
    return above.reduce((under, color) => over(parse(color), under), [255, 255, 255]);
  };
  const light = (color) => {
    const [r, g, b] = color.map((part) => part / 255).map((part) =>
      part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let worst = [99, ''];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !element.getClientRects().length) continue;
    if (element.closest('svg, script')) continue;
    const ground = behind(element);
    const two = [light(over(parse(getComputedStyle(element).color), ground)), light(ground)].sort((a, b) => b - a);
    const ratio = (two[0] + 0.05) / (two[1] + 0.05);
    if (ratio < worst[0]) worst = [ratio, element.outerHTML.slice(0, 200)];
  }
  return worst;
})()
"""
CLIPPED = """
[...document.querySelectorAll('.ys span, .xs span, .named')].filter((label) => {
  const box = label.getBoundingClientRect();
  const card = label.closest('.card, .tile').getBoundingClientRect();
  return box.left < card.left || box.right > card.right;
}).map((label) => label.textContent)
"""
OVERLAPPING = """
[...document.querySelectorAll('.xs, .ys')].filter((axis) => {
  const boxes = [...axis.children].map((label) => label.getBoundingClientRect());
  return boxes.some((one, place) => boxes.slice(place + 1).some((two) =>
    one.left < two.right && two.left < one.right && one.top < two.bottom && two.top < one.bottom));
}).map((axis) => axis.textContent)
"""
PAGES: dict[str, Callable[[], str]] = {
    "starved": lambda: page_of(starved()),
    "hostile": lambda: page_of(hostile()),
    "two": lambda: page_of(starved(), a_run(a_history(12_345, run_id="another"))),
    "many": lambda: page_of(a_run(a_history(30, world_size=64, modalities=[f"modality {n}" for n in range(40)]))),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Tab]:
    """Return a page in a browser."""
    with tab() as made:
        yield made


@pytest.fixture(scope="module", params=PAGES)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page's file."""
    path = tmp_path_factory.mktemp("pages") / f"{request.param}.html"
    path.write_text(PAGES[request.param](), encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_page_is_readable(browser: Tab, page: Path, width: int, scheme: str) -> None:
    """Nothing is wider than the screen, clipped, pale, requested or complained about."""
    browser.show(page, width, scheme)
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.value(CLIPPED) == []
    assert browser.value(OVERLAPPING) == []
    ratio, where = browser.value(WORST_CONTRAST)
    assert ratio >= 4.5, where
    requested = [event["params"]["request"]["url"] for event in browser.events_of("Network.requestWillBeSent")]
    assert requested == [page.as_uri()]
    assert not browser.events_of("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")


def test_scheme_is_followed(browser: Tab, page: Path) -> None:
    """The page follows the reader's scheme; printed it is on white."""
    ground = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    browser.show(page, 1280, "light")
    light = browser.value(ground)
    browser.show(page, 1280, "dark")
    assert min(light) > 200
    assert max(browser.value(ground)) < 50
    browser.call(
        "Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}]
    )
    assert browser.value(ground) == [255, 255, 255]


def test_page_is_accessible(browser: Tab, page: Path) -> None:
    """The page has landmarks and headings in order, and each picture and box that scrolls has a name."""
    browser.show(page, 1280)
    assert (
        browser.value("['header', 'main', 'nav', 'footer'].map((name) => document.querySelectorAll(name).length)")
        == [1] * 4
    )
    levels = browser.value("[...document.querySelectorAll('h1, h2, h3, h4')].map((each) => Number(each.tagName[1]))")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    nameless = [
        node["role"]["value"]
        for node in tree
        if node.get("role", {}).get("value") in ("image", "region", "link", "navigation", "img")
        and not node["ignored"]
        and not node.get("name", {}).get("value")
    ]
    assert nameless == []
    links = "[...document.querySelectorAll('a')].filter((each) => !document.querySelector(each.hash)).length"
    assert browser.value(links) == 0


def test_pointer_shows_values(browser: Tab, tmp_path: Path) -> None:
    """The script that the policy allows shows the values of the table under the pointer."""
    path = tmp_path / "page.html"
    path.write_text(page_of(starved()), encoding="utf-8")
    browser.show(path, 1280)
    box = browser.value(
        "(() => { const plot = [...document.querySelectorAll('.plot')].find((each) =>"
        " each.querySelector('title').textContent === 'stream_mixing/staleness_max');"
        " plot.scrollIntoView({block: 'center'}); const box = plot.getBoundingClientRect();"
        " return [box.right, box.top + box.height / 2]; })()"
    )
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0] - 2, y=box[1])
    assert browser.value("[...document.querySelector('.tip').children].map((each) => each.textContent)") == [
        "step 60",
        "cluster 50",
    ]
