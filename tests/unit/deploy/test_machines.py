"""deploy/ray-cluster.yaml: the launcher's schema, which ships with Ray, and our own rules."""

import json
import re
from importlib.resources import files
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from ray.autoscaler._private.util import prepare_config, validate_config
from unit.deploy.manifests import DEPLOY

TEXT = (DEPLOY / "ray-cluster.yaml").read_text(encoding="utf-8")
SCHEMA = json.loads(files("ray.autoscaler").joinpath("ray-schema.json").read_text(encoding="utf-8"))
RUN_WORKERS: int = yaml.safe_load((DEPLOY / "imagenet-val.yaml").read_text(encoding="utf-8"))["compute"]["workers"]


def broken(text: str) -> list[str]:
    """List what is wrong with a cluster file."""
    cluster: dict[str, Any] = yaml.safe_load(text)
    errors = [error.message for error in Draft7Validator(SCHEMA).iter_errors(cluster)]
    if errors:
        return errors
    head = cluster["available_node_types"][cluster["head_node_type"]]
    groups = {name: each for name, each in cluster["available_node_types"].items() if each is not head}
    opened = cluster["provider"].get("security_group", {}).get("IpPermissions", [])
    heads, workers = (" ".join(cluster[f"{role}_start_ray_commands"]) for role in ("head", "worker"))
    checks = {
        "the head is a spot machine": "InstanceMarketOptions" not in head["node_config"],
        "the head takes tasks": head["resources"].get("CPU") == 0 and "--num-cpus=0" in heads,
        "workers are on demand": all(
            each["node_config"].get("InstanceMarketOptions") == {"MarketType": "spot"} for each in groups.values()
        ),
        "workers stay when they are idle": all(each["min_workers"] == 0 for each in groups.values()),
        "too few GPUs for the run file": min(
            cluster["max_workers"],
            sum(each["max_workers"] * each["resources"].get("GPU", 0) for each in groups.values()),
        )
        >= RUN_WORKERS,
        "the dashboard is open": "--dashboard-host=127.0.0.1" in heads,
        "no token is required": all("RAY_AUTH_MODE=token ray start" in each for each in (heads, workers)),
        "the token is not copied to the machines": any(
            path.endswith("/.ray/auth_token") for path in cluster["file_mounts"]
        ),
        "more than SSH is open": [(each["FromPort"], each["ToPort"]) for each in opened] == [(22, 22)],
        "SSH is open to everybody": "/0" not in json.dumps(opened),
        "the machine's metadata answers without a token": all(
            each["node_config"].get("MetadataOptions", {}).get("HttpTokens") == "required"
            for each in cluster["available_node_types"].values()
        ),
        "disks are not encrypted": all(
            disk["Ebs"].get("Encrypted") is True
            for each in cluster["available_node_types"].values()
            for disk in each["node_config"]["BlockDeviceMappings"]
        ),
        "the container has too many rights": {"--user=1000:1000", "--cap-drop=ALL", "--security-opt=no-new-privileges"}
        <= set(cluster["docker"]["run_options"]),
        "the object store does not fit": all(
            _store(commands) < _shared(cluster["docker"][f"{role}_run_options"])
            for role, commands in (("head", heads), ("worker", workers))
        ),
        "it contains a secret": not re.search(r"AKIA|aws_secret|-----BEGIN|password", text, re.IGNORECASE),
    }
    return [name for name, good in checks.items() if not good]


def _store(commands: str) -> int:
    return int(re.findall(r"--object-store-memory=(\d+)", commands)[0])


def _shared(options: list[str]) -> int:
    (size,) = [option.removeprefix("--shm-size=") for option in options if option.startswith("--shm-size=")]
    return int(size[:-1]) * {"m": 2**20, "g": 2**30}[size[-1]]


MUTANTS = [
    ("cluster_name: camatlas", "cluster: camatlas", ""),
    ("max_workers: 8\nupscaling", "max_workers: -8\nupscaling", ""),
    ("cache_stopped_nodes: false", 'cache_stopped_nodes: "no"', ""),
    ("pull_before_run: true", "pull_before_start: true", ""),
    ("resources: {CPU: 8, GPU: 1}", "resources: {CPU: 8, GPU: 1.5}", ""),
    ("head_start_ray_commands:", "head_start_commands:", ""),
    ("    node_config: &machine", "    node_configuration: &machine", ""),
    ("resources: {CPU: 0}", "resources: {CPU: 4}", "takes tasks"),
    ("      InstanceMarketOptions: {MarketType: spot}\n", "", "on demand"),
    ("    min_workers: 0\n    max_workers: 8", "    min_workers: 2\n    max_workers: 8", "stay"),
    ("    min_workers: 0\n    max_workers: 8", "    min_workers: 0\n    max_workers: 4", "too few GPUs"),
    ("--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "dashboard"),
    ("RAY_AUTH_MODE=token ray start --head", "ray start --head", "no token is required"),
    ("/home/camatlas/.ray/auth_token: ~/.ray/auth_token", "/tmp/a: b", "not copied"),
    ("ToPort: 22", "ToPort: 10000", "more than SSH"),
    ("ADDRESS/32", "0.0.0.0/0", "everybody"),
    ("HttpTokens: required", "HttpTokens: optional", "metadata"),
    ("Encrypted: true", "Encrypted: false", "encrypted"),
    ("    - --cap-drop=ALL\n", "", "too many rights"),
    ("--shm-size=7g", "--shm-size=6g", "does not fit"),
]


def test_the_cluster_file_follows_the_rules() -> None:
    assert broken(TEXT) == []


@pytest.mark.parametrize(("old", "new", "rule"), MUTANTS)
def test_a_worse_cluster_is_found(old: str, new: str, rule: str) -> None:
    assert TEXT.count(old) == 1
    errors = broken(TEXT.replace(old, new))
    assert any(rule in error for error in errors)
    assert rule or Draft7Validator(SCHEMA).is_valid(yaml.safe_load(TEXT.replace(old, new))) is False


def test_the_launcher_accepts_the_file_and_adds_nothing() -> None:
    cluster = yaml.safe_load(TEXT)
    prepared = prepare_config(yaml.safe_load(TEXT))
    validate_config(prepared)
    assert {name: value for name, value in prepared.items() if value and name not in cluster} == {}
    assert not any(prepared[f"{when}setup_commands"] for when in ("", "head_", "worker_"))
    bare = prepare_config({name: value for name, value in cluster.items() if not name.endswith("setup_commands")})
    assert "pip install" in " ".join(bare["head_setup_commands"])  # which is why the file has those empty lists
