"""What once gave wrong numbers is refused before any work, by the command and in a notebook, or is right."""

from pathlib import Path

import pytest
import torch
import wrong_cases
import yaml
from pictures import noise, saved
from typer.testing import CliRunner
from wrong_cases import REFUSED, RIGHT, Case

import pipeline
from jobs.cli import app
from pipeline.model.layout import GridView
from pipeline.model.probe import Probe


def run_file(folder: Path, name: str, case: Case) -> Path:
    (folder / "images").mkdir()
    for number in range(3):
        (folder / "images" / f"{number}.png").write_bytes(saved(noise(case.side, case.side), "PNG"))
    settings = {
        "data": {"shards": str(folder / "images")},
        "model": {
            "name": f"wrong_cases:{name.partition(' ')[0]}", "weights": None,
            "preprocess": {"crop": case.side, "resize": case.side, "mean": [0.5] * 3, "std": [0.25] * 3}, **case.model,
        },
        "explain": case.explain,
        "output": {"path": str(folder / "run")},
    }  # fmt: skip
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.mark.parametrize("name", REFUSED)
def test_the_command_refuses_it_before_any_work(tmp_path: Path, name: str) -> None:
    case = REFUSED[name]
    ended = CliRunner().invoke(app, ["explain", str(run_file(tmp_path, name, case))])
    assert ended.exit_code == 2
    assert case.words in " ".join(ended.stderr.split())
    assert ended.stderr.count("error:") == 1
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())


@pytest.mark.parametrize("name", REFUSED)
def test_a_notebook_refuses_it(name: str) -> None:
    case = REFUSED[name]
    model = getattr(wrong_cases, name.partition(" ")[0])().eval()
    pixels_BCHW = torch.randn(2, 3, case.side, case.side, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError) as refused:  # noqa: PT011, PT012 - the words are compared; either may refuse
        explained = pipeline.explain(model, pixels_BCHW, **case.model)
        pipeline.evaluate(model, pixels_BCHW, explained, **case.explain)
    assert case.words in str(refused.value)


@pytest.mark.parametrize("name", RIGHT)
def test_a_layer_that_was_read_in_a_wrong_way_is_right(name: str) -> None:
    layer, layout = RIGHT[name]
    model = getattr(wrong_cases, name)().eval()
    pixels_BCHW = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    probe = Probe(model, layer)
    probe.capture(pixels_BCHW, gradients=True)
    view = probe.layouts(pixels_BCHW).by_layer[layer]
    assert isinstance(view, GridView)
    assert str(view) == layout
