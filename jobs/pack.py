"""camatlas pack: an image folder becomes webdataset shards."""

from pathlib import Path
from typing import Annotated

import typer

from jobs.console import EXIT_TOO_MANY_FAILURES, command, err, leave_after, out


@command
def pack(
    source: Annotated[str, typer.Argument(help="folder of images, or a CSV file that lists them")],
    dest: Annotated[str, typer.Argument(help="folder for the shards")],
    images_per_shard: Annotated[int, typer.Option(min=1, help="images in one shard")] = 1000,
    classes: Annotated[str | None, typer.Option(help="class table, where labels are names or WordNet ids")] = None,
) -> int:
    """Write webdataset shards from loose images; prints the brace pattern that names them."""
    from pipeline.packing import pack_images

    packed = pack_images(Path(source), Path(dest), images_per_shard, classes)
    for failure in packed.failures:
        err.say(f"left out {failure.key}: {failure.code}, {failure.detail}")
    err.say(f"{packed.images} images in {packed.shards} shards; {len(packed.failures)} left out")
    out.say(packed.pattern)
    return EXIT_TOO_MANY_FAILURES if packed.failures else 0


if __name__ == "__main__":
    leave_after(lambda: typer.run(pack))
