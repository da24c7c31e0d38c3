"""What schemas cannot say: rules that hold for the manifests of deploy/kuberay as a whole."""

import re
from collections.abc import Iterator
from typing import Any

from unit.deploy.manifests import Manifests, Object, schema_errors
from unit.deploy.pod_rules import Pod, locked, pod_errors

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


_WAYS = [
    ("submitter", "head", 8265, True),
    ("submitter", "head", 6379, False),
    ("submitter", "worker", 10002, False),
    *((source, target, 10002, True) for source in ("head", "worker") for target in ("head", "worker")),
]
"""Who must reach whom at which port, and who must not; Ray's own ports are many, and 10002 stands for them."""


def broken(manifests: Manifests, ray_version: str, run_workers: int) -> list[str]:
    """Everything that is wrong, schemas included.

    Args:
        manifests: all objects.
        ray_version: of the lock file.
        run_workers: actors that the run file asks for, one GPU each.
    """
    wrong = [f"{name}: {error}" for name, each in manifests.items() for error in schema_errors(each)]
    if wrong:
        return wrong  # the rules below rely on what schemas promise
    wrong = [f"{name}: {error}" for name, each in manifests.items() for error in _named(each)]
    for name, each in manifests.items():
        if each["kind"] in ("RayJob", "RayCluster"):
            wrong += [f"{name}: {error}" for error in _cluster(each, ray_version, run_workers)]
        if each["kind"] == "RayJob":
            wrong += [f"{name}: {error}" for error in _job(each["spec"])]
        for pod in pods(each):
            wrong += [f"{name}: {pod.role}: {error}" for error in pod_errors(pod)]
    return wrong + list(_walls(manifests)) + list(_standing(manifests))


def cluster_of(each: Object) -> Object:
    """The cluster's part of a RayJob or a RayCluster."""
    found: Object = each["spec"]["rayClusterSpec"] if each["kind"] == "RayJob" else each["spec"]
    return found


def pods(each: Object) -> Iterator[Pod]:
    """All pod templates of an object."""
    if each["kind"] not in ("RayJob", "RayCluster"):
        return
    cluster = cluster_of(each)
    head = cluster["headGroupSpec"]
    yield Pod("head", head["template"], head.get("rayStartParams", {}))
    for group in cluster.get("workerGroupSpecs", []):
        yield Pod("worker", group["template"], group.get("rayStartParams", {}))
    if "submitterPodTemplate" in each["spec"]:
        yield Pod("submitter", each["spec"]["submitterPodTemplate"], {})


def _named(each: Object) -> Iterator[str]:
    about = each["metadata"]
    if not _NAME.fullmatch(about.get("name", "")):
        yield f"name {about.get('name')!r}"
    if each["kind"] != "Namespace" and about.get("namespace") != "camatlas":
        yield "outside the namespace that base.yaml closes"


def _cluster(each: Object, ray_version: str, run_workers: int) -> Iterator[str]:
    cluster = cluster_of(each)
    head, groups = cluster["headGroupSpec"], cluster.get("workerGroupSpecs", [])
    if cluster.get("rayVersion") != ray_version:
        yield f"rayVersion {cluster.get('rayVersion')}, but {ray_version} is locked"
    if cluster.get("authOptions", {}).get("mode") != "token":
        yield "no token is asked for"
    if head.get("serviceType") != "ClusterIP" or head.get("enableIngress") is not False or "headService" in head:
        yield "the head must have a service of type ClusterIP and no ingress"
    start = head.get("rayStartParams", {})
    if start.get("num-cpus") != "0":
        yield "the head takes tasks: num-cpus must be 0"
    heard = "0.0.0.0" if each["kind"] == "RayJob" else "127.0.0.1"
    if start.get("dashboard-host") != heard:
        yield f"the dashboard must listen at {heard}"
    if not cluster.get("enableInTreeAutoscaling") or cluster.get("autoscalerOptions", {}).get("version") != "v2":
        yield "the autoscaler must be on, version v2"
    yield from locked(cluster.get("autoscalerOptions", {}).get("securityContext", {}), "autoscaler")
    yield from (f"{group['groupName']}: {error}" for group in groups for error in _group(group))
    if sum(group["maxReplicas"] * _gpus(group) for group in groups) < run_workers:
        yield f"the groups never bring the {run_workers} GPUs that the run file asks for"


def _gpus(group: Object) -> int:
    limits = group["template"]["spec"]["containers"][0].get("resources", {}).get("limits", {})
    return int(limits.get("nvidia.com/gpu", 0))


