"""A run of listed images: what the viewer exports is explained unedited, verified, and grows; ids stay as they were."""

import html
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from inline import publish_all
from layouts.base import picture, tar
from layouts.net import model_section
from preparing import prepared, refused, rows_of
from viewing import viewing

from pipeline.results.status import Count, status
from pipeline.results.verify import verify
from pipeline.storage.local_store import LocalStore
from pipeline.storage.run_folder import RECEIPTS, read_manifest

HOSTILE = ["=1+1", "'=2", "<script>alert(1)<", 'say "a"']
"""Keys in tars; they have no dot, where a suffix begins."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tars; the key `both` is in each."""
    folder = tmp_path_factory.mktemp("shards")
    for shard, keys in (("s0", ["both", "a", "b", *HOSTILE]), ("s1", ["both", "c", "d"])):
        tar(folder / f"{shard}.tar", [(f"{key}.jpg", picture(i)) for i, key in enumerate(keys)])
    return folder


def fields_of(shards: Path, run: Path, **data: Any) -> dict[str, Any]:
    return {
        "data": {"shards": str(shards), "chunk_images": 3, **data},
        "model": model_section(),
        "explain": {"methods": ["gradcam"]},
        "output": {"path": str(run)},
    }


@pytest.fixture(scope="module")
def whole(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_all(fields_of(shards, tmp_path_factory.mktemp("whole") / "run"))


def images(run: Path) -> list[tuple[str, str]]:
    return sorted((row["shard"], row["image_key"]) for row in rows_of(run))


def found(run: Path) -> tuple[list[str], list[str]]:
    findings = verify(LocalStore(run))
    return findings.problems, findings.notes


def test_the_exports_of_the_viewer_explain_exactly_their_images(shards: Path, whole: Path, tmp_path: Path) -> None:
    picks = [("s0.tar", "both"), ("s1.tar", "c"), *(("s0.tar", key) for key in HOSTILE)]
    with viewing(whole) as client:
        page = client.get("/picked", params=[("pick", f"{shard}/{key}") for shard, key in picks]).text
        keys = client.get("/keys.csv", params={"shard": "s0.tar"}).content
    text = html.unescape(page.split("data-copy>")[2].partition("</pre>")[0])
    given = yaml.safe_load(f"data:\n  chunk_images: 2\n{text}")["data"]
    run = publish_all(fields_of(shards, tmp_path / "picked", **given))
    assert images(run) == sorted(picks)
    assert found(run) == ([], [])
    (tmp_path / "keys.csv").write_bytes(keys)
    run = publish_all(fields_of(shards, tmp_path / "selected", keys=str(tmp_path / "keys.csv")))
    assert images(run) == [one for one in images(whole) if one[0] == "s0.tar"]
    assert found(run) == ([], [])
    rows = {(row["shard"], row["image_key"]): row["map"] for row in rows_of(whole)}
    assert all(row["map"] == rows[row["shard"], row["image_key"]] for row in rows_of(run))


def test_missing_keys_are_in_the_account_and_status_counts_the_listed(shards: Path, tmp_path: Path) -> None:
    fields = fields_of(shards, tmp_path / "run", keys=["a", "both", "nowhere"])
    run = prepared(fields)
    sentence = "data.keys: 3 images; 1 of its 3 keys has no image, such as 'nowhere'; several shards have 1 key"
    assert run.account.notes[0].startswith(sentence)
    assert any(sentence in line for line in run.account.lines())
    assert run.manifest.images == (2, 1)
    folder = publish_all(fields)
    assert any(sentence in line for line in verify(LocalStore(folder)).account)
    assert status(LocalStore(folder), 2e9, None).images_total == Count(3, exact=True)


def test_ids_depend_on_the_list_and_stay_without_one(shards: Path, whole: Path, tmp_path: Path) -> None:
    def run_id(**data: Any) -> str:
        return prepared(fields_of(shards, tmp_path / "none", **data)).manifest.run_id

    (tmp_path / "k.txt").write_text("c\na\na\n")
    assert run_id(keys=["a", "c"]) == run_id(keys=str(tmp_path / "k.txt"))
    assert len({run_id(keys=["a", "c"]), run_id(keys=["a", "b", "c"]), run_id()}) == 3
    assert run_id() == read_manifest(LocalStore(whole)).run_id
    assert "key_list" not in read_manifest(LocalStore(whole)).identity.data


def test_a_limit_takes_the_first_listed_and_grows(shards: Path, tmp_path: Path) -> None:
    keys = ["b", "c", "both"]
    run = publish_all(fields_of(shards, tmp_path / "run", keys=keys, limit=2))
    assert images(run) == [("s0.tar", "b"), ("s0.tar", "both")]
    assert found(run) == ([], [])
    publish_all(fields_of(shards, run, keys=keys))
    assert found(run) == ([], [])
    assert images(run) == [("s0.tar", "b"), ("s0.tar", "both"), ("s1.tar", "both"), ("s1.tar", "c")]
    other = refused(fields_of(shards, run, keys=["b"]))
    assert "holds another run" in other


def test_verify_finds_images_of_another_list_and_says_when_the_file_changed(shards: Path, tmp_path: Path) -> None:
    list_file = tmp_path / "k.txt"
    list_file.write_text("a\nc\n")
    run = publish_all(fields_of(shards, tmp_path / "run", keys=str(list_file)))
    assert found(run) == ([], [])
    list_file.write_text("a\n")
    problems, notes = found(run)
    assert problems == []
    assert "has changed since the run began; so the number of images was checked" in notes[0]
    list_file.unlink()
    assert "No such file" in found(run)[1][0]
    list_file.write_text("c\na\n")
    other = publish_all(fields_of(shards, tmp_path / "other", keys=["b", "c", "both"], limit=2))
    manifest = read_manifest(LocalStore(run))
    assert manifest.images == (1, 1)
    shutil.rmtree(run / RECEIPTS)
    for part in other.glob("part-00000-*"):
        (run / part.name).write_bytes(part.read_bytes())
    problems = found(run)[0]
    assert any("holds 2 images that are not in data.keys, for example 'b'" in problem for problem in problems)
    assert any("shard 0 (s0.tar): 2 images, but 1 of data.keys are in it" in problem for problem in problems)


def test_lists_that_cannot_be_meant_are_refused_with_all_other_mistakes(shards: Path, tmp_path: Path) -> None:
    fields = fields_of(shards, tmp_path / "run", keys=str(tmp_path / "none.csv"))
    told = refused({**fields, "model": {**fields["model"], "name": "nowhere:net"}})
    assert "data.keys: cannot read" in told
    assert "model.name" in told
    assert "no image is in this list of 1 key, such as 'zzz'" in refused(
        fields_of(shards, tmp_path / "r", keys=["zzz"])
    )
