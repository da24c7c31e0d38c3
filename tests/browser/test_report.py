"""The report in a real browser: it opens from disk, offline, and asks for nothing. Skips without Chromium."""

import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image
from security.test_audit_page import FACTS, pictures

from pipeline.audit.page import render

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_report_opens_in_a_browser(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(render(FACTS, pictures(FACTS)), encoding="utf-8")
    shot = tmp_path / "shot.png"
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr"]
    command += ["--window-size=1200,1800", f"--screenshot={shot}", page.as_uri()]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert "CONSOLE" not in ended.stderr, "a refused style, script or request would be told here"
    with Image.open(shot) as picture:
        colours = picture.convert("RGB").getcolors(1 << 24) or []
    assert len(colours) > 50
    assert any(red > 200 and green > 190 and blue < 90 for _, (red, green, blue) in colours), "the heat filter's yellow"
