"""Memory of a long run does not grow, in the driver and in the worker."""

import pytest

from pipeline.bench.overhead import memory_slope


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_memory_is_flat_over_twenty_thousand_images() -> None:
    growth = memory_slope(images=20_000, warm_up=4_000)
    assert growth.worker <= 1, f"the worker grows by {growth.worker:.2f} MB per 10,000 images"
    assert growth.driver <= 1, f"the driver grows by {growth.driver:.2f} MB per 10,000 images"
