"""The viewer in a real browser: scrolling, filters, brushing, links, arrow keys, picking, and accessibility."""

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from big_run import write_run
from browser.conftest import Watched
from handmade import RunMaker
from pictured import PicturedRun
from security.test_viewer import hostile

pytestmark = pytest.mark.slow
IMAGES = 700
Open = Callable[..., Watched]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A viewer of a folder of runs: a large one, one with images, another to compare, and a hostile one."""
    runs = tmp_path_factory.mktemp("runs") / "atlas"
    write_run(runs / "large", IMAGES, 2)
    PicturedRun(runs / "pictured").complete()
    RunMaker(runs / "small", seed=1).complete()
    hostile(runs / "hostile", 0)
    command = [sys.executable, "-m", "jobs.view", str(runs), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0, "Ctrl-C ends it cleanly"


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Open]:
    """Open a page of the viewer with the token, and watch it."""
    contexts = []
    base = address.partition("/?")[0]

    def open_page(path: str = "/?run=large", **options: Any) -> Watched:
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}} | options)
        contexts.append(context)
        watched = Watched(context.new_page())
        watched.page.goto(address)
        watched.page.wait_for_url(f"{base}/")
        watched.page.on("console", lambda message: watched.messages.append(message.text))
        watched.page.on("pageerror", lambda error: watched.messages.append(str(error)))
        watched.page.on("dialog", lambda dialog: (watched.dialogs.append(dialog.message), dialog.dismiss()))
        watched.page.on("request", lambda request: None if request.url.startswith(f"{base}/") else
                        watched.requests.append(request.url))  # fmt: skip
        watched.page.goto(base + path)
        return watched

    yield open_page
    for context in contexts:
        context.close()


def shown(page: Any) -> list[str]:
    """Return the keys of the tiles that are on the screen."""
    script = """tiles => tiles.filter(tile => { const box = tile.getBoundingClientRect();
        return box.bottom > 60 && box.top < innerHeight; })
        .map(tile => tile.querySelector('input[name=pick]').value)"""
    return list(page.eval_on_selector_all("#grid .tile", script))


def images_said(page: Any) -> int:
    return int(page.inner_text(".summary strong").replace(",", ""))


def test_the_grid_scrolls_to_its_end_with_few_tiles_at_a_time(visit: Open) -> None:
    watched = visit()
    page = watched.page
    assert images_said(page) == IMAGES
    first = shown(page)
    assert first[0].endswith("00000-0000")
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight / 2)")
    page.locator('#grid input[value*="00000-03"]').first.wait_for(state="attached")
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    page.locator('#grid input[value$="00001-0199"]').wait_for(state="attached")
    assert shown(page)[-1].endswith("00001-0199")
    assert page.locator("#grid .tile").count() < 400
    page.evaluate("scrollTo(0, 0)")
    page.locator('#grid input[value$="00000-0000"]').wait_for(state="attached")
    assert shown(page) == first
    assert watched.quiet, (watched.messages, watched.requests)


def test_a_number_filters_by_keyboard_and_by_brushing_and_the_address_is_the_view(visit: Open) -> None:
    page = visit().page
    page.focus('input[name="min.insertion"]')
    page.keyboard.type("0.5")
    page.keyboard.press("Enter")
    page.wait_for_url("**min.insertion=0.5**")
    filtered = images_said(page)
    assert 0 < filtered < IMAGES
    assert "where" not in page.url, "empty fields stay out of the address"
    bars = page.locator('svg[data-brush="deletion"]')
    bars.scroll_into_view_if_needed()
    box = bars.bounding_box()
    page.mouse.move(box["x"] + 0.25 * box["width"], box["y"] + 10)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 12, steps=3)
    page.mouse.up()
    page.wait_for_url("**max.deletion**")
    low, high = (float(re.search(rf"{end}\.deletion=([\d.]+)", page.url)[1]) for end in ("min", "max"))  # type: ignore[index]
    assert (round(low, 1), round(high, 1)) in ((0.2, 0.8), (0.3, 0.7), (0.2, 0.7), (0.3, 0.8))
    brushed = images_said(page)
    assert 0 < brushed < filtered
    tiles = shown(page)
    again = visit(page.url.partition("127.0.0.1")[2].partition("/")[2].join(["/", ""])).page
    assert (images_said(again), shown(again)) == (brushed, tiles)
    again.locator(".chips a", has_text="deletion").click()
    again.wait_for_url(lambda url: "deletion" not in url)
    assert images_said(again) == filtered


def test_a_page_says_once_why_pictures_are_missing(visit: Open) -> None:
    page = visit().page
    page.route(
        "**/tile?**", lambda route: route.fulfill(status=500, body="part-7 cannot be read; run `camatlas verify`")
    )
    page.reload()
    page.get_by_role("alert").first.wait_for()
    assert page.get_by_role("alert").all_inner_texts() == [
        "Some pictures cannot be shown: part-7 cannot be read; run `camatlas verify`"
    ]


def test_a_mistake_in_the_condition_is_on_the_screen(visit: Open) -> None:
    page = visit("/?run=large&where=confidnce+%3E+1").page
    inside = """box => { const { top, bottom } = box.getBoundingClientRect();
        const over = document.elementFromPoint(box.getBoundingClientRect().left + 9, (top + bottom) / 2);
        return over === box; }"""
    assert page.eval_on_selector(".problem", inside), "neither below the fold nor behind the buttons"


def test_choices_apply_at_once(visit: Open) -> None:
    page = visit().page
    page.select_option("#sort", "confidence")
    page.wait_for_url("**sort=confidence**")
    page.check("input[name=right][value=wrong]")
    page.wait_for_url("**right=wrong**")
    assert "sort=confidence" in page.url
    assert 0 < images_said(page) < IMAGES


def test_arrow_keys_lead_through_the_selection(visit: Open) -> None:
    page = visit("/?run=large&sort=confidence&order=desc").page
    expected = shown(page)[:3]
    page.locator("#grid .tile a").first.click()
    page.wait_for_url("**/image?**")
    seen = [page.inner_text("h1")]
    for _ in range(2):
        before = page.url
        page.keyboard.press("ArrowRight")
        page.wait_for_url(lambda url, before=before: url != before)
        seen.append(page.inner_text("h1"))
    assert seen == [key.partition("/")[2] for key in expected]
    page.keyboard.press("ArrowLeft")
    page.locator("h1", has_text=seen[1]).wait_for()
    page.focus("#opacity")
    before = page.url
    page.keyboard.press("ArrowRight")
    assert page.url == before, "on the slider, arrow keys move the slider"


def test_the_slider_changes_the_overlays_of_a_real_image(visit: Open) -> None:
    watched = visit("/image?run=pictured&in=a.parquet&image=0-0-0")
    page = watched.page
    page.wait_for_load_state("networkidle")
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    picture = page.locator(".stack:has(.overlay)").first
    before = picture.screenshot()
    page.eval_on_selector("#opacity", "s => { s.value = 0; s.dispatchEvent(new Event('input')); }")
    assert page.eval_on_selector(".overlay", "image => getComputedStyle(image).opacity") == "0"
    assert picture.screenshot() != before
    assert "image with boxes" in page.inner_text(".panels")
    assert watched.quiet, (watched.messages, watched.requests)


def test_a_mistake_in_sql_is_told_under_its_box(visit: Open) -> None:
    page = visit().page
    page.fill("#where", "insertion > 0.9 AND nonsense")
    page.click("#filters button")
    page.wait_for_url("**where=**")
    assert "nonsense" in page.inner_text("#where-problem")
    page.fill("#where", "insertion > 0.9 AND confidence > 0.5")
    page.click("#filters button")
    page.locator("#where-problem").wait_for(state="detached")
    assert 0 < images_said(page) < IMAGES


def test_picked_images_are_kept_while_one_filters(visit: Open) -> None:
    page = visit().page
    wanted = shown(page)[:2]
    for value in wanted:
        page.check(f'input[value="{value}"]', force=True)
    page.check("input[name=right][value=right]")
    page.wait_for_url("**right=right**")
    page.click("#picked button")
    page.wait_for_url("**/picked?**")
    assert page.locator("pre").first.inner_text().split() == [value.partition("/")[2] for value in wanted]


def test_it_works_without_scripts(visit: Open) -> None:
    page = visit("/?run=large", java_script_enabled=False).page
    assert page.locator("#grid .tile").count() == 60
    page.click("a[rel=next]")
    assert page.locator("#grid .tile input").first.get_attribute("value").endswith("00000-0060")
    page.fill('input[name="min.insertion"]', "0.5")
    page.click("#filters button")
    assert 0 < images_said(page) < IMAGES
    page.locator("#grid .tile a").first.click()
    assert page.locator("a[rel=next]").is_visible()


def test_hostile_names_run_nothing(visit: Open) -> None:
    watched = visit("/?run=hostile")
    page = watched.page
    page.wait_for_load_state("networkidle")
    for link in ("/classes?run=hostile", page.locator("#grid .tile a").first.get_attribute("href"), "/?label=zebra"):
        page.goto(page.url.partition("/?")[0].partition("/image")[0].partition("/classes")[0] + link)
        page.wait_for_load_state("networkidle")
    assert (watched.dialogs, watched.requests) == ([], [])
    assert [message for message in watched.messages if "400" not in message and "404" not in message] == []


PAGES = (
    "/?run=large&right=wrong", "/?run=large&where=nonsense", "/?run=small&label=owl",
    "/image?run=pictured&in=a.parquet&image=0-0-0", "/image?run=small&in=b.tar&image=1-0-1", "/classes?run=large",
    "/class?run=large&class=1", "/compare?run=small&with=pictured", "/takeaway?run=small", "/?label=zebra",
    "/picked?run=small&pick=a.tar/0-0-0",
)  # fmt: skip


def test_accessibility_has_no_violation_and_no_page_overflows(visit: Open) -> None:
    page = visit(color_scheme="light").page
    base = page.url.partition("/?")[0]
    for path in PAGES:
        page.set_viewport_size({"width": 1280, "height": 860})
        page.emulate_media(color_scheme="light")
        page.goto(base + path)
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        check_page(page, path)
        page.emulate_media(color_scheme="dark")
        check_page(page, f"{path} in the dark", {"runOnly": ["color-contrast"]})
        page.set_viewport_size({"width": 390, "height": 844})
        check_page(page, f"{path} at 390 px")


def check_page(page: Any, what: str, options: dict[str, Any] | None = None) -> None:
    found = Axe().run(page, options={"resultTypes": ["violations"]} | (options or {})).response["violations"]
    assert [(entry["id"], entry["nodes"][0]["html"][:200]) for entry in found] == [], what
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), what
