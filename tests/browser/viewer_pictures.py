"""Take pictures of the viewer for the documentation: `python tests/browser/viewer_pictures.py RUN FOLDER`.

Writes the grid and the page of its first image in light, in dark and at 390 pixels. Needs Chromium.
"""

import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

LOOKS: dict[str, dict[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "light"},
    "dark": {"viewport": {"width": 1280, "height": 860}, "color_scheme": "dark"},
    "narrow": {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"},
}


def photograph(address: str, folder: Path) -> None:
    """Open each page in each look, and save what is on the screen."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, look in LOOKS.items():
            page = browser.new_page(**look)
            page.goto(address)
            page.locator("#grid").wait_for()
            for what in ("grid", "image"):
                page.wait_for_load_state("networkidle")
                page.screenshot(path=folder / f"viewer_{what}_{name}.png")
                if what == "grid":
                    page.locator("#grid .tile a").first.click()
                    page.locator(".maps").wait_for()
            page.close()
        browser.close()


if __name__ == "__main__":
    target = Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "jobs.view", sys.argv[1], "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        photograph(server.stdout.readline().strip(), target)
        server.send_signal(signal.SIGINT)
