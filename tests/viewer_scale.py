"""Write a run of tiny images without a model, and measure the viewer on it: `python tests/viewer_scale.py DIR IMAGES`.

Prints the time until the address is printed, of the first page, of filters and of tiles, and the server's memory. The
images are JPEGs in tars, the maps random spots of three methods.
"""

import http.client
import io
import os
import re
import signal
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.parse import urlencode

import pyarrow as pa
from big_run import METHODS, METRICS, _rows
from handmade import RunMaker
from scale_run import PICTURES, _picture

from pipeline.data.sources.fingerprint import edges_digest
from pipeline.storage.parts import Footer, publish_part
from schemas.explanation import described, explanation_schema
from schemas.manifest import RunIdentity, RunManifest, ShardEntry

CHUNK, CHUNKS_A_SHARD = 128, 8
FILTERS = (
    {"right": "wrong"}, {"min.insertion": "0.5", "sort": "confidence"},
    {"label": "3", "sort": "deletion", "order": "desc"},
    {"min.confidence": "0.3", "max.confidence": "0.9", "min.increase": "0.4"}, {"key": "77"},
    {"where": "average_drop > 0.5 AND label % 7 = 3"}, {"method": METHODS[1], "max.deletion": "0.2", "right": "right"},
)  # fmt: skip


class TinyRun(RunMaker):
    """A run whose shards are tars of tiny images."""

    @property
    def identity(self) -> RunIdentity:
        shards = tuple(_entry(self.folder.parent / "shards" / name) for name in self.shards)
        data = {"formats": ["JPEG"], "max_pixels": 10_000, "preprocess": {"crop": 48, "resize": None}}
        return super().identity.model_copy(update={"shards": shards, "data": data})

    @property
    def manifest(self) -> RunManifest:
        config = {
            "data": {"shards": str(self.folder.parent / "shards")}, "model": {"name": "torchvision/resnet18"},
            "output": {"path": str(self.folder)},
        }  # fmt: skip
        update = {"config": config, "classes": tuple(f"class {number}" for number in range(1000))}
        return super().manifest.model_copy(update=update)


def _entry(path: Path) -> ShardEntry:
    size = path.stat().st_size
    with path.open("rb") as file:
        return ShardEntry(name=path.name, kind="tar", size=size, fingerprint=edges_digest(file, size))


