"""Take pictures of reports as people see them: python -m tests.evaluation.look REPORT.html ... -o FOLDER.

Desktop (1,280 x 800) and phone (390 x 844), light and dark, the first screen and the whole page; and the first page as
printed on A4. For looking at after a change of the page; `test_first_screen.py` checks what can be checked by numbers.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

SIZES = {"desktop": (1280, 800), "phone": (390, 844)}
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update")  # fmt: skip
A4 = (794, 1123)  # CSS pixels


def take_pictures(browser: Any, report: Path, folder: Path, name: str) -> list[Path]:
    """Write the pictures of one report and return their paths."""
    made = []
    for device, (width, height) in SIZES.items():
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(report.resolve().as_uri())
            for part, whole in (("first", False), ("whole", True)):
                made.append(folder / f"{name}-{device}-{scheme}-{part}.png")
                page.screenshot(path=made[-1], full_page=whole)
            page.close()
    page = browser.new_page(viewport={"width": A4[0], "height": A4[1]})
    page.emulate_media(media="print")
    page.goto(report.resolve().as_uri())
    made.append(folder / f"{name}-print.png")
    page.screenshot(path=made[-1], full_page=True)
    page.close()
    return made


def main() -> None:
    """Take the pictures of every report that is named."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reports", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=list(FLAGS))
        for report in given.reports:
            for path in take_pictures(browser, report, given.out, report.resolve().parent.name):
                print(path)
        browser.close()


if __name__ == "__main__":
    main()
