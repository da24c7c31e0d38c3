"""The report in a real browser: it opens offline, makes no request, and its controls work."""

import io
from collections.abc import Callable
from typing import Any

import pytest
from audited import full_facts, pictures_of
from browser.conftest import Watched
from PIL import Image
from security.test_audit_page import PAYLOADS, everywhere

from pipeline.audit import page as page_module
from pipeline.audit.page import render

pytestmark = pytest.mark.slow
Open = Callable[..., Watched]


@pytest.mark.parametrize("width", [400, 900, 1600])
def test_it_opens_offline_at_every_width_without_a_request(opened: Open, report: str, width: int) -> None:
    watched = opened(report, viewport={"width": width, "height": 900})
    assert watched.quiet, (watched.messages, watched.requests)
    assert watched.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "no horizontal overflow"
    with Image.open(io.BytesIO(watched.page.screenshot(full_page=True))) as picture:
        colours = picture.convert("RGB").getcolors(1 << 24) or []
    assert len(colours) > 100
    assert any(red > 200 and green > 190 and blue < 90 for _, (red, green, blue) in colours), "yellow of the colour map"


def test_choosing_a_method_hides_the_others(opened: Open, report: str) -> None:
    page = opened(report).page

    def shown() -> set[str]:
        return set(page.eval_on_selector_all(
            "#gallery ~ ul [data-method]", "cells => cells.filter(c => c.offsetParent).map(c => c.dataset.method)"
        ))  # fmt: skip

    assert shown() == {"gradcam", "scorecam"}
    page.check("input[name=method][value=scorecam]")
    assert shown() == {"scorecam"}
    page.check('input[name=method][value=""]')
    assert shown() == {"gradcam", "scorecam"}


def set_slider(page: Any, name: str, value: int) -> None:
    page.eval_on_selector(f"#{name}", f"s => {{ s.value = {value}; s.dispatchEvent(new Event('input')); }}")


def test_threshold_and_opacity_change_the_pictures(opened: Open, report: str) -> None:
    page = opened(report).page
    picture = page.locator("#gallery ~ ul [data-method] svg").first
    before = picture.screenshot()
    set_slider(page, "threshold", 10)
    assert page.get_attribute("#cut", "tableValues").split() == ["0"] * 10 + ["1"] * 10
    assert page.inner_text("#threshold-shown") == "0.50"
    cut = picture.screenshot()
    assert cut != before
    set_slider(page, "opacity", 0)
    bare = picture.screenshot()
    assert bare not in (before, cut)


def test_tables_sort_by_number_both_ways_and_by_keyboard(opened: Open, report: str) -> None:
    page = opened(report).page
    heading = page.locator("#leaderboard ~ div table thead th", has_text="average_drop").first.locator("button")

    def column() -> list[str]:
        return page.locator("#leaderboard ~ div table").first.locator("tbody th").all_inner_texts()

    heading.click()
    assert column() == ["scorecam", "gradcam"], "descending"
    heading.focus()
    page.keyboard.press("Enter")
    assert column() == ["gradcam", "scorecam"], "ascending"
    assert page.locator("th[aria-sort=ascending]").count() == 1


def test_classes_can_be_filtered(opened: Open, report: str) -> None:
    page = opened(report).page
    rows = page.locator("#class-table tbody tr")
    assert rows.filter(visible=True).count() == rows.count() > 0
    page.fill("input[data-filters=class-table]", "no such class")
    assert rows.filter(visible=True).count() == 0
    page.fill("input[data-filters=class-table]", "DOG")
    assert rows.filter(visible=True).count() == 1


def test_a_mark_under_a_metric_leads_to_what_is_known_of_it(opened: Open, report: str) -> None:
    page = opened(report).page
    mark = page.locator("tr.marks a").first
    known = page.locator("#metric-1")
    assert not known.is_visible()
    mark.focus()
    page.keyboard.press("Enter")
    assert known.is_visible()
    assert mark.get_attribute("title") in known.inner_text()


