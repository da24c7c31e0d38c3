"""verify repeats the label account of run.json, and finds rows that contradict it."""

from dataclasses import replace
from pathlib import Path

import pytest
from handmade import PARTS, RunMaker
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.data.account import ClassCount, LabelAccount
from pipeline.results.verify import verify
from pipeline.storage.ownership import take_ownership
from pipeline.storage.parts import publish_part

DOGS = 3
"""Explained images with the label 1; another explained image has none, and one image failed."""


def run_of(folder: Path, account: LabelAccount | None, kind: str = "folder") -> RunMaker:
    """Write a run whose labels were known before the work."""
    maker = RunMaker(folder)
    shards = tuple(shard.model_copy(update={"kind": kind}) for shard in maker.identity.shards)
    manifest = maker.manifest.model_copy(
        update={
            "identity": maker.identity.model_copy(update={"shards": shards}),
            "account": None if account is None else account.to_json(),
        }
    )
    take_ownership(maker.store, manifest)
    for part in PARTS:
        publish_part(maker.store, maker.table(part), maker.footer(part, run_id=manifest.run_id))
    return maker


def account_with(dogs: int, cats: int = 0, unlabelled: int = 1) -> LabelAccount:
    classes = (ClassCount(0, "cat", "", cats), ClassCount(1, "dog", "", dogs))
    return LabelAccount(dogs + cats + unlabelled, dogs + cats, classes=classes)


@pytest.mark.parametrize("dogs", [DOGS, DOGS + 1, 50])
def test_rows_that_fit_the_account_are_verified(tmp_path: Path, dogs: int) -> None:
    findings = verify(run_of(tmp_path / "run", account_with(dogs)).store)
    assert findings.problems == []
    assert findings.account[1].startswith("classes   0 cat: 0 images")


def test_more_images_of_a_class_than_were_known_are_a_contradiction(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", account_with(DOGS - 1, cats=1))
    assert verify(run.store).problems == [
        f"{DOGS} images have labels that contradict the label account of run.json, for example {DOGS} of class 1 "
        f"(dog), where the account has {DOGS - 1}"
    ]
    ended = CliRunner().invoke(app, ["verify", str(run.folder)])
    assert ended.exit_code == 4
    assert ended.stderr.startswith("labels    3 of 4 images have a label\n")


def test_status_says_what_images_are_called(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", account_with(DOGS))
    told = "3 of 4 images have a label; 2 classes, such as 0 cat"
    assert f"  labels: {told}\n" in CliRunner().invoke(app, ["status", str(run.folder)]).stdout


def test_images_that_lost_their_label_are_a_contradiction(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", account_with(DOGS + 2, unlabelled=0))
    assert verify(run.store).problems == [
        "1 images have no label, but by the label account of run.json only 0 have none"
    ]


def test_the_row_of_an_image_with_several_labels_has_none(tmp_path: Path) -> None:
    account = replace(account_with(DOGS + 2, unlabelled=0), several=1)
    assert verify(run_of(tmp_path / "run", account).store).problems == []


def test_labels_of_a_manifest_were_known(tmp_path: Path) -> None:
    assert len(verify(run_of(tmp_path / "run", account_with(0), kind="manifest").store).problems) == 1


def test_labels_inside_of_shards_were_not_known(tmp_path: Path) -> None:
    assert verify(run_of(tmp_path / "run", account_with(0), kind="tar").store).problems == []


def test_runs_of_earlier_versions_have_no_account(tmp_path: Path) -> None:
    findings = verify(run_of(tmp_path / "run", None).store)
    assert (findings.problems, findings.account) == ([], [])
