"""deploy/kubernetes/ray.yaml: a standing cluster without an operator; valid, and changes for the worse are found."""

import copy
import json
import re
from collections.abc import Iterator

import pytest
import yaml
from unit.deploy.manifests import DEPLOY, Object, schema_errors, set_at
from unit.deploy.pod_rules import Pod, pod_errors

RUN_WORKERS: int = yaml.safe_load((DEPLOY / "imagenet-val.yaml").read_text(encoding="utf-8"))["compute"]["workers"]
HEAD, WORKERS, SERVICE = "camatlas-head", "camatlas-workers", "camatlas-ray"
POD = "spec.template.spec"
REMOVED = None
OF_DEPLOYMENTS = ("restartPolicy must be Never", "only the head, for its autoscaler")
"""Rules for pods of KubeRay alone: a Deployment starts pods again, and there is no autoscaler."""


def load() -> dict[str, Object]:
    """Load the objects by their names; YAML anchors are expanded."""
    objects = yaml.safe_load_all((DEPLOY / "kubernetes" / "ray.yaml").read_text(encoding="utf-8"))
    loaded: dict[str, Object] = json.loads(json.dumps({each["metadata"]["name"]: each for each in objects}))
    return loaded


def broken(objects: dict[str, Object]) -> list[str]:
    """List everything that is wrong."""
    wrong = [f"{name}: {error}" for name, each in objects.items() for error in schema_errors(each)]
    if wrong:
        return wrong
    for name, role in ((HEAD, "head"), (WORKERS, "worker")):
        wrong += [f"{name}: {error}" for error in of_deployment(objects[name], role)]
    head, workers, service = (objects[name]["spec"] for name in (HEAD, WORKERS, SERVICE))
    command = head["template"]["spec"]["containers"][0]["command"]
    address = f"--address={SERVICE}:6379"
    checks = {
        "the head takes tasks": "--num-cpus=0" in command,
        "the dashboard is open": "--dashboard-host=127.0.0.1" in command,
        "there may be two heads": head["replicas"] == 1 and head.get("strategy") == {"type": "Recreate"},
        "too few GPUs for the run file": workers["replicas"] >= RUN_WORKERS,
        "workers do not find the head": address in workers["template"]["spec"]["containers"][0]["command"]
        and service["selector"] == head["selector"]["matchLabels"],
        "the head can be reached from outside": service.get("type") == "ClusterIP",
    }
    return wrong + [error for error, fine in checks.items() if not fine]


def of_deployment(each: Object, role: str) -> Iterator[str]:
    """Yield what is wrong with a deployment of pods of one role."""
    template = copy.deepcopy(each["spec"]["template"])
    if each["metadata"]["namespace"] != "camatlas":
        yield "outside the namespace that base.yaml closes"
    if each["spec"]["selector"]["matchLabels"] != {"camatlas/role": role}:
        yield "the deployment does not select its pods"
    container = template["spec"]["containers"][0]
    secret = [variable for variable in container["env"] if "secretKeyRef" in variable.get("valueFrom", {})]
    if [variable["name"] for variable in secret] != ["RAY_AUTH_TOKEN"]:
        yield "the token must come from a Secret"
    if {"name": "RAY_AUTH_MODE", "value": "token"} not in container["env"]:
        yield "no token is required"
    container["env"] = [variable for variable in container["env"] if variable not in secret]
    options = dict(re.findall(r"--([\w-]+)=(\S+)", " ".join(container["command"])))
    for error in pod_errors(Pod(role, template, options)):
        if not error.startswith(OF_DEPLOYMENTS):
            yield error


WORSE = [
    (HEAD, "spec.replica", 1, "replica"),
    (HEAD, "spec.replicas", 2, "two heads"),
    (HEAD, "spec.strategy", {"type": "RollingUpdate"}, "two heads"),
    (HEAD, "metadata.namespace", "default", "namespace"),
    (HEAD, f"{POD}.containers.0.command.5", "--num-cpus=4", "takes tasks"),
    (HEAD, f"{POD}.containers.0.command.7", "--dashboard-host=0.0.0.0", "dashboard is open"),
    (HEAD, f"{POD}.containers.0.env.0", {"name": "RAY_AUTH_MODE", "value": "disabled"}, "no token"),
    (HEAD, f"{POD}.containers.0.env.1", {"name": "RAY_AUTH_TOKEN", "value": "a"}, "from a Secret"),
    (HEAD, f"{POD}.securityContext.runAsNonRoot", False, "root"),
    (HEAD, f"{POD}.nodeSelector", {"eks.amazonaws.com/capacityType": "SPOT"}, "on demand"),
    (WORKERS, "spec.replicas", 7, "too few GPUs"),
    (WORKERS, "spec.selector.matchLabels", {"camatlas/role": "head"}, "select its pods"),
    (WORKERS, f"{POD}.containers.0.command.3", "--address=elsewhere:6379", "do not find the head"),
    (WORKERS, f"{POD}.containers.0.image", "REGISTRY/camatlas:latest", "image"),
    (WORKERS, f"{POD}.containers.0.securityContext.readOnlyRootFilesystem", False, "root file system"),
    (WORKERS, f"{POD}.volumes.2.emptyDir.sizeLimit", "5Gi", "/dev/shm"),
    (WORKERS, f"{POD}.containers.0.lifecycle", REMOVED, "preStop"),
    (SERVICE, "spec.type", "LoadBalancer", "from outside"),
    (SERVICE, "spec.selector", {"camatlas/role": "worker"}, "do not find the head"),
]


def test_the_manifests_follow_the_rules() -> None:
    assert broken(load()) == []


@pytest.mark.parametrize(("where", "path", "value", "error"), WORSE)
def test_a_change_for_the_worse_is_found(where: str, path: str, value: object, error: str) -> None:
    errors = broken(set_at(load(), where, path, value))
    assert any(error in each for each in errors), errors
