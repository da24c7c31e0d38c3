"""Measure the driver of a run over very many small shards: `python tests/scale_run.py DIR SHARDS IMAGES`.

Prints the rate, and the memory and CPU time of the driver's process, for each tenth of the run.
"""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from webdataset import ShardWriter

from pipeline.bench.memory import anonymous_megabytes
from pipeline.demo.data import run_file

SIDE, PICTURES = 48, 16
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measurement:
    """State of the driver at one moment: images done, seconds since the start, CPU seconds and megabytes so far."""

    images: int
    seconds: float
    cpu_seconds: float
    megabytes: float


def write_shards(folder: Path, shards: int, images: int) -> Path:
    """Write shards of tiny images with unique keys, and a run file with one chunk per shard."""
    pictures = [_picture(seed) for seed in range(PICTURES)]
    (folder / "shards").mkdir(parents=True, exist_ok=True)
    with ShardWriter(f"{folder}/shards/tiny-%05d.tar", maxcount=images, verbose=0, mtime=0) as writer:
        for index in range(shards * images):
            writer.write({"__key__": f"tiny_{index:07d}", "jpg": pictures[index % PICTURES]})
    fields = run_file(folder)
    fields["data"] = {"shards": f"{folder}/shards", "chunk_images": images}
    fields["explain"] = {"methods": ["gradcam"], "targets": "predicted"}
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump(fields), encoding="utf-8")
    return path


def _picture(seed: int) -> bytes:
    pixels_HWC = np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels_HWC).save(file, "JPEG", quality=80)
    return file.getvalue()


def measurements(path: Path) -> Iterator[Measurement]:
    """Start a run, and measure its driver at each progress event."""
    began = time.monotonic()
    command = [sys.executable, "-m", "jobs.explain", str(path), "--json"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as driver:
        assert driver.stderr is not None
        for line in driver.stderr:
            event = json.loads(line) if line.startswith("{") else {}
            if event.get("event") == "progress":
                cpu = sum(map(int, Path(f"/proc/{driver.pid}/stat").read_text().rpartition(")")[2].split()[11:13]))
                now = time.monotonic() - began
                yield Measurement(event["images"], now, cpu / _TICKS, anonymous_megabytes(driver.pid))
    assert driver.returncode == 0, f"the run ended with {driver.returncode}"


def main() -> None:
    """Write the shards if they are missing, start the run, and print the table."""
    folder, shards, images = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    path = folder / "run.yaml"
    if not path.exists():
        write_shards(folder, shards, images)
    tenths, before = 0, Measurement(0, 0.0, 0.0, 0.0)
    sys.stdout.write("images     images/s  driver CPU ms/chunk  driver MB\n")
    for now in measurements(path):
        if now.images < (tenths + 1) * shards * images / 10:
            continue
        tenths = now.images * 10 // (shards * images)
        done, seconds = now.images - before.images, now.seconds - before.seconds
        cpu = 1000 * (now.cpu_seconds - before.cpu_seconds) / done * images
        sys.stdout.write(f"{now.images:7d} {done / seconds:11.0f} {cpu:20.2f} {now.megabytes:10.0f}\n")
        sys.stdout.flush()
        before = now


if __name__ == "__main__":
    main()
