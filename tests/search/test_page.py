"""The page in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import itertools
import re
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn

from panecho_embed.retrieval.server.app import create_app
from panecho_embed.retrieval.server.listen import listening
from tests.search.conftest import vectors_file
from tests.search.stubs import Endless

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: test)")
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium (Debian: apt-get install chromium)")

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update")  # fmt: skip
STUDY = "PHANTOM-0002-S1"
# Ends a test that waits for what never comes; a busy machine needs some seconds for what takes 0.1 s on a quiet one.
WAIT_MS = 60_000


@contextmanager
def served(app) -> Iterator[str]:
    with listening("127.0.0.1", 0) as (bound, where):
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield where
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def page_address(film_emb) -> Iterator[str]:
    with served(create_app(film_emb)) as where:
        yield where.rstrip("/")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture(params=[(1280, 860), (390, 844)], ids=["desktop", "phone"])
def page(request, browser, page_address):
    """A page that fails the test for any script error, and for anything asked of another host."""
    width, height = request.param
    context = browser.new_context(viewport={"width": width, "height": height}, base_url=page_address)
    opened = context.new_page()
    opened.set_default_timeout(WAIT_MS)
    problems: list[str] = []
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on("request", lambda sent: sent.url.startswith((page_address, "data:")) or problems.append(sent.url))
    yield opened
    context.close()
    assert problems == []


def click(page, selector: str) -> None:
    """Click, and wait for nothing: a browser may not tell when an address that a script replaced is settled."""
    page.click(selector, no_wait_after=True)


def until(page, condition: str) -> None:
    """Wait for a condition; `wait_for_function` would need the eval that the page's policy forbids."""
    for _ in range(WAIT_MS // 50):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never came true: {condition}")


def fits(page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_from_the_table_to_a_study_to_its_neighbour(page):
    page.goto("/")
    page.wait_for_selector(".row >> nth=4")
    assert "5 studies" in page.text_content("#count")
    until(page, "[...document.querySelectorAll('.row img')].slice(0, 3).every(i => i.naturalWidth > 0)")
    assert fits(page)
    page.keyboard.press("/")
    page.keyboard.type("0002")
    until(page, "document.querySelectorAll('.row').length === 1")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/study?id={STUDY}")
    playing = "[...document.querySelectorAll('video')].filter(v => v.readyState >= 2 && v.currentTime > 0).length"
    until(page, f"{playing} === 3")
    assert fits(page)
    page.keyboard.press("Space")
    until(page, "[...document.querySelectorAll('video')].every(v => v.paused)")
    until(page, "document.querySelectorAll('.card').length === 4")
    scores = [float(text) for text in page.locator(".card .similarity").all_text_contents()]
    assert scores == sorted(scores, reverse=True)
    first = page.text_content(".card .name")
    click(page, ".card .name")
    page.wait_for_selector(f"h1:has-text('{first}')")


def test_filters_and_their_mistakes(page):
    page.goto(f"/study?id={STUDY}")
    page.wait_for_selector(".card")
    page.fill("#where", "EFF < 40")
    page.wait_for_selector("#where-error:has-text('nearest: EF')")
    page.fill("#where", "EF > 1000")
    page.wait_for_selector(".empty")
    page.fill("#where", "view == 'PLAX'")
    until(page, "document.querySelectorAll('.card').length === 4")
    assert page.is_hidden("#where-error")
    page.select_option("#similarity", "view")
    until(page, "document.querySelectorAll('.card').length === 4")


def test_filters_go_along_to_a_neighbour_and_wait_in_the_list(page):
    page.goto("/?where=EF+%3E+0")
    page.wait_for_selector(".row")
    click(page, f".row .name:text-is('{STUDY}')")
    page.wait_for_selector(".card")
    # As a phone's keyboard writes it.
    page.fill("#where", "view == \u2018PLAX\u2019")
    page.select_option("#similarity", "best")
    until(page, "location.search.includes('PLAX') && location.search.includes('similarity=best')")
    page.wait_for_selector(".card .name[href*=PLAX]")
    click(page, ".card .name >> nth=0")
    page.wait_for_selector(f".card .name:text-is('{STUDY}')")
    assert page.input_value("#where") == "view == 'PLAX'"
    assert page.input_value("#similarity") == "best"
    click(page, "#back")
    page.wait_for_selector(".row")
    assert page.input_value("#where") == "EF > 0"


def test_a_columns_chip_begins_a_filter(page):
    page.goto("/")
    click(page, "summary")
    click(page, ".chip:text-is('EF')")
    until(page, "document.getElementById('count').textContent !== '5 studies'")
    assert page.input_value("#where").startswith("EF < ")
    page.fill("#where", "EF > 1000")
    click(page, "text=Show all studies")
    until(page, "document.querySelectorAll('.row').length === 5")


def test_a_values_chip_picks_it_and_lets_go(page):
    page.goto("/")
    click(page, "summary")
    click(page, ".chip:text-is('view: PLAX')")
    page.wait_for_selector(".chip[aria-pressed=true]:text-is('view: PLAX')")
    assert page.input_value("#where") == "view == 'PLAX'"
    click(page, ".chip:text-is('view: A4C')")
    page.wait_for_selector(".chip[aria-pressed=true]:text-is('view: A4C')")
    assert page.input_value("#where") == "view == 'A4C'"
    click(page, ".chip:text-is('view: A4C')")
    page.wait_for_selector(".chip[aria-pressed=false]:text-is('view: A4C')")
    assert page.input_value("#where") == ""


def test_no_black_box_stands_for_a_picture_that_is_not_there_yet(page):
    page.route("**/api/thumbnail*", lambda route: None)
    page.goto("/")
    page.wait_for_selector(".row .thumb:not(.ready)")
    black = "[...document.querySelectorAll('.thumb')].some(t => getComputedStyle(t).backgroundColor === 'rgb(0, 0, 0)')"
    assert not page.evaluate(black)
    page.unroute("**/api/thumbnail*")
    page.reload()
    page.wait_for_selector(".row .thumb.ready")


def test_small_pictures_stand_still_on_demand(page):
    page.goto("/")
    page.wait_for_selector(".row img[src*=thumbnail]")
    page.keyboard.press("p")
    assert page.locator(".row img[src*=thumbnail]").count() == 0
    page.reload()
    page.wait_for_selector(".row img[src*=still]")
    assert page.get_attribute("#motion", "aria-pressed") == "false"


CONTROLS = """() => [...document.querySelectorAll("a, button, input, select, summary, video, canvas, img")].filter(
    (e) => e.checkVisibility() && !e.matches(".skip, .name, [type=file]"))"""
SMALL = f"""({CONTROLS})()
    .map((e) => [e.outerHTML.slice(0, 80), (e.closest("label.check") || e).getBoundingClientRect()])
    .filter(([, box]) => Math.min(box.width, box.height) < 39.5).map(([text]) => text)"""
NAMELESS = f"""({CONTROLS})().filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.length
    || e.hasAttribute("alt"))).map((e) => e.outerHTML.slice(0, 80))"""


@pytest.mark.parametrize("path", ["/", f"/study?id={STUDY}", "/map", "/upload"])
def test_every_control_has_a_name_and_room_for_a_finger(page, path):
    page.goto(path)
    page.wait_for_selector({"/": ".row", "/map": "#legend div", "/upload": "#limit:has-text('MB')"}.get(path, ".card"))
    assert page.evaluate(NAMELESS) == []
    assert page.evaluate(SMALL) == []
    headings = page.evaluate("[...document.querySelectorAll('main :is(h1, h2, h3)')].map((h) => Number(h.tagName[1]))")
    assert headings[0] == 1
    assert all(later - sooner <= 1 for sooner, later in itertools.pairwise(headings))
    page.set_viewport_size({"width": 320, "height": 640})
    assert fits(page)


def test_an_upload_can_be_cancelled(browser, film_emb, tmp_path):
    (tmp_path / "a.avi").write_bytes(b"video")
    with served(create_app(film_emb, embedder=Endless())) as where:
        page = browser.new_page()
        page.goto(f"{where}upload")
        page.set_input_files("#file-input", str(tmp_path / "a.avi"))
        click(page, "#cancel")
        page.wait_for_selector("#count:has-text('Cancelled.')")
        assert page.is_hidden("#cancel")
        page.close()


def test_an_unknown_study_leads_back(page):
    page.goto("/study?id=PHANTOM-2")
    page.wait_for_selector("h1:has-text('no such study')")
    assert "no study is called 'PHANTOM-2'" in page.text_content(".error")
    click(page, "text=To all studies")
    page.wait_for_selector(".row")


def test_a_point_of_the_map_opens_its_study(page):
    page.goto("/map?color=EF")
    until(page, "document.getElementById('count').textContent.includes('15 videos')")
    assert page.locator("#legend canvas").count() == 1
    assert fits(page)
    page.focus("#map")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#tip:visible")
    shown = page.text_content("#tip .name")
    page.keyboard.press("Enter")
    page.wait_for_selector("video")
    assert shown.split("/")[0] in page.text_content("h1")


POINT = """async () => {
    const found = await (await fetch("/api/map")).json();
    const box = document.getElementById("map").getBoundingClientRect();
    const [left, right] = [Math.min(...found.x), Math.max(...found.x)];
    const [low, high] = [Math.min(...found.y), Math.max(...found.y)];
    const scale = Math.min(box.width / (right - left), box.height / (high - low)) * 0.86;
    const x = box.left + box.width / 2 + (found.x[0] - (left + right) / 2) * scale;
    const y = box.top + box.height / 2 - (found.y[0] - (low + high) / 2) * scale;
    return { x, y, id: found.ids[0], study: found.studies[0] };
}"""


def test_a_click_on_the_map_opens_the_study_that_lies_there(page):
    page.goto("/map")
    until(page, "document.getElementById('count').textContent.includes('15 videos')")
    point = page.evaluate(POINT)
    page.mouse.click(point["x"], point["y"])
    page.wait_for_selector(f"h1:has-text('{point['study']}')")


def test_a_finger_first_sees_a_point_then_opens_it(browser, page_address):
    context = browser.new_context(viewport={"width": 390, "height": 844}, base_url=page_address, has_touch=True)
    page = context.new_page()
    page.goto("/map")
    until(page, "document.getElementById('count').textContent.includes('15 videos')")
    point = page.evaluate(POINT)
    page.touchscreen.tap(point["x"], point["y"])
    page.wait_for_selector(f"#tip:has-text('{point['id']}')")
    page.touchscreen.tap(point["x"], point["y"])
    page.wait_for_selector(f"h1:has-text('{point['study']}')")
    context.close()


def test_an_upload_finds_its_twin_and_a_broken_one_says_so(page, films, tmp_path):
    import cv2
    import numpy as np

    good, bad = tmp_path / "good.avi", tmp_path / "bad.avi"
    bad.write_bytes(b"RIFF nonsense" * 50)
    writer = cv2.VideoWriter(str(good), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), 30, (96, 96))
    for picture in np.load(films.with_name("PHANTOM-0002-A4C-1.npy")):
        writer.write(np.ascontiguousarray(picture[..., ::-1]))
    writer.release()
    page.goto("/upload")
    page.select_option("#level", "video")
    page.set_input_files("#file-input", str(good))
    page.wait_for_selector(".card")
    assert page.text_content(".card .name") == f"{STUDY}/A4C-1"
    assert page.evaluate("document.querySelector('#preview img').naturalWidth") == 96
    sent = []
    page.on("request", lambda one: sent.append(one.method) if "/api/search" in one.url else None)
    page.fill("#where", "view == 'PLAX'")
    page.press("#where", "Enter")
    until(page, "[...document.querySelectorAll('.card .name')].every(a => a.textContent.includes('PLAX'))")
    page.wait_for_timeout(400)
    # The video is not sent again. On a busy machine the text is searched for before Enter too: two requests.
    assert set(sent) == {"GET"}
    assert fits(page)
    page.set_input_files("#file-input", str(bad))
    page.wait_for_selector("#error:has-text('no video could be read')")
    assert page.locator(".card").count() == 0


def test_a_videos_own_page_finds_videos(page):
    page.goto(f"/study?id={STUDY}&video={STUDY}/A4C-0")
    page.wait_for_selector(f"h1:has-text('{STUDY}/A4C-0')")
    page.wait_for_selector(".card")
    assert page.locator("video").count() == 1
    assert page.is_hidden("#similarity")
    twin = page.locator(f".card .name:text-is('{STUDY}/A4C-1')")
    assert twin.count() == 0
    page.check("#same")
    twin.wait_for()
    twin.click(no_wait_after=True)
    page.wait_for_selector(f"h1:has-text('{STUDY}/A4C-1')")


@pytest.fixture(scope="module")
def long_study(films, tmp_path_factory):
    """Three patients of 40 videos each."""
    film = str(films.with_name("PHANTOM-0002-A4C-1.npy"))
    views = tuple(f"V{i:02d}" for i in range(40))
    path = vectors_file(tmp_path_factory.mktemp("long") / "long.h5", patients=3, views=views, video_path=lambda _: film)
    with served(create_app(path)) as where:
        yield where.rstrip("/")


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)], ids=["desktop", "phone"])
def test_a_study_of_forty_videos_shows_its_neighbours_at_once_and_loads_what_is_seen(
    browser, long_study, width, height
):
    page = browser.new_page(viewport={"width": width, "height": height}, base_url=long_study)
    asked = []
    page.on("request", lambda sent: asked.append(sent.url) if "/api/clip" in sent.url else None)
    page.goto("/study?id=P0-S0")
    page.wait_for_selector(".card")
    playing = "[...document.querySelectorAll('video')].filter(v => v.currentTime > 0).length"
    until(page, f"{playing} > 0")
    assert page.locator("video").count() == 40
    assert 0 < len(set(asked)) < 25
    assert page.evaluate("document.querySelector('.card').getBoundingClientRect().top < innerHeight")
    assert fits(page)
    last = page.locator("video >> nth=39")
    last.scroll_into_view_if_needed()
    until(page, "[...document.querySelectorAll('video')].at(-1).currentTime > 0")
    until(page, "document.querySelector('video').paused")
    page.close()


def test_a_video_is_drawn_with_its_own_labels(browser, long_study):
    page = browser.new_page(base_url=long_study)
    for view, sex in (("V00", "M"), ("V01", "F")):
        page.goto(f"/study?id=P0-S0&video=P0/S0/{view}")
        page.wait_for_selector(f"#query .labels:has-text('sex{sex}')")
    page.close()


def test_videos_that_have_moved_say_so(browser, emb):
    with served(create_app(emb)) as where:
        page = browser.new_page()
        page.goto(f"{where}study?id=P1-S0")
        page.wait_for_selector(".clip.gone:has-text('video not found')")
        until(page, "!document.querySelector('.pressed')")
        page.wait_for_selector(".card .thumb.gone")
        assert re.search("of 5 studies", page.text_content("#count"))
        page.close()


def test_a_port_that_is_taken_is_a_clear_error():
    from panecho_embed.core.errors import ArgumentError

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ArgumentError, match="--port 0"), listening("127.0.0.1", taken.getsockname()[1]):
            pass
