"""The page in headless Chromium: light and dark, phone and desktop, no request, readable."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.chromium import Tab, tab
from tests.support.report_pages import a_history, a_run, hostile, page_of, starved

pytestmark = pytest.mark.stack


@pytest.fixture(scope="module")
def browser() -> Iterator[Tab]:
    """Return a page in a browser."""
    with tab() as made:
        yield made


@pytest.fixture(scope="module", params=["starved", "hostile", "compared", "large"])
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page's file."""
    many = [f"modality {number}" for number in range(40)]
    content = {
        "starved": lambda: page_of(starved()),
        "hostile": lambda: page_of(hostile()),
        "compared": lambda: page_of(starved(), a_run(a_history(12_345, run_id="another"))),
        "large": lambda: page_of(a_run(a_history(30, world_size=64, modalities=many))),
    }
    path = tmp_path_factory.mktemp("pages") / f"{request.param}.html"
    path.write_text(content[request.param](), encoding="utf-8")
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_page_fits_screen(browser: Tab, page: Path, width: int, scheme: str) -> None:
    """Nothing is wider than the screen, no label is clipped, and no two labels of an axis overlap."""
    browser.show(page, width, scheme)
    assert browser.value("document.documentElement.scrollWidth") <= width
    clipped = """
        [...document.querySelectorAll('.ys span, .xs span, .named')].filter((label) => {
          const box = label.getBoundingClientRect();
          const card = label.closest('.card, .tile').getBoundingClientRect();
          return box.left < card.left || box.right > card.right;
        }).map((label) => label.textContent)
    """
    overlapping = """
        [...document.querySelectorAll('.xs, .ys')].filter((axis) => {
          const boxes = [...axis.children].map((label) => label.getBoundingClientRect());
          return boxes.some((one, index) => boxes.slice(index + 1).some((two) =>
            one.left < two.right && two.left < one.right && one.top < two.bottom && two.top < one.bottom));
        }).map((axis) => axis.textContent)
    """
    assert (browser.value(clipped), browser.value(overlapping)) == ([], [])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_text_is_readable(browser: Tab, page: Path, width: int, scheme: str) -> None:
    """Each text has a contrast of 4.5 with its background, the least that WCAG 2 demands."""
    browser.show(page, width, scheme)
    lowest_contrast = """
        (() => {
          const parse = (text) => text.match(/[\\d.]+/g).map(Number);
          const over = (top, under) => {
            const alpha = top[3] ?? 1;
            return [0, 1, 2].map((channel) => top[channel] * alpha + under[channel] * (1 - alpha));
          };
          const backgroundOf = (element) => {
            const colors = [];
            for (let node = element; node; node = node.parentElement)
              colors.unshift(getComputedStyle(node).backgroundColor);
            return colors.reduce((under, color) => over(parse(color), under), [255, 255, 255]);
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
            const background = backgroundOf(element);
            const text = over(parse(getComputedStyle(element).color), background);
            const [high, low] = [light(text), light(background)].sort((a, b) => b - a);
            const ratio = (high + 0.05) / (low + 0.05);
            if (ratio < worst[0]) worst = [ratio, element.outerHTML.slice(0, 200)];
          }
          return worst;
        })()
    """
    ratio, element = browser.value(lowest_contrast)
    assert ratio >= 4.5, element


@pytest.mark.parametrize("width", [390, 1280])
def test_page_makes_no_requests(browser: Tab, page: Path, width: int) -> None:
    """The browser loads the file alone, and logs nothing."""
    browser.show(page, width)
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
    levels = browser.value(
        "[...document.querySelectorAll('h1, h2, h3, h4')].map((heading) => Number(heading.tagName[1]))"
    )
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
    links = "[...document.querySelectorAll('a')].filter((link) => !document.querySelector(link.hash)).length"
    assert browser.value(links) == 0


def test_pointer_shows_values(browser: Tab, tmp_path: Path) -> None:
    """The script that the policy allows shows the values of the table under the pointer."""
    path = tmp_path / "page.html"
    path.write_text(page_of(starved()), encoding="utf-8")
    browser.show(path, 1280)
    box = browser.value(
        "(() => { const plot = [...document.querySelectorAll('.plot')].find((plot) =>"
        " plot.querySelector('title').textContent === 'stream_mixing/staleness_max');"
        " plot.scrollIntoView({block: 'center'}); const box = plot.getBoundingClientRect();"
        " return [box.right, box.top + box.height / 2]; })()"
    )
    browser.call("Input.dispatchMouseEvent", type="mouseMoved", x=box[0] - 2, y=box[1])
    assert browser.value("[...document.querySelector('.tip').children].map((line) => line.textContent)") == [
        "step 60",
        "cluster 50",
    ]
