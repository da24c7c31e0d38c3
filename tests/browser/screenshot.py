"""Screenshot the top of a report: `python tests/browser/screenshot.py REPORT.html IMAGE.png` (needs Chromium)."""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

if __name__ == "__main__":
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1100, "height": 960})
        page.goto(Path(sys.argv[1]).resolve().as_uri())
        page.screenshot(path=sys.argv[2])
        browser.close()
