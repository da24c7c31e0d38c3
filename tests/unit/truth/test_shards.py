"""Scenes as shards: what they hold, that every verb reads them, and what is refused."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from inline import publish_all

from pipeline.errors import ConfigError
from pipeline.results.query import open_run
from pipeline.results.verify import verify
from pipeline.storage.store import open_store
from pipeline.truth.hand import make_hand_scene
from pipeline.truth.scenes import make_scene
from pipeline.truth.shards import Network, open_network, right_scenes, write_scenes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dest = tmp_path_factory.mktemp("truth") / "scenes"
    assert write_scenes(dest, open_network("hand"), 14, seed=2, scenes_per_shard=10) == 1.0
    return dest


def test_a_sample_holds_image_class_masks_and_values(folder: Path) -> None:
    with tarfile.open(folder / "shards" / "scenes-000.tar") as tar:
        names = tar.getnames()
        facts = json.loads(tar.extractfile(names[0].split(".")[0] + ".json").read())  # type: ignore[union-attr]
    key = names[0].split(".")[0]
    assert set(names[:4]) == {f"{key}.{suffix}" for suffix in ("png", "parts.png", "cls", "json")}
    scene = make_hand_scene(int(key.removeprefix("scene_")), seed=2)
    assert facts["rule"] == scene.rule
    assert facts["parts"]["kinds"] == [part.kind for part in scene.parts]
    assert len(facts["parts"]["values"]) == len(facts["parts"]["confidence_values"]) == len(scene.parts)
    assert len(facts["parts"]["weights"]) == 64
    assert facts["boxes"]


def test_a_run_on_the_shards_scores_its_maps_against_the_truth(folder: Path, tmp_path: Path) -> None:
    fields = yaml.safe_load((folder / "run.yaml").read_text())
    fields["explain"] |= {"methods": ["gradcam", "shuffled_gradcam"], "metrics": ["mass", "rank", "energy_in_box"]}
    fields["output"] = {"path": str(tmp_path / "run")}
    path = publish_all(fields)
    assert not verify(open_store(str(path))).problems
    with open_run(str(path)) as run:
        rows = run.arrow(
            'SELECT method, avg(mass) AS mass, avg("rank") AS "rank", count(*) AS images FROM explanations '
            "GROUP BY method ORDER BY method"
        ).to_pylist()
    gradcam, shuffled = rows
    assert gradcam["images"] == shuffled["images"] == 14
    assert gradcam["mass"] > 2 * shuffled["mass"]
    assert gradcam["rank"] > shuffled["rank"]


def test_the_same_seed_writes_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path / "again", open_network("hand"), 14, seed=2, scenes_per_shard=10)
    for path in sorted((folder / "shards").iterdir()):
        assert path.read_bytes() == (tmp_path / "again" / "shards" / path.name).read_bytes()


def test_a_folder_that_is_not_empty_is_left_alone(folder: Path) -> None:
    before = sorted(path.name for path in folder.rglob("*"))
    with pytest.raises(ConfigError, match=r"exists and is not empty.*choose a new folder"):
        write_scenes(folder, open_network("hand"), 2, seed=0, scenes_per_shard=2)
    assert sorted(path.name for path in folder.rglob("*")) == before


def test_a_network_that_classifies_too_few_scenes_writes_nothing(tmp_path: Path) -> None:
    hand = open_network("hand")
    confused = Network("confused", hand.model, make_scene, hand.mean, hand.std, None)
    with pytest.raises(ConfigError, match=r"'confused' classifies \d+ of \d+ scenes rightly"):
        write_scenes(tmp_path / "none", confused, 4, seed=0, scenes_per_shard=2)
    assert not list(tmp_path.iterdir())


def test_wrong_weights_are_refused_with_the_way_to_make_them(tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(b"nothing")
    with pytest.raises(ConfigError, match=r"does not hold the weights of 'plain'.*camatlas truth train"):
        open_network("plain", tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=r"there is no file '.*absent.safetensors'"):
        open_network("plain", tmp_path / "absent.safetensors")
    with pytest.raises(ConfigError, match="the weights of 'hand' are set by hand"):
        open_network("hand", tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", ["plain", "residual", "vit"])
def test_the_bundled_networks_classify_scenes_and_are_small(name: str) -> None:
    network = open_network(name)
    known, share = right_scenes(network, 7, seed=9)
    assert share >= 0.7
    assert len({one.scene.rule for one in known}) >= 5
    assert network.weights is not None
    assert network.weights.stat().st_size < 1_000_000
    assert all(np.isfinite(one.values.logit_P).all() for one in known)
