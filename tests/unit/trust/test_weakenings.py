"""The weakenings of the campaign match the code: each quoted piece occurs once, and each test exists."""

import pytest
from trust.weakenings import ROOT, WEAKENINGS, Weakening


@pytest.mark.parametrize("weakening", WEAKENINGS, ids=lambda weakening: weakening.safeguard)
def test_a_weakening_matches_the_code(weakening: Weakening) -> None:
    text = (ROOT / weakening.file).read_text(encoding="utf-8")
    assert text.count(weakening.code) == 1
    assert (ROOT / weakening.test).is_file()
