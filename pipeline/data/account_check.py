"""Refuses a dataset whose account shows that labels or boxes cannot be what the user means."""

from collections.abc import Mapping

from pipeline.data.account import LabelAccount
from pipeline.data.sources.annotations import AnnotationFile
from pipeline.errors import ConfigError
from pipeline.settings.data import DataConfig


def check_matches(account: LabelAccount, data: DataConfig) -> None:
    """Refuse a file none of whose rows applies to an image, and missing labels if the run file demands all of them.

    Raises:
        ConfigError: with the names that were compared.
    """
    for file in account.files:
        if file.rows and file.images and not file.matched:
            images = ", ".join(f"'{name}'" for name in file.unmatched_images)
            rows = ", ".join(f"'{name}'" for name in file.unused_rows)
            raise ConfigError.one(
                f"data.{file.kind}",
                f"no row of '{file.path}' matches an image: its rows are called {rows}, the images {images}",
                "write the paths of the images into the file, or base names that only one image has",
            )
    if data.require_labels:
        _check_labels(account, data)


def _check_labels(account: LabelAccount, data: DataConfig) -> None:
    """Raise ConfigError if an image is known to have no label."""
    inside = account.inside
    seen = inside.images - inside.blind if inside else 0
    if inside and data.labels is None and inside.labels < seen:
        raise ConfigError.one(
            "data.require_labels",
            f"{seen - inside.labels} of the first {seen} images in the shards have no label",
            "name a file of labels in data.labels, or leave require_labels out",
        )
    if account.images > account.labelled:
        raise ConfigError.one(
            "data.require_labels",
            f"{account.images - account.labelled} of {account.images} images have no label",
            "complete the label file, or leave require_labels out",
        )


def refuse_shared_rows(file: AnnotationFile, row_of: Mapping[str, str]) -> None:
    """Raise ConfigError if one row applies to several images, such as `0.jpg` to `a/0` and `b/0` of a tar.

    Args:
        file: the file of labels or boxes.
        row_of: the row of each image.
    """
    first: dict[str, str] = {}
    for key, row in row_of.items():
        if first.setdefault(row, key) != key:
            raise ConfigError.one(
                f"data.{file.kind}",
                f"'{file.path}': the row '{row}' applies to several images, such as '{first[row]}' and '{key}'",
                "write the paths of the images into the file",
            )
