"""Refuses a dataset whose account shows that labels or boxes cannot be what the user means."""

from pipeline.data.account import LabelAccount
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
    inside = account.inside
    if (
        data.require_labels
        and data.labels is None
        and inside
        and inside.labels < (seen := inside.images - inside.blind)
    ):
        raise ConfigError.one(
            "data.require_labels",
            f"{seen - inside.labels} of the first {seen} images in the shards have no label",
            "name a file of labels in data.labels, or leave require_labels out",
        )
    if data.require_labels and account.images > account.labelled:
        raise ConfigError.one(
            "data.require_labels",
            f"{account.images - account.labelled} of {account.images} images have no label",
            "complete the label file, or leave require_labels out",
        )
