"""Methods of captum, stored maps and the user's own methods on the simulated device."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from captums import KEYS, TARGETS, flat, method
from device.simulated import is_here, simulated, to_host
from explaining import chunk, spec
from mapped import table
from misbehaving import method_of, metric_of, plain
from nets import ToyNet, images
from torch import Tensor

import camatlas
from pipeline.cams import build_methods
from pipeline.cams.captum.table import TAKES
from pipeline.cams.stored import Stored
from pipeline.explain.explainer import Explainer
from pipeline.metrics import ScoringBatch, build_metrics
from pipeline.model.probe import Probe

pytest.importorskip("captum")


def attributed(algorithm: str, device: str) -> Tensor:
    probe = Probe(flat().to(device), "features.2", seed=5)
    evidence = probe.capture(images().to(device), TARGETS.to(device), gradients=False, keys=KEYS)
    return method(algorithm)(evidence, probe)


@pytest.mark.parametrize("algorithm", TAKES)
def test_attributions_of_captum_are_those_of_the_cpu(algorithm: str) -> None:
    expected = attributed(algorithm, "cpu")
    with simulated():
        found = attributed(algorithm, "cuda")
    assert is_here(found)
    assert torch.equal(to_host(found.detach()), expected.detach())


def test_methods_and_metrics_of_the_user_run_on_the_device() -> None:
    view = camatlas.TopPixels(0.3, "mean")

    def kept(batch: ScoringBatch) -> Tensor:
        return batch.scores(view).confidences_BMS[:, :, 0]

    def found(device: str) -> pa.Table:
        chosen = {"methods": build_methods([method_of(plain)]), "metrics": build_metrics([metric_of(kept, view)])}
        return pa.concat_tables(Explainer(ToyNet(0), spec(device=device, **chosen)).tables(chunk(3)))

    with simulated():
        there = found("cuda")
    assert there.equals(found("cpu"))
    assert there["error_code"].null_count == len(there)


def test_a_method_of_the_user_that_makes_maps_on_the_host_fails_its_rows() -> None:
    def on_the_host(evidence: camatlas.Evidence, probe: Probe) -> Tensor:
        return torch.ones(len(evidence.keys), 8, 8) * evidence.acts_BKuv.mean(1)

    methods = build_methods(["gradcam", method_of(on_the_host)])
    with simulated():
        found = pa.concat_tables(Explainer(ToyNet(0), spec(methods=methods, device="cuda")).tables(chunk(2)))
    assert found["error_code"].to_pylist() == [None, "method_error"] * 2
    assert "same device" in found["error_detail"][1].as_py()


def test_notebooks_try_methods_of_others_on_the_device() -> None:
    saliency = {"captum": {"algorithm": "Saliency", "grid": 8}}
    with simulated():
        model = flat().to("cuda")
        found = camatlas.explain(model, images(), methods=[saliency], layer="features.2")
        assert all(map(is_here, found.maps.values()))


def test_a_stored_map_that_is_missing_fails_its_row_on_the_device(tmp_path: Path) -> None:
    pq.write_table(table(["k0", "k2"]), tmp_path / "maps.parquet")
    stored = Stored(str(tmp_path / "maps.parquet"))
    stored.opened()
    methods = {"gradcam": build_methods(["gradcam"])["gradcam"], "stored": stored}
    with simulated():
        explainer = Explainer(ToyNet(0), spec(methods=methods, metrics={}, device="cuda"))
        found = pa.concat_tables(explainer.tables(chunk(3)))
    codes = dict(
        zip(
            zip(found["image_key"].to_pylist(), found["method"].to_pylist(), strict=True),
            found["error_code"].to_pylist(),
            strict=True,
        )
    )
    assert {where for where, code in codes.items() if code} == {("k1", "stored")}


def test_stored_maps_are_put_onto_the_device(tmp_path: Path) -> None:
    pq.write_table(table(["k0", "k1", "k2"]), tmp_path / "maps.parquet")
    stored = Stored(str(tmp_path / "maps.parquet"))
    stored.opened()
    metrics = build_metrics(["average_drop"])
    expected = pa.concat_tables(
        Explainer(ToyNet(0), spec(methods={"stored": stored}, metrics=metrics)).tables(chunk(3))
    )
    with simulated():
        explainer = Explainer(ToyNet(0), spec(methods={"stored": stored}, metrics=metrics, device="cuda"))
        found = pa.concat_tables(explainer.tables(chunk(3)))
    assert found.equals(expected)
    assert found["error_code"].null_count == len(found)
