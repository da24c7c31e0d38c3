"""Count the requests of a run to an object store: `python tests/count_requests.py [SHARDS] [IMAGES] [CHUNK]`.

Shards of demo images and the run folder are on a local S3 server, behind a proxy that counts. Two runs with different
numbers of shards give the requests of a run and of each further shard. Prints a table in Markdown.
"""

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import yaml
from faults.s3 import BUCKET, Proxy, s3_server
from faults.s3_environment import environment

from pipeline.demo.data import run_file, write_demo
from pipeline.storage.object_store import ObjectStore

KINDS = ("LIST", "HEAD", "GET", "PUT", "POST")


def kind_of(verb: str, path: str) -> tuple[str, str]:
    """Return the purpose of a request and its kind, one of KINDS."""
    name = path.partition("?")[0].rpartition("/")[2]
    if verb == "GET" and "list-type" in path:
        return "listing the run folder" if "run" in path else "listing the shards", "LIST"
    if name.endswith(".tar"):
        return "shards", verb
    if "_receipts" in path:
        return "receipts", verb
    return "parts" if name.startswith("part-") else "manifest, and the proof of put-if-absent", verb


def counted(proxy: Proxy, folder: Path, shards: int, chunk: int) -> Counter[tuple[str, str]]:
    """Run `camatlas explain` on the first shards; return the number of requests by purpose and kind."""
    fields = run_file(folder)
    pattern = f"s3://{BUCKET}/shards/scenes-{{000..{shards - 1:03d}}}.tar"
    fields["data"] = {"shards": pattern, "chunk_images": chunk}
    fields["explain"] = {"methods": ["gradcam"]}
    fields["output"] = {"path": f"s3://{BUCKET}/run-{shards}"}
    path = folder / "count.yaml"
    path.write_text(yaml.safe_dump(fields), encoding="utf-8")
    proxy.requests.clear()
    command = [sys.executable, "-m", "jobs.cli", "explain", str(path), "--workers", "1"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=Path(__file__).resolve().parent.parent)
    return Counter(kind_of(verb, path) for verb, path, _ in proxy.requests)


def main(shards: int, images: int, chunk: int) -> None:
    """Count the requests of a run of one shard and of a run of all shards, and print the table."""
    with tempfile.TemporaryDirectory() as name, s3_server() as server:
        folder, proxy = Path(name), Proxy(server, lambda _verb, _path: None)
        write_demo(folder, shards * images, images)
        with proxy.running() as url:
            os.environ.update(environment(url))
            store = ObjectStore(f"s3://{BUCKET}/shards")
            for path in sorted((folder / "shards").iterdir()):
                store.publish(path.name, path.read_bytes())
            one, more = (counted(proxy, folder, number, chunk) for number in (1, shards))
    chunks = -(-images // chunk)
    sys.stdout.write(f"{shards} shards of {images} images in {chunks} chunks each\n\n")
    sys.stdout.write(f"| | {' | '.join(KINDS)} |\n|---|{'---|' * len(KINDS)}\n")
    rest = shards - 1
    for what in sorted({what for what, _ in more}):
        cells = [f"{(more[what, k] - one[what, k]) / rest:g} a shard, {one[what, k]} with one" for k in KINDS]
        sys.stdout.write(f"| {what} | {' | '.join(cells)} |\n")


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:4]]
    main(*[*given, *(3, 256, 128)[len(given) :]])