def _group(group: Object) -> Iterator[str]:
    if not 0 == group["minReplicas"] <= group.get("replicas", 0) <= group["maxReplicas"]:
        yield "replicas must be 0 = minReplicas <= replicas <= maxReplicas"
    if _gpus(group) < 1:
        yield "brings no GPU"
    if group["template"]["spec"]["nodeSelector"].get("eks.amazonaws.com/capacityType") != "SPOT":
        yield "not on spot machines"


def _job(job: Object) -> Iterator[str]:
    if job.get("backoffLimit", 0) < 1:
        yield "backoffLimit: a lost head must be tried again"
    if job.get("activeDeadlineSeconds", 0) < 1:
        yield "activeDeadlineSeconds: a run must end some day"
    if not job.get("shutdownAfterJobFinishes") or job.get("ttlSecondsAfterFinished", 0) < 0:
        yield "the machines must go when the run is over"
    if "submitterPodTemplate" not in job:
        yield "the submitter's pod would not be locked"
    mounts = job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    folder = next((mount["mountPath"] for mount in mounts if mount["name"] == "run-file"), "?")
    if job.get("entrypoint") != f"python -m jobs.explain {folder}/run.yaml":
        yield "the entrypoint must explain the run file of the ConfigMap"


def _walls(manifests: Manifests) -> Iterator[str]:
    """Nothing in but what is named; the head's port of jobs only for submitter and operator."""
    policies = [each["spec"] for each in manifests.values() if each["kind"] == "NetworkPolicy"]
    if {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} not in policies:
        yield "no policy closes the namespace"
    for source, target, port, wanted in _WAYS:
        inward = any(_lets(policy, target, "ingress", source, port) for policy in policies)
        outward = any(_lets(policy, source, "egress", target, port) for policy in policies)
        if (inward and outward) is not wanted:
            yield f"the {source} must {'' if wanted else 'not '}reach port {port} of the {target}"
    for policy in policies:
        for rule in policy.get("ingress", []):
            yield from _rule(rule)


def _lets(policy: Object, own: str, way: str, other: str, port: int) -> bool:
    """Whether a policy lets pods of one role reach those of another (egress), or be reached by them (ingress)."""
    if not _selects(policy["podSelector"], own):
        return False
    for rule in policy.get(way, []):
        peers = rule.get("from" if way == "ingress" else "to")
        ports = [each.get("port") for each in rule.get("ports", [])]
        near = [peer["podSelector"] for peer in peers or [] if set(peer) == {"podSelector"}]
        if (peers is None or any(_selects(selector, other) for selector in near)) and (not ports or port in ports):
            return True
    return False


def _rule(rule: Object) -> Iterator[str]:
    peers: list[Any] = rule.get("from", [])
    if not peers or any("ipBlock" in peer or not any(peer.values()) for peer in peers):
        yield "an ingress rule lets everybody in"
    strangers = [peer for peer in peers if "namespaceSelector" in peer]
    ports = [port.get("port") for port in rule.get("ports", [])]
    if any(not isinstance(port, int) or not 0 < port < 65536 for port in ports):
        yield f"ports {ports} of a policy"
    if (strangers and not set(ports) <= {8080, 8265}) or (strangers and not ports):
        yield "another namespace reaches more than the jobs and the metrics"
    if 8265 in ports and any("podSelector" not in peer for peer in strangers):
        yield "a whole namespace reaches the jobs"


def _selects(selector: Object, role: str) -> bool:
    values = [selector.get("matchLabels", {}).get("camatlas/role")]
    for each in selector.get("matchExpressions", []):
        values += each["values"] if each["key"] == "camatlas/role" and each["operator"] == "In" else []
    return role in values


def _standing(manifests: Manifests) -> Iterator[str]:
    """What every cluster leans on: the closed namespace, the account without keys, the head that is not evicted."""
    kinds = {each["kind"]: each for each in manifests.values()}
    labels = kinds.get("Namespace", {}).get("metadata", {}).get("labels", {})
    if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
        yield "the namespace takes pods that are not locked"
    account = kinds.get("ServiceAccount", {})
    if (
        account.get("metadata", {}).get("name") != "camatlas"
        or account.get("automountServiceAccountToken") is not False
    ):
        yield "the service account is not there, or mounts its token everywhere"
    if "secrets" in account or "Secret" in kinds:
        yield "keys belong in no manifest"
    budget = kinds.get("PodDisruptionBudget", {}).get("spec", {})
    if budget.get("minAvailable") != 1 or not _selects(budget.get("selector", {}), "head"):
        yield "the head may be evicted while it runs"
    monitor = kinds.get("PodMonitor", {}).get("spec", {"podMetricsEndpoints": [{"port": "metrics"}]})
    if [each.get("port") for each in monitor["podMetricsEndpoints"]] != ["metrics"]:
        yield "the monitor must read the port `metrics`"
