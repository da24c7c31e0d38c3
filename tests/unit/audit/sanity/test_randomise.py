"""Randomisation of a copy of the model step by step; the original model is not modified."""

import copy

import pytest
import torch
from nets import StagedNet, ToyNet
from torch import nn

from pipeline.audit.sanity.randomise import layer_groups, randomised


class WithToken(nn.Module):
    """Has a parameter outside of any layer."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.full((1, 4), 5.0))
        self.linear = nn.Linear(4, 2)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.linear(pixels + self.token)


@pytest.mark.parametrize("steps", [1, 2, 3, 99])
def test_every_layer_is_in_exactly_one_group_and_the_last_layer_is_alone(steps: int) -> None:
    groups = layer_groups(StagedNet(0), steps)
    names = [name for group in groups for name in group]
    holders = [name for name, module in StagedNet(0).named_modules() if list(module.parameters(recurse=False))]
    assert names == holders[::-1]
    assert len(groups) == min(steps, len(names))
    if steps > 1:
        assert groups[0] == ["linear"]


def test_randomised_layers_stay_random_and_the_model_is_not_modified() -> None:
    model = ToyNet(3)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    randomised_names: set[str] = set()
    for names, changed in randomised(model, 3, seed=1):
        randomised_names |= set(names)
        for name, value in changed.state_dict().items():
            assert torch.equal(value, before[name]) == (name.rpartition(".")[0] not in randomised_names), name
    assert randomised_names == {"linear", "head.0", "features.2", "features.0"}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)


def test_weights_depend_on_the_seed_and_the_layer_name_alone() -> None:
    last = []
    for seed, steps in ((1, 2), (1, 4), (2, 4)):
        *_, (_, changed) = randomised(ToyNet(3), steps, seed)
        last.append(changed.linear.weight.clone())
    assert torch.equal(last[0], last[1])
    assert not torch.equal(last[1], last[2])


def test_parameters_outside_of_known_layers_are_randomised_too() -> None:
    *_, (names, changed) = randomised(WithToken(), 2, seed=0)
    assert names == [""]
    assert float(changed.token.detach().abs().max()) < 0.2
