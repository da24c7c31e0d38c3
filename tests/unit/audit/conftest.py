"""Images whose defects the detectors must find."""

import numpy as np
import pytest

from pipeline.audit.values import Values

DETECTED = 400
"""Images of `values`."""


@pytest.fixture
def values() -> Values:
    """Four classes in eight shards, with nine of ten predictions correct."""
    random = np.random.default_rng(0)
    index = np.arange(DETECTED)
    labels_I = index % 4
    correct_I = (random.random(DETECTED) < 0.9).astype(float)
    predicted_I = np.where(correct_I == 1, labels_I, (labels_I + 1) % 4)
    return Values(
        places=[(f"s{i // 50}", f"{i:04d}") for i in index],
        labels_I=labels_I,
        predicted_I=predicted_I,
        classes_I=labels_I,
        confidences_I=np.full(DETECTED, 0.9),
        correct_I=correct_I,
        held_out_I=random.random(DETECTED) < 0.5,
        sizes_I2=np.full((DETECTED, 2), 64.0),
        columns={},
        sums_IK=np.zeros((DETECTED, 0), np.float32),
        counts_IK=np.zeros((DETECTED, 0), np.float32),
    )