def test_it_can_be_read_with_scripts_off(opened: Open, report: str) -> None:
    page = opened(report, java_script_enabled=False).page
    assert page.locator("#leaderboard ~ div table tbody tr").first.is_visible()
    assert page.locator("#gallery ~ ul svg").first.is_visible()
    assert not page.locator("#controls").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_accessibility_has_no_violation(opened: Open, report: str, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = opened(report, color_scheme=scheme, bypass_csp=True).page
    page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


_PAGES = 6


def test_payloads_in_every_place_do_nothing(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each payload, with others, is in every text of the facts at once: several hundred places.

    Each one alone is a case of tests/security, which reads the page without a browser.
    """
    facts = full_facts()
    charts = page_module._charts(facts)
    monkeypatch.setattr(page_module, "_charts", lambda facts: charts)  # tests/security covers their texts
    for first in range(_PAGES):
        payload = " ".join(PAYLOADS[first::_PAGES])
        hostile = everywhere(facts, payload)
        watched = opened(render(hostile, pictures_of(hostile)))
        watched.page.eval_on_selector_all("details", "all => all.forEach(one => { one.open = true; })")
        assert watched.quiet, (payload, watched)
        assert watched.page.locator("script").count() == 1


def test_a_tile_is_enlarged_and_reduced_without_a_script(opened: Open, report: str) -> None:
    page = opened(report, java_script_enabled=False, viewport={"width": 1240, "height": 900}).page
    tile = page.locator("#tile-1-1")
    grid = page.locator(".tiles").first.bounding_box()
    small = tile.bounding_box()
    assert small["width"] < grid["width"] / 2.5, "three columns"
    assert not tile.locator(".reduce").is_visible()
    tile.locator(".enlarge").click()
    large = tile.bounding_box()
    assert large["width"] > 0.95 * grid["width"]
    assert tile.locator("svg").first.bounding_box()["width"] > 180
    tile.locator(".reduce").click()
    assert tile.bounding_box()["width"] == small["width"]


def test_an_overlay_leaves_the_image_unchanged_where_the_map_is_zero(opened: Open, report: str) -> None:
    page = opened(report, viewport={"width": 1240, "height": 900}).page
    cell = page.locator("#tile-1-1 [data-method] svg").first
    with Image.open(io.BytesIO(cell.screenshot())) as picture:
        shown = picture.convert("RGB")
    corner, opposite = (shown.getpixel((at * shown.width // 10, at * shown.height // 10)) for at in (1, 9))
    assert isinstance(corner, tuple)
    assert all(abs(one - other) < 12 for one, other in zip(corner, (0xA0, 0x52, 0x2D), strict=True)), "not purple"
    assert isinstance(opposite, tuple)
    assert opposite[1] > 140, "yellow where the map is 1"


METRICS = [f"metric_number_{number}" for number in range(9)]
METHODS = [f"method_with_a_name_{number}" for number in range(9)]


def wide_facts() -> dict[str, Any]:
    """Build facts with nine metrics and nine methods."""
    facts = full_facts()
    (row, *_), (name, *_) = facts["leaderboard"]["rows"], facts["metrics"]
    facts["reliability"]["metrics"] = dict.fromkeys(METRICS, facts["reliability"]["metrics"][name])
    facts["metrics"] = dict.fromkeys(METRICS, facts["metrics"][name])
    estimate = row["intervals"][name] | {"low": 0.1234, "high": 0.5678}
    facts["leaderboard"]["rows"] = [
        row | {"method": method, "intervals": dict.fromkeys(METRICS, estimate)} | dict.fromkeys(METRICS, 0.25)
        for method in METHODS
    ]
    facts["classes"]["rows"] = [
        own | {"metrics": {method: {"energy_in_box": 0.5} for method in METHODS},
               "mean_maps": {method: [[0.0, 1.0], [0.5, 0.2]] for method in METHODS}}
        for own in facts["classes"]["rows"]
    ]  # fmt: skip
    return facts


def test_on_paper_nothing_is_cut(opened: Open) -> None:
    """A4: every metric, the content of closed details, the run on each page, and no word beyond the margin."""
    import pypdfium2

    facts = wide_facts()
    page = opened(render(facts, pictures_of(facts))).page
    with pypdfium2.PdfDocument(page.pdf(prefer_css_page_size=True)) as paper:
        sheets = [sheet.get_textpage() for sheet in paper]
        texts = [sheet.get_text_bounded() for sheet in sheets]
        whole = " ".join(" ".join(texts).split())
        sizes = [tuple(round(side) for side in sheet.get_size()) for sheet in paper]
        edges = [max(text.get_rect(i)[2] for i in range(text.count_rects())) for text in sheets]
        least = [min(text.get_rect(i)[0] for i in range(text.count_rects())) for text in sheets]
    assert set(sizes) == {(595, 842)}
    assert all(facts["run"]["id"] in text for text in texts)
    squeezed = whole.replace(" ", "").replace("\u00ad", "").replace("\ufffe", "")
    for name in (*METRICS, *METHODS):
        assert squeezed.count(name) >= 2, name
    assert "Sign-off" in whole
    assert "What the grades mean" in whole
    assert "visible in maps, and not tested" in whole, "in a closed part of the page"
    assert max(edges) <= 595 - 30
    assert min(least) >= 30
