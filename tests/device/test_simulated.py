"""The simulated device refuses what CUDA refuses, and counts what makes the host wait."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from device.simulated import DEVICE, SimulatedTensor, is_here, simulated, to_host
from device.small_nets import SmallCnn, made, pictures
from torch import Tensor, nn

from pipeline.cams.base import weighted_sum

NUMBERS = torch.arange(12.0).view(3, 4)
Use = Callable[[Tensor], object]

REFUSED: dict[str, tuple[Use, type[Exception], str]] = {
    "a sum of two devices": (lambda x: x + NUMBERS, RuntimeError, "same device"),
    "a list of tensors of two devices": (lambda x: torch.cat([x, NUMBERS]), RuntimeError, "same device"),
    "a product of matrices of two devices": (lambda x: x @ NUMBERS.T, RuntimeError, "same device"),
    "a choice by a mask of the host": (lambda x: torch.where(NUMBERS > 3, x, 0.0), RuntimeError, "same device"),
    "one number of the host in a matrix product": (lambda x: x[0] @ NUMBERS[0], RuntimeError, "same device"),
    "gathering by an index of the host": (lambda x: x.gather(1, NUMBERS.long() % 4), RuntimeError, "same device"),
    "an index of the device in a tensor of the host": (lambda x: NUMBERS[x[0].long() % 3], RuntimeError, "indices"),
    "values of the host at some indices": (lambda x: x.index_put_((x > 3,), NUMBERS[0]), RuntimeError, "index_put_"),
    "writing into the host": (lambda x: torch.zeros(()).add_(x.sum()), RuntimeError, "same device"),
    "NumPy": (lambda x: x.numpy(), TypeError, "Tensor.cpu"),
    "NumPy by itself": (lambda x: np.asarray(x), TypeError, "Tensor.cpu"),
    "pinning": (lambda x: x.pin_memory(), RuntimeError, "cannot pin"),
    "a copy that is read before it has arrived": (lambda x: x.to("cpu", non_blocking=True), RuntimeError, "arrived"),
    "random numbers by a generator of the host": (
        lambda _: torch.randn(3, device="cuda", generator=torch.Generator()), RuntimeError, "generator",
    ),
    "random numbers in place by a generator of the host": (
        lambda x: x.normal_(generator=torch.Generator()), RuntimeError, "generator",
    ),
    "a model of the host": (lambda x: nn.Linear(4, 2)(x), RuntimeError, "same device"),
}  # fmt: skip

WAITS: dict[str, tuple[Use, int]] = {
    "arithmetic": (lambda x: (x * 2 + 1).relu().sum(), 0),
    "one number of the host": (lambda x: x * torch.tensor(2.0), 0),
    "views": (lambda x: x[1:, ::2].T.reshape(-1), 0),
    "an index of the device": (lambda x: x[x[0].long() % 3], 0),
    "a choice by a mask": (lambda x: torch.where(x > 3, x, 0.0), 0),
    "a number under a mask": (lambda x: x.clone().__setitem__(x > 3, 0.0), 0),
    "new tensors": (lambda x: (torch.zeros(3, device=x.device), torch.arange(3, device=x.device), x.new_ones(2)), 0),
    "one-hot codes": (lambda x: nn.functional.one_hot(x.long(), 12), 0),
    "sorting": (lambda x: (x.sort(), x.argsort(stable=True), x.argmax()), 0),
    "repeating": (lambda x: x.repeat_interleave(2), 0),
    "another precision": (lambda x: x.to(torch.float64).to(x.device), 0),
    "item": (lambda x: x[0, 0].item(), 1),
    "bool": (lambda x: bool(x.any()), 1),
    "int and float": (lambda x: (int(x[0, 0]), float(x[0, 1])), 2),
    "if": (lambda x: 1 if x.any() else 2, 1),
    "equality": (lambda x: torch.equal(x, x), 1),
    "closeness": (lambda x: torch.allclose(x, x), 1),
    "nonzero": (lambda x: x.nonzero(), 1),
    "an index by a mask": (lambda x: x[x > 3], 1),
    "two masks": (lambda x: (x[x > 3], x[x > 5]), 2),
    "values under a mask": (lambda x: x.clone().__setitem__(x > 7, x[0]), 1),
    "an index of the host": (lambda x: x[torch.tensor([0, 1])], 1),
    "a number at an index of the host": (lambda x: x.clone().__setitem__((slice(None), [0, 2]), 0.0), 1),
    "a number at an index of the device": (lambda x: x.clone().__setitem__(x[0].long() % 3, 0.0), 0),
    "unique": (lambda x: x.unique(), 1),
    "repeating by a tensor": (lambda x: x[0].repeat_interleave(x[1].long()), 1),
    "a copy to the host": (lambda x: x.cpu(), 1),
    "a list": (lambda x: x.tolist(), 1),
    "a list of one number": (lambda x: x.sum().tolist(), 1),
    "numbers of a tensor to the host": (lambda x: torch.as_tensor(x, device="cpu").numpy(), 1),
    "a copy into the host": (lambda x: torch.zeros(3, 4).copy_(x), 1),
    "a copy to the device": (lambda x: NUMBERS.to(x.device), 1),
    "a copy to another's device": (lambda x: NUMBERS.to(x), 1),
    "a copy into the device": (lambda x: x.clone().copy_(NUMBERS), 1),
    "numbers to the device": (lambda x: torch.tensor([1.0, 2.0], device=x.device), 1),
    "a copy of pageable memory without waiting": (lambda _: NUMBERS.to("cuda", non_blocking=True), 1),
    "a copy of pinned memory": (lambda _: NUMBERS.pin_memory().to("cuda"), 1),
    "a copy of pinned memory without waiting": (lambda _: NUMBERS.pin_memory().to("cuda", non_blocking=True), 0),
    "synchronize": (lambda _: torch.cuda.synchronize(), 1),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_refuses_what_cuda_refuses(name: str) -> None:
    use, error, words = REFUSED[name]
    with simulated():
        tensor = NUMBERS.to("cuda")
        with pytest.raises(error, match=words):
            use(tensor)


@pytest.mark.parametrize("name", WAITS)
def test_it_counts_the_waits_of_the_host(name: str) -> None:
    use, waits = WAITS[name]
    with simulated() as ledger:
        tensor = NUMBERS.to("cuda")
        ledger.clear()
        use(tensor)
        assert ledger.waits.total() == waits, ledger.waits


def test_a_tensor_says_where_it_is_and_keeps_its_values() -> None:
    with simulated():
        tensor = NUMBERS.to("cuda")
        assert (tensor.device, tensor.is_cuda, tensor.is_cpu, tensor.get_device()) == (DEVICE, True, False, 0)
        for derived in (tensor + 1, tensor[0], tensor.double(), torch.zeros_like(tensor), tensor.new_zeros(2)):
            assert derived.device == DEVICE
        assert tensor.cpu().device.type == torch.zeros(2, device="cpu").device.type == "cpu"
    assert torch.equal(to_host(tensor), NUMBERS)


def test_changes_in_place_reach_views_and_not_the_host() -> None:
    with simulated():
        source = NUMBERS.clone()
        tensor = source.to("cuda")
        tensor[1].mul_(0)
        tensor[:, 0] = 7.0
    expected = NUMBERS.clone()
    expected[1], expected[:, 0] = 0, 7
    assert torch.equal(to_host(tensor), expected)
    assert torch.equal(source, NUMBERS)


@torch.no_grad()
def test_a_model_moves_there_and_back() -> None:
    model, images = made(SmallCnn), pictures()
    expected = model(images)
    with simulated():
        model.to("cuda")
        assert all(map(is_here, (*model.parameters(), *model.buffers())))
        assert all(isinstance(parameter, nn.Parameter) for parameter in model.parameters())
        logits = model(images.to("cuda"))
        with pytest.raises(RuntimeError, match="same device"):
            model(images)
        model.to("cpu")
    assert torch.equal(to_host(logits), expected)
    assert not any(map(is_here, (*model.parameters(), *model.buffers())))
    assert torch.equal(model(images), expected)


def test_a_copy_of_a_model_is_on_the_device_and_its_own() -> None:
    with simulated():
        model = made(SmallCnn).to("cuda")
        copied = copy.deepcopy(model)
        before = copied.linear.bias.tolist()
        with torch.no_grad():
            model.linear.bias.fill_(9)
        assert all(map(is_here, (*copied.parameters(), *copied.buffers())))
        assert len(list(copied.parameters())) == len(list(model.parameters()))
        assert copied.linear.bias.tolist() == before


def test_gradients_are_those_of_the_cpu() -> None:
    images = pictures().requires_grad_()
    (expected,) = torch.autograd.grad(made(SmallCnn)(images)[:, 1].square().sum(), images)
    with simulated():
        there = images.detach().to("cuda").requires_grad_()
        (found,) = torch.autograd.grad(made(SmallCnn).to("cuda")(there)[:, 1].square().sum(), there)
    assert isinstance(found, SimulatedTensor)
    assert torch.equal(to_host(found), expected)


def test_only_the_autocast_of_the_device_has_an_effect() -> None:
    with simulated():
        tensor = NUMBERS.to("cuda")
        for kind, dtype in (("cuda", torch.bfloat16), ("cpu", torch.float32)):
            with torch.autocast(kind, torch.bfloat16):
                assert (tensor @ tensor.T).dtype == dtype


def test_waits_and_launches_are_counted_by_the_line_that_asks() -> None:
    with simulated() as ledger:
        tensor = NUMBERS.to("cuda")
        ledger.clear()
        tensor.sum().item()
        weighted_sum(tensor, tensor[:, :, None, None])
    ((_, waiting),) = ledger.waits
    assert "test_simulated.py:" in waiting
    launched = {line.partition(":")[0]: operation for operation, line in ledger.launches}
    assert launched["pipeline/cams/base.py"] == "relu"
    assert sum(times for (operation, _), times in ledger.launches.items() if operation == "sum") == 2


def test_outside_of_the_simulation_nothing_is_changed() -> None:
    before = torch.cuda.is_available(), torch.autocast, torch.cuda.synchronize
    with simulated():
        pass
    assert (torch.cuda.is_available(), torch.autocast, torch.cuda.synchronize) == before
