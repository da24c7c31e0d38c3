"""What the host knows of rows equals what can be read from them one by one."""

from dataclasses import replace

import pytest
import torch
from nets import ToyNet, images

from pipeline.model.evidence import Evidence
from pipeline.model.probe import Probe
from pipeline.model.rows import Rows

IMAGES, TARGETS = [1, 1, 1, 4, 6, 6], [3, 0, 2, 1, 1, 3]


def test_rows_are_told_apart_by_image() -> None:
    rows = Rows.of(torch.tensor(IMAGES), torch.tensor(TARGETS))
    distinct = sorted(set(IMAGES))
    own = [[row for row, image in enumerate(IMAGES) if image == each] for each in distinct]
    assert rows.first_I.tolist() == [each[0] for each in own]
    assert rows.places_B.tolist() == [distinct.index(image) for image in IMAGES]
    assert rows.ranks_B.tolist() == [row - own[distinct.index(image)][0] for row, image in enumerate(IMAGES)]
    assert [each.tolist() for each in rows.by_image()] == own
    assert [each.tolist() for each in rows.by_rank()] == [[0, 3, 4], [1, 5], [2]]
    assert rows.all_targets_BT.tolist() == [[3, 0, 2]] * 3 + [[1, 1, 1]] + [[1, 3, 1]] * 2


def evidence_of(images_B: torch.Tensor, targets_B: torch.Tensor) -> Evidence:
    probe = Probe(ToyNet(0), "features.3")
    return probe.observe(images(0), gradients=True, keys="abc").evidence_of(images_B, targets_B)


@pytest.mark.parametrize("rows", [slice(1, 4), torch.tensor([0, 3]), torch.tensor([False, True, False, True])])
def test_selected_rows_are_those_of_the_selected_tensors(rows: slice | torch.Tensor) -> None:
    some = evidence_of(torch.tensor([0, 1, 1, 2]), torch.tensor([2, 0, 1, 2])).select(rows)
    assert some.rows.images_B.tolist() == some.images_B.tolist()
    assert some.rows.targets_B.tolist() == some.targets_B.tolist()
    assert some.places().tolist() == Rows.of(some.images_B, some.targets_B).places_B.tolist()


def test_evidence_with_other_rows_forgets_those_it_was_made_with() -> None:
    evidence = evidence_of(torch.arange(3), torch.zeros(3).long())
    assert evidence.first_rows().tolist() == [0, 1, 2]
    other = replace(evidence, images_B=torch.tensor([0, 0, 1]))
    assert other.first_rows().tolist() == [0, 2]
    assert other.ranks().tolist() == [0, 1, 0]


def test_rows_found_in_inference_mode_can_be_differentiated_with() -> None:
    evidence = evidence_of(torch.arange(3), torch.zeros(3).long())
    with torch.inference_mode():
        other = replace(evidence, images_B=torch.tensor([0, 1, 1]))
        places_B = other.places()
    acts_BKuv = evidence.acts_BKuv.clone().requires_grad_()
    acts_BKuv[places_B].square().sum().backward()
    assert acts_BKuv.grad is not None
