"""camatlas pack: write webdataset shards from an image folder or an official archive."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.support.account import print_account
from jobs.support.console import EXIT_TOO_MANY_FAILURES, command, counted, err, leave_after, out
from pipeline.errors import ConfigError
from pipeline.settings.data import Folders


@command
def pack(
    source: Annotated[
        str, typer.Argument(help="image folder, list of images (as data.manifest), or archive (with --from)")
    ],
    dest: Annotated[str, typer.Argument(help="folder for the shards")],
    images_per_shard: Annotated[int, typer.Option(min=1, help="number of images in one shard")] = 1000,
    classes: Annotated[
        str | None, typer.Option(help="class table; needed when labels are class names or WordNet ids")
    ] = None,
    folders: Annotated[
        Folders, typer.Option(help="whether sub-folders are classes: auto (if that is certain), classes or ignore")
    ] = "auto",
    archive: Annotated[
        str | None, typer.Option("--from", help="read an official archive: imagenet-val, voc2007 or cub200")
    ] = None,
    split: Annotated[str | None, typer.Option(help="split of the archive (with --from), such as train or test")] = None,
) -> int:
    """Write webdataset shards from loose images or an archive; print the brace pattern of their names."""
    from pipeline.data.packing import pack_archive, pack_images

    if archive is None:
        _refuse("--split", split, "needs --from")
        packed = pack_images(Path(source), Path(dest), images_per_shard, classes, folders, print_account)
    else:
        _refuse("--classes", classes, "the archive defines its own classes")
        packed = pack_archive(archive, Path(source), Path(dest), images_per_shard, split)
        err.say(f"wrote the class table {dest}/classes.csv")
    for failure in packed.failures:
        err.say(f"left out {failure.key}: {failure.code}, {failure.detail}")
    err.say(f"{counted(packed.images, 'image')} in {counted(packed.shards, 'shard')}; {len(packed.failures)} left out")
    out.say(packed.pattern)
    return EXIT_TOO_MANY_FAILURES if packed.failures else 0


def _refuse(option: str, value: str | None, why: str) -> None:
    if value is not None:
        raise ConfigError.one(option, why, "leave it out")


if __name__ == "__main__":
    leave_after(lambda: typer.run(pack))
