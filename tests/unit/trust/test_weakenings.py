"""The planted weakenings of the campaign still fit the code: each text is there, once, and each test is there."""

import pytest
from trust.weakenings import ROOT, WEAKENINGS, Weakening


@pytest.mark.parametrize("weakening", WEAKENINGS, ids=lambda weakening: weakening.lost)
def test_a_weakening_can_be_planted(weakening: Weakening) -> None:
    text = (ROOT / weakening.file).read_text(encoding="utf-8")
    assert text.count(weakening.sound) == 1
    assert (ROOT / weakening.test).is_file()
