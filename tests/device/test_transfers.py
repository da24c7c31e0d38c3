"""Copies between the host and the simulated device: values arrive, and the host waits no more than it must."""

import pickle

import pytest
import torch
from device.simulated import DEVICE, is_here, simulated, to_host
from device.small_nets import NETS
from device.small_runs import explained, measured

from pipeline.metrics import changed
from pipeline.model.tasks import Similarity
from pipeline.model.transfers import host_copies, sent


def test_indices_are_sent_without_waiting_and_results_come_back_together() -> None:
    with simulated() as ledger:
        there = {name: sent(torch.arange(count).float(), DEVICE) for name, count in (("a", 3), ("b", 4))}
        there["b"] = there["b"].view(2, 2)
        assert all(map(is_here, there.values()))
        assert ledger.waits.total() == 0
        back = host_copies(there)
        assert ledger.waits.total() == 1
    assert {name: copy.tolist() for name, copy in back.items()} == {"a": [0, 1, 2], "b": [[0, 1], [2, 3]]}
    assert host_copies({}) == {}


def test_vectors_move_to_the_device_once_and_not_to_other_processes() -> None:
    task = Similarity(("a", "b"), torch.eye(2))
    embeddings_BD = torch.tensor([[3.0, 4.0]])
    with simulated() as ledger:
        cosines = [to_host(task.outputs(embeddings_BD.to(DEVICE), None)).tolist() for _ in range(3)]
        copies = [line for _, line in ledger.waits if "embeddings" in line]
        assert len(copies) == 1
    copied = pickle.loads(pickle.dumps(task))
    assert copied == task
    assert [copied.outputs(embeddings_BD, None).tolist()] * 3 == cosines


def test_images_imputed_ahead_are_those_of_their_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    road = {"percentiles": [30.0]}
    specs = [{"road": road}, {"deletion": {"steps": 3}}, {"road_morf": {**road, "sigma": 0.5}}]
    expected = measured(explained(NETS["cnn"], "cpu", "fp32", ["gradcam"]), specs)
    monkeypatch.setattr(changed, "IMAGES_ON_DEVICE", 6)
    with simulated():
        explanations = explained(NETS["cnn"], "cuda", "fp32", ["gradcam"])
        explanations.probe.scorer.batcher.size = 4
        found = measured(explanations, specs)
    for name, by_method in expected.items():
        assert torch.equal(to_host(found[name]["gradcam"]), by_method["gradcam"]), name