def write(folder: Path, images: int) -> Path:
    """Write shards and a run over them, one chunk at a time."""
    per_shard = CHUNK * CHUNKS_A_SHARD
    shards = [f"tiny-{number:05d}.tar" for number in range(-(-images // per_shard))]
    (folder / "shards").mkdir(parents=True)
    pictures = [_picture(seed) for seed in range(PICTURES)]
    places = []
    for number, name in enumerate(shards):
        keys = [f"{number:05d}-{place:04d}" for place in range(min(per_shard, images - number * per_shard))]
        places.append(list(_write_tar(folder / "shards" / name, keys, pictures)))
    maker = TinyRun(folder / "run", shards=shards, methods=METHODS[:3], metrics=METRICS).owned()
    run_id = maker.manifest.run_id
    writer = _Fixed(tuple(shards), METHODS[:3], METRICS, explanation_schema([
        described(name, pa.float32(), "", name) for name in sorted(METRICS)]))  # fmt: skip
    for number, in_shard in enumerate(places):
        for chunk in range(-(-len(in_shard) // CHUNK)):
            here = in_shard[chunk * CHUNK : (chunk + 1) * CHUNK]
            table = _placed(_rows(writer, number, len(here)), here, chunk)  # type: ignore[arg-type]
            last = (chunk + 1) * CHUNK >= len(in_shard)
            publish_part(maker.store, table, Footer(run_id, number, chunk, last_chunk=last, images=len(here)))
    return maker.folder


@dataclass(frozen=True)
class _Fixed:
    """What `big_run._rows` reads of a run, computed once."""

    shards: tuple[str, ...]
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    schema: pa.Schema


def _write_tar(path: Path, keys: list[str], pictures: list[bytes]) -> Iterator[tuple[str, int, int]]:
    """Write a tar, and yield key, offset and size of each image."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for place, key in enumerate(keys):
            picture = pictures[place % len(pictures)]
            entry = tarfile.TarInfo(f"{key}.jpg")
            entry.size = len(picture)
            yield key, tar.offset + tarfile.BLOCKSIZE, len(picture)
            tar.addfile(entry, io.BytesIO(picture))


def _placed(table: pa.Table, places: list[tuple[str, int, int]], chunk: int) -> pa.Table:
    """Put the keys and the places of the images into made rows."""
    methods = len(table) // len(places)
    columns = {
        "image_key": [key for key, _, _ in places for _ in range(methods)],
        "chunk": [chunk] * len(table),
        "image_offset": [offset for _, offset, _ in places for _ in range(methods)],
        "image_bytes": [size for _, _, size in places for _ in range(methods)],
        "sample_offset": [offset - tarfile.BLOCKSIZE for _, offset, _ in places for _ in range(methods)],
        "sample_bytes": [size + tarfile.BLOCKSIZE for _, _, size in places for _ in range(methods)],
    }  # fmt: skip
    for name in set(columns) & set(table.column_names):
        place = table.schema.get_field_index(name)
        field = table.schema.field(place)
        table = table.set_column(place, field, pa.array(columns[name], field.type))
    return table


class Visitor:
    """Asks the server as a browser does, over one connection, and measures."""

    def __init__(self, address: str) -> None:
        host, _, self._token = address.removeprefix("http://").partition("/?token=")
        self._connection = http.client.HTTPConnection(host)
        self._cookie = f"camatlas_view_{host.partition(':')[2]}={self._token}"

    def get(self, path: str) -> tuple[float, str]:
        """Return the seconds of a request, and its body."""
        began = time.perf_counter()
        self._connection.request("GET", path, headers={"Cookie": self._cookie})
        answer = self._connection.getresponse()
        body = answer.read()
        assert answer.status == 200, (path, answer.status, body[:500])
        return time.perf_counter() - began, body.decode("utf-8", "replace")


def measure(run: Path) -> None:
    """Start the viewer and print what each thing takes."""
    began = time.perf_counter()
    command = [sys.executable, "-m", "jobs.view", str(run), "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        visitor = Visitor(server.stdout.readline().strip())
        _print("start, until the address is printed", time.perf_counter() - began)
        ticks = sum(map(int, Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
        _print("CPU time of the start", ticks / os.sysconf("SC_CLK_TCK"))
        _print("first page", visitor.get("/")[0])
        _print("the same page again", visitor.get("/")[0])
        for fields in FILTERS:
            _print(f"filter {urlencode(fields)}", visitor.get(f"/?{urlencode(fields)}")[0])
        sources = [unescape(source) for source in re.findall(r'src="(/tile[^"]*)"', visitor.get("/?sort=insertion")[1])]
        times = [visitor.get(source)[0] for source in sources]
        _print(f"{len(times)} tiles in random order, median", statistics.median(times))
        _print(f"{len(times)} tiles in random order, 95 of 100 below", sorted(times)[int(0.95 * len(times))])
        _print("60 tiles in the middle of the grid (HTML)", visitor.get("/tiles?at=50000&count=60")[0])
        _print("classes", visitor.get("/classes")[0])
        status = Path(f"/proc/{server.pid}/status").read_text()
        for name in ("VmRSS", "VmHWM"):
            kilobytes = int(status.partition(f"{name}:")[2].split()[0])
            sys.stdout.write(f"{name:60} {kilobytes / 1000:8.0f} MB\n")
        server.send_signal(signal.SIGINT)
        sys.stdout.write(f"exit code after Ctrl-C: {server.wait(30)}\n")


def _print(what: str, seconds: float) -> None:
    sys.stdout.write(f"{what[:60]:60} {1000 * seconds:8.0f} ms\n")
    sys.stdout.flush()


if __name__ == "__main__":
    folder, images = Path(sys.argv[1]), int(sys.argv[2])
    if not (folder / "run").exists():
        write(folder, images)
    sys.stdout.write(f"load before: {os.getloadavg()[0]:.1f}\n")
    measure(folder / "run")
