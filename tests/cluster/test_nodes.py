"""Runs on several nodes: workers are spread, nodes are lost and join during the run, the head is lost."""

from pathlib import Path

import pytest
from cluster.simulated import driving, simulated, wait_for_actors, wait_for_parts
from e2e.runs import Settings, table_of, write_run_file
from faults.checker import check
from faults.harness import Watcher, finish

from pipeline.demo.data import run_file, write_demo
from pipeline.results.verify import verify
from pipeline.storage.local_store import LocalStore

SCENES, WORKERS = 84, 3

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def a_run(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a run of seven shards of twelve scenes, in chunks of three, with a slow method."""
    if not (folder / "shards").exists():
        write_demo(folder, scenes=SCENES, scenes_per_shard=12)
    fields: Settings = run_file(folder)
    fields["data"]["chunk_images"] = 3
    fields["explain"] = {"methods": ["gradcam", {"rise": {"num_masks": 100}}], "targets": "predicted"}
    fields["compute"] = {"workers": WORKERS, "stall_seconds": 120}
    fields["output"] = {"path": str(folder / name)}
    return write_run_file(fields, folder / f"{name}.yaml"), folder / name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the dataset and an undisturbed run on one machine."""
    folder = tmp_path_factory.mktemp("cluster")
    assert finish(a_run(folder, "undisturbed")[0]) == 0
    return folder


def assert_whole(run: Path, folder: Path) -> None:
    assert check(run, images=SCENES, methods=2) == []
    assert verify(LocalStore(run)).problems == []
    assert table_of(run).equals(table_of(folder / "undisturbed"))


@pytest.mark.campaign
def test_a_node_is_lost_and_another_joins_in_the_middle_of_a_run(folder: Path) -> None:
    path, run = a_run(folder, "lost-node")
    with simulated(4) as cluster, Watcher(run) as watcher, driving(path, cluster.address) as driver:
        wait_for_parts(run, 4, driver)
        nodes = wait_for_actors(cluster, WORKERS, driver)
        assert len(set(nodes)) == len(nodes) == WORKERS  # one actor per GPU
        cluster.lose_node(nodes[0])
        wait_for_parts(run, 10, driver)
        cluster.lose_node(next(node for node in cluster.actor_nodes() if node != nodes[0]))  # two of four are left
        cluster.add_node()
        errors = driver.communicate(timeout=300)[1]
    assert driver.returncode == 0, errors[-3000:]
    assert watcher.breaches == []
    assert_whole(run, folder)


@pytest.mark.campaign
def test_the_head_is_lost_and_the_same_command_finishes_on_a_new_cluster(folder: Path) -> None:
    path, run = a_run(folder, "lost-head")
    with simulated(2) as cluster, driving(path, cluster.address) as driver:
        wait_for_parts(run, 4, driver)
        cluster.lose_head()
        errors = driver.communicate(timeout=120)[1]
    assert driver.returncode not in (0, None), errors
    assert check(run) == []
    kept = {part.name: part.stat().st_mtime_ns for part in run.glob("part-*.parquet")}
    with simulated(2) as cluster, driving(path, cluster.address) as driver:
        errors = driver.communicate(timeout=300)[1]
    assert driver.returncode == 0, errors[-3000:]
    assert {name: (run / name).stat().st_mtime_ns for name in kept} == kept  # no finished part was written again
    assert_whole(run, folder)
