"""One batch asks no more of the device than it does today."""

import pytest
from device.budgets import BUDGETS, asked


@pytest.mark.parametrize("name", BUDGETS)
def test_a_batch_stays_within_its_budget(name: str) -> None:
    budget = BUDGETS[name]
    found = asked(budget)
    assert found.waits <= budget.waits, found.ledger.lines()
    assert found.launches <= budget.launches
    assert found.passes == budget.passes
