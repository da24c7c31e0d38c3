"""deploy/imagenet-val.yaml: a valid run file that fits the clusters it is written for."""

import pytest
from unit.deploy.manifests import DEPLOY

from pipeline.cams import LayerShape, NetShape, build_methods
from pipeline.metrics import build_metrics
from pipeline.metrics.cost import metrics_cost
from pipeline.settings.run_file import load_config

RUN = DEPLOY / "imagenet-val.yaml"


def test_its_methods_and_metrics_exist() -> None:
    config = load_config(str(RUN))
    assert len(build_methods(config.explain.methods)) == len(config.explain.methods)
    assert len(build_metrics(config.explain.metrics)) == len(config.explain.metrics)


def test_it_waits_for_machines_and_never_falls_back_to_the_head() -> None:
    compute = load_config(str(RUN)).compute
    assert (compute.address, compute.device, compute.precision) == ("auto", "cuda", "bf16")
    assert isinstance(compute.workers, int)  # `auto` counts the GPUs at the start, when there are none
    assert isinstance(compute.stall_seconds, int)
    assert compute.stall_seconds >= 1800
    assert compute.compile == "auto"  # the image has a compiler


@pytest.mark.parametrize("place", ["shards", "path"])
def test_it_reads_and_writes_a_bucket(place: str) -> None:
    config = load_config(str(RUN))
    url = config.data.shards if place == "shards" else config.output.path
    assert str(url).startswith("s3://BUCKET/")


def test_the_readme_states_its_number_of_passes() -> None:
    config = load_config(str(RUN))
    shape = NetShape((LayerShape(2048, 7, 7),), linear_head=True)
    methods, metrics = build_methods(config.explain.methods), build_metrics(config.explain.metrics)
    own = sum(method.cost(shape).forwards for method in methods.values())
    judged = metrics_cost(metrics.values(), methods, shape).forwards
    row = f"({own} of its forwards for methods, {judged} for metrics) | {1 + own + judged} |"
    assert row in (DEPLOY / "README.md").read_text(encoding="utf-8")
