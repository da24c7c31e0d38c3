"""Paths of a run file: those in the manifest must be valid from any working directory."""

import os
from pathlib import Path
from typing import Any

import pytest
from runfiles import SMALLEST

from pipeline.run.paths import absolute
from pipeline.settings.run_file import parse_config


def made_absolute(**sections: dict[str, Any]) -> dict[str, Any]:
    config, mistakes = parse_config({name: {**SMALLEST[name], **sections.get(name, {})} for name in SMALLEST})
    assert mistakes == []
    return absolute(config).model_dump()


def test_every_local_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = os.getcwd()  # noqa: PTH109 - the path as the system reports it
    files = {"shards": "a.tar", "labels": "l.csv", "boxes": "b.csv", "classes": "c.csv"}
    found = made_absolute(data=files, model={"weights": "w.safetensors"}, output={"path": "run"})
    assert {name: found["data"][name] for name in files} == {
        name: [f"{here}/{path}"] if name == "shards" else f"{here}/{path}" for name, path in files.items()
    }
    assert (found["model"]["weights"], found["output"]["path"]) == (f"{here}/w.safetensors", f"{here}/run")


@pytest.mark.parametrize("weights", [None, "DEFAULT", "random", "IMAGENET1K_V2", "/w.safetensors"])
@pytest.mark.parametrize("classes", [None, "imagenet-1k", "/c.csv", "s3://bucket/c.csv"])
def test_names_and_urls_do_not_change(weights: str | None, classes: str | None) -> None:
    found = made_absolute(data={"shards": "s3://bucket/a.tar", "classes": classes}, model={"weights": weights})
    assert (found["data"]["shards"], found["data"]["classes"]) == (["s3://bucket/a.tar"], classes)
    assert found["model"]["weights"] == weights


def test_a_manifest_and_its_root_are_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = os.getcwd()  # noqa: PTH109
    config, mistakes = parse_config({**SMALLEST, "data": {"manifest": "list.csv", "root": "images"}})
    assert mistakes == []
    data = absolute(config).data
    assert (data.manifest, data.root, data.shards) == (f"{here}/list.csv", f"{here}/images", "")
    assert absolute(absolute(config)) == absolute(config)
