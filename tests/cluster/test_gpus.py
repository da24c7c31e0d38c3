"""Ray gives each worker its GPU, its share of one, or its MIG slice; the GPUs are only names."""

import json
import os
import subprocess
import sys

import pytest

CODE = """
import json, os, sys, ray
from pipeline.run.dataflow import _actor_options

ray.init("local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=0)
class Worker:
    def sees(self):
        return os.environ["CUDA_VISIBLE_DEVICES"]

for share, count in ((1.0, 2), (0.5, 4)):
    workers = [Worker.options(**_actor_options("cuda", count, share)).remote() for _ in range(count)]
    print(json.dumps(sorted(ray.get([worker.sees.remote() for worker in workers]))), flush=True)
    del workers
"""


@pytest.mark.campaign
@pytest.mark.timeout(300)
@pytest.mark.parametrize("names", [["0", "1"], ["MIG-a", "MIG-b"]])
def test_workers_see_one_gpu_each_or_share_it_in_pairs(names: list[str]) -> None:
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(names)}
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=env, capture_output=True, text=True, timeout=240, check=True
    )
    whole, shared = map(json.loads, done.stdout.splitlines())
    assert whole == names
    assert shared == sorted([*names, *names])
