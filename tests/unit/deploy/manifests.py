"""Helpers to read the Kubernetes manifests, check them against their schemas, and change a copy of them."""

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from referencing import Registry

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
KUBERAY = Path(__file__).parent / "kuberay-v1.json"
KUBERNETES = "v1.37.0-local-strict"
"""Strict: fields that the schema does not list are refused, so that a typo fails."""

Object = dict[str, Any]
Manifests = dict[str, Object]
"""Keyed by file and kind, and name if a kind occurs more than once: `rayjob/RayJob`, `base/NetworkPolicy/closed`."""


def load() -> Manifests:
    """Load all objects of deploy/kuberay; YAML anchors are expanded, so that each place can be changed alone."""
    loaded: Manifests = json.loads(_loaded())
    return loaded


@cache
def _loaded() -> str:
    manifests: Manifests = {}
    for path in sorted((DEPLOY / "kuberay").glob("*.yaml")):
        objects = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
        kinds = [each["kind"] for each in objects]
        for each in objects:
            name = f"{path.stem}/{each['kind']}"
            manifests[name if kinds.count(each["kind"]) == 1 else f"{name}/{each['metadata']['name']}"] = each
    return json.dumps(manifests)


def changed(where: str, path: str, value: object = None) -> Manifests:
    """Copy the manifests and set a value at a dotted path of one object; None deletes the key, ~ stands for a dot."""
    return set_at(load(), where, path, value)


def set_at(objects: Manifests, where: str, path: str, value: object = None) -> Manifests:
    """Set a value at a dotted path of one of the objects, or delete the key, and return them."""
    *folders, last = [int(step) if step.isdigit() else step.replace("~", ".") for step in path.split(".")]
    place: Any = objects[where]
    for step in folders:
        place = place[step]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return objects


def schema_errors(each: Object) -> list[str]:
    """List the violations of the schema of an object's kind; a kind without a schema is a mistake."""
    reference = _SCHEMAS.get((each.get("apiVersion", ""), each.get("kind", "")))
    if reference is None:
        return [f"no schema for {each.get('apiVersion')} {each.get('kind')}"]
    validator = Draft202012Validator({"$ref": reference}, registry=_registry())
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(each)]


_CORE = "https://kubernetes.io/api/_definitions.json"
_LOCAL = "https://kubernetes.io/api/kuberay-v1.json"
_SCHEMAS = {
    ("ray.io/v1", "RayJob"): f"{_LOCAL}#/$defs/RayJob",
    ("ray.io/v1", "RayCluster"): f"{_LOCAL}#/$defs/RayCluster",
    ("monitoring.coreos.com/v1", "PodMonitor"): f"{_LOCAL}#/$defs/PodMonitor",
    ("apps/v1", "Deployment"): f"{_CORE}#/$defs/io.k8s.api.apps.v1.Deployment",
    ("v1", "Service"): f"{_CORE}#/$defs/io.k8s.api.core.v1.Service",
    ("v1", "Namespace"): f"{_CORE}#/$defs/io.k8s.api.core.v1.Namespace",
    ("v1", "ServiceAccount"): f"{_CORE}#/$defs/io.k8s.api.core.v1.ServiceAccount",
    ("v1", "ConfigMap"): f"{_CORE}#/$defs/io.k8s.api.core.v1.ConfigMap",
    ("networking.k8s.io/v1", "NetworkPolicy"): f"{_CORE}#/$defs/io.k8s.api.networking.v1.NetworkPolicy",
    ("policy/v1", "PodDisruptionBudget"): f"{_CORE}#/$defs/io.k8s.api.policy.v1.PodDisruptionBudget",
}


@cache
def _registry() -> "Registry[Any]":
    folder = files("kubernetes_validate").joinpath("kubernetes-json-schema", KUBERNETES)
    core = json.loads(folder.joinpath("_definitions.json").read_text(encoding="utf-8"))
    local = json.loads(KUBERAY.read_text(encoding="utf-8"))
    return Registry().with_contents([(_CORE, core), (_LOCAL, local)])
