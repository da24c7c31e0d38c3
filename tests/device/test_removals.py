"""Code that puts a tensor onto a device cannot be lost unnoticed."""

import subprocess
import sys

import pytest
from device.removals import HARMLESS, ROOT, placements


def test_what_is_harmless_still_exists_and_every_placement_is_inside_of_a_function() -> None:
    found = placements()
    assert {(each.file, each.code) for each in found} >= HARMLESS.keys()
    assert all(each.function for each in found)


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_every_placement_on_a_device_is_missed() -> None:
    command = [sys.executable, "tests/device/removals.py"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
