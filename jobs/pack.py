"""camatlas pack: an image folder, or an official archive, becomes webdataset shards."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.support.console import EXIT_TOO_MANY_FAILURES, command, err, leave_after, out
from pipeline.errors import ConfigError


@command
def pack(
    source: Annotated[str, typer.Argument(help="folder of images, a CSV file that lists them, or an archive")],
    dest: Annotated[str, typer.Argument(help="folder for the shards")],
    images_per_shard: Annotated[int, typer.Option(min=1, help="images in one shard")] = 1000,
    classes: Annotated[str | None, typer.Option(help="class table, where labels are names or WordNet ids")] = None,
    archive: Annotated[str | None, typer.Option("--from", help="imagenet-val, voc2007 or cub200, as published")] = None,
    split: Annotated[str | None, typer.Option(help="with --from: test (where there is one), train, ...")] = None,
) -> int:
    """Write webdataset shards from loose images or an archive; prints the brace pattern that names them."""
    from pipeline.data.packing import pack_archive, pack_images

    if archive is None:
        _refuse("--split", split, "goes with --from")
        packed = pack_images(Path(source), Path(dest), images_per_shard, classes)
    else:
        _refuse("--classes", classes, "the archive says its classes itself")
        packed = pack_archive(archive, Path(source), Path(dest), images_per_shard, split)
        err.say(f"its classes are in {dest}/classes.csv")
    for failure in packed.failures:
        err.say(f"left out {failure.key}: {failure.code}, {failure.detail}")
    err.say(f"{packed.images} images in {packed.shards} shards; {len(packed.failures)} left out")
    out.say(packed.pattern)
    return EXIT_TOO_MANY_FAILURES if packed.failures else 0


def _refuse(option: str, given: str | None, why: str) -> None:
    if given is not None:
        raise ConfigError.one(option, why, "leave it out")


if __name__ == "__main__":
    leave_after(lambda: typer.run(pack))
