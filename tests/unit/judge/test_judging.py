"""The judge from scenes to record: repeatable to the last bit, continued after an interruption, and honest."""

import json
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.judge import judging
from pipeline.judge.judging import judge
from pipeline.judge.output import as_text, write_record
from pipeline.results.reliability import load_record
from pipeline.truth import shards
from pipeline.truth.shards import Network, open_network

CHEAP = ("gradcam", "layercam", "xgradcam", "eigen_cam", "shuffled_gradcam")
FAST = ("mass", "rank", "energy_in_box", "average_drop", {"insertion": {"steps": 4}}, "sparsity", "coherency")
SCENES = 12


def _silent(_line: str) -> None:
    pass


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("judge")
    record = judge(made, ["plain"], SCENES, seed=3, processes=2, report=_silent, methods=CHEAP, metrics=FAST)
    write_record(made, record)
    return made


def test_the_record_says_what_it_was_measured_on(folder: Path) -> None:
    record = load_record(folder / "judge.json", "judge.json")
    assert record.networks["plain"].scenes == SCENES
    assert record.networks["plain"].accuracy is not None
    assert sum(record.rules.values()) == SCENES
    assert record.candidates.methods == list(CHEAP)
    assert not record.is_placeholder
    mass = record.metrics["mass"].agreement.methods
    assert mass is not None
    assert mass.mass is not None
    assert mass.mass.tau == pytest.approx(1)
    sees_boxes = record.metrics["energy_in_box"].agreement.ruins
    assert sees_boxes is not None
    assert sees_boxes.mass is not None
    assert sees_boxes.mass.tau is not None
    assert sees_boxes.mass.tau > 0.5


def test_shuffled_maps_are_worth_less_than_maps(folder: Path) -> None:
    methods = load_record(folder / "judge.json", "judge.json").methods
    scores = {name: methods[name].mass for name in ("gradcam", "shuffled_gradcam")}
    assert scores["gradcam"] is not None
    assert scores["shuffled_gradcam"] is not None
    assert (scores["gradcam"].mean or 0) > 2 * (scores["shuffled_gradcam"].mean or 0)


def test_an_interrupted_judging_is_continued_to_the_same_record(folder: Path) -> None:
    pieces = sorted(next(folder.glob("pieces-*")).iterdir())
    pieces[0].unlink()
    pieces[1].write_bytes(pieces[1].read_bytes()[:1000])
    (pieces[2].parent / ".partial").write_bytes(b"half")
    lines: list[str] = []
    record = judge(folder, ["plain"], SCENES, seed=3, processes=1, report=lines.append, methods=CHEAP, metrics=FAST)
    assert "1 of 3 blocks were measured before" in lines
    assert as_text(record) == (folder / "judge.json").read_text().rstrip("\n")


def test_both_files_are_written_from_one_record(folder: Path) -> None:
    assert json.loads((folder / "judge.json").read_text())["seed"] == 3
    page = (folder / "metrics.md").read_text()
    assert f"Measured on {SCENES} scenes, seed 3" in page
    assert "| `insertion`" in page


def test_a_network_that_classifies_too_few_scenes_judges_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def confused(name: str) -> Network:
        hand = open_network("hand")
        return Network(name, hand.model, shards.make_scene, hand.mean, hand.std, None)

    monkeypatch.setattr(judging, "open_network", confused)
    with pytest.raises(ConfigError, match=r"'plain' classifies \d+ of \d+ scenes rightly.*train it longer"):
        judge(tmp_path / "none", ["plain"], 6, seed=0, processes=1, report=_silent, methods=CHEAP, metrics=FAST)
    assert not (tmp_path / "none").exists()


def test_an_unknown_network_is_named_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'plane' is no network to judge on.*plain"):
        judge(tmp_path, ["plane"], 6, seed=0, processes=1, report=_silent)
