"""Make the pictures of the README from phantoms and random weights: `python docs/pictures.py` (needs chromium).

The demo's page, a probe's report, a study with its neighbours in `serve`, and the map, as WebP files in docs/pictures.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
from io import BytesIO
from pathlib import Path

import uvicorn
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from panecho_embed import EmbeddingFile
from panecho_embed.retrieval.server.app import create_app
from panecho_embed.retrieval.server.listen import listening

PICTURES = Path(__file__).parent / "pictures"
SIZE = {"width": 1280, "height": 800}
LARGEST_BYTES = 150_000
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu"]


def run(folder: Path, *words: str) -> None:
    """One command, in a folder."""
    subprocess.run([sys.executable, "-m", "panecho_embed", *words], cwd=folder, check=True)


def keep(page: Page, name: str) -> None:
    """What a page shows now, as a small file."""
    image = Image.open(BytesIO(page.screenshot()))
    path = PICTURES / f"{name}.webp"
    for quality in (85, 75, 65, 50, 35):
        image.save(path, quality=quality, method=6)
        if path.stat().st_size <= LARGEST_BYTES:
            break
    print(path, path.stat().st_size)


def picture_of_files(page: Page, folder: Path) -> None:
    """The demo's page and the report of its probe."""
    run(folder, "demo", "--patients", "40")
    (report,) = folder.glob("demo/*-probe/report.html")
    pages = [path for path in (folder / "demo").glob("*.html") if path != report]
    for name, path in (("report", report), *(("demo", path) for path in pages)):
        page.goto(path.as_uri())
        page.wait_for_timeout(2000)
        keep(page, name)


def picture_of_page(page: Page, folder: Path) -> None:
    """A study of several views with its neighbours, and the map."""
    run(folder, "phantom", "studies", "--layout", "folders", "--patients", "16", "--frames", "24", "--size", "200")
    run(folder, "extract", "studies", "-o", "studies.h5", "--backbone", "random", "--image-size", "64")
    study = EmbeddingFile(folder / "studies.h5").videos["study_id"][0]
    with listening("127.0.0.1", 0) as (bound, where):
        server = uvicorn.Server(uvicorn.Config(create_app(folder / "studies.h5"), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            page.goto(f"{where}study?id={study}")
            page.wait_for_selector(".card")
            # The page allows no script from elsewhere, so nothing in it can be asked.
            page.wait_for_timeout(30_000)
            keep(page, "study")
            page.goto(f"{where}map")
            page.wait_for_selector("canvas")
            page.wait_for_timeout(4000)
            keep(page, "map")
        finally:
            server.should_exit = True
            thread.join()


def main() -> None:
    """Make all pictures."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as made, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page(viewport=SIZE, color_scheme="light")
        page.set_default_timeout(120_000)
        picture_of_files(page, Path(made))
        picture_of_page(page, Path(made))
        browser.close()


if __name__ == "__main__":
    main()
