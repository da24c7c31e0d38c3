"""A folder of images to describe, and how its images are called."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.data.account import LabelAccount
from pipeline.data.account_check import check_matches
from pipeline.data.annotations import describe
from pipeline.data.class_counts import with_counts
from pipeline.data.sources import Reading, Sample, read_shard
from pipeline.data.sources.listing import list_shards
from pipeline.settings.data import DataConfig

Put = Callable[..., Path]
Account = Callable[..., tuple[dict[str, int | None], LabelAccount]]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write files into a folder; the content of each file is its path."""

    def put(folder: str, *names: str) -> Path:
        for name in names:
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(name.encode("utf-8", "surrogateescape"))
        return tmp_path / folder

    return put


@pytest.fixture
def account() -> Account:
    """Return the label of each image as a run reads it, and the account of the run."""

    def account(
        *folders: Path, outputs: int | None = 1000, **settings: str | bool
    ) -> tuple[dict[str, int | None], LabelAccount]:
        data = DataConfig.model_validate({"shards": [str(folder) for folder in folders], **settings})
        shards = list_shards(data.shards)
        described = describe(data, shards, outputs)
        found = with_counts(described, shards)
        check_matches(found, data)
        items = [item for shard in shards for item in read_shard(shard, Reading(described.annotations))]
        several = len(folders) > 1
        labels = {
            f"{item.shard}/{item.key}" if several else item.key: item.label
            for item in items
            if isinstance(item, Sample)
        }
        return labels, found

    return account
