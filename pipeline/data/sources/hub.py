"""Datasets of the Hugging Face hub, `hf://datasets/OWNER/NAME@REVISION/SPLIT`: fetched into the local cache, then read.

The files of the repository are read as they are, by our own readers. No code of a repository is run.
"""

import glob
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.data.sources.fingerprint import kind_of
from pipeline.data.sources.splits import by_split, chosen_split
from pipeline.errors import ConfigError, StoreError, first_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PREFIX = "hf://"
_WHERE = "data.shards"
_FORM = "hf://datasets/OWNER/NAME@REVISION/SPLIT; the revision and the split may be left out"
_SPEC = re.compile(r"hf://datasets/(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.-]+))?(?:/(?P<split>[\w.-]+))?/?")


def fetched(spec: str, split: str | None) -> list[Path]:
    """Fetch one split of a dataset into the cache of the library, and return its files, or its folder of images.

    Args:
        spec: `hf://datasets/OWNER/NAME@REVISION/SPLIT`.
        split: `data.split`, if the URL names none.

    Raises:
        ConfigError: the URL is not of this form, the library is missing, or there is no such dataset or split.
        StoreError: the hub cannot be reached.
    """
    parts = _SPEC.fullmatch(spec)
    if parts is None:
        raise ConfigError.one(_WHERE, f"'{spec}' is not the URL of a dataset", _FORM)
    try:
        from huggingface_hub import HfApi  # imported on demand, because it is optional
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
    except ImportError:
        raise ConfigError.one(_WHERE, f"'{spec}' needs huggingface-hub", "pip install 'camatlas[hf]'") from None
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
    try:
        return _files(api, spec, parts["name"], parts["revision"], parts["split"] or split)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        hint = "check its name and revision; a private one needs the token of an account: HF_TOKEN"
        raise ConfigError.one(_WHERE, f"'{spec}': the hub has no such dataset, or it is private", hint) from None
    except ConfigError:
        raise
    except Exception as error:  # errors of the network have another type in each version of the library
        raise StoreError(
            f"cannot fetch {spec}: {first_line(error)}. Finished chunks are kept. Check that the hub can be reached, "
            "then run the same command again."
        ) from None


def _files(api: "HfApi", spec: str, name: str, revision: str | None, split: str | None) -> list[Path]:
    """Choose the files before they are fetched: a repository may be larger than the disk."""
    facts = api.dataset_info(name, revision=revision)
    names = [Path(file.rfilename) for file in facts.siblings or ()]
    shards = [path for path in names if kind_of(path.name) and not path.name.startswith(".")]
    splits = by_split(shards)
    wanted = shards
    if splits and (split is not None or len(splits) > 1):
        wanted = splits[chosen_split(spec, {each: len(paths) for each, paths in splits.items()}, split)]
    elif split is not None and shards:
        raise ConfigError.one("data.split", f"'{spec}' has no split '{split}'", "no file is named after a split")
    cache = os.environ.get("HF_HUB_CACHE")
    patterns = [glob.escape(path.as_posix()) for path in wanted] or None
    folder = Path(
        api.snapshot_download(name, repo_type="dataset", revision=facts.sha, allow_patterns=patterns, cache_dir=cache)
    )
    return [folder / path for path in sorted(wanted)] or [folder if split is None else folder / split]
