"""Rules that schemas cannot express, for the manifests of deploy/kuberay as a whole."""

import re
from collections.abc import Iterator
from typing import Any

from unit.deploy.manifests import Manifests, Object, schema_errors
from unit.deploy.pod_rules import Pod, locked, pod_errors

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


_CONNECTIONS = [
    ("submitter", "head", 8265, True),
    ("submitter", "head", 6379, False),
    ("submitter", "worker", 10002, False),
    *((source, target, 10002, True) for source in ("head", "worker") for target in ("head", "worker")),
]
"""Source, target, port, and whether it must be reachable; 10002 stands for the many ports that Ray itself opens."""


def broken(manifests: Manifests, ray_version: str, run_workers: int) -> list[str]:
    """List everything that is wrong with the manifests, including violations of schemas.

    Args:
        manifests: all objects.
        ray_version: the version in the lock file.
        run_workers: number of actors that the run file requests, one GPU each.
    """
    wrong = [f"{name}: {error}" for name, each in manifests.items() for error in schema_errors(each)]
    if wrong:
        return wrong  # the rules below rely on valid schemas
    wrong = [f"{name}: {error}" for name, each in manifests.items() for error in _named(each)]
    for name, each in manifests.items():
        if each["kind"] in ("RayJob", "RayCluster"):
            wrong += [f"{name}: {error}" for error in _cluster(each, ray_version, run_workers)]
        if each["kind"] == "RayJob":
            wrong += [f"{name}: {error}" for error in _job(each["spec"])]
        for pod in pods(each):
            wrong += [f"{name}: {pod.role}: {error}" for error in pod_errors(pod)]
    return wrong + list(_network(manifests)) + list(_shared(manifests))


def cluster_of(each: Object) -> Object:
    """Return the cluster spec of a RayJob or a RayCluster."""
    cluster: Object = each["spec"]["rayClusterSpec"] if each["kind"] == "RayJob" else each["spec"]
    return cluster


def pods(each: Object) -> Iterator[Pod]:
    """Yield all pod templates of an object."""
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
        yield f"invalid name {about.get('name')!r}"
    if each["kind"] != "Namespace" and about.get("namespace") != "camatlas":
        yield "outside the namespace that base.yaml closes"


def _cluster(each: Object, ray_version: str, run_workers: int) -> Iterator[str]:
    cluster = cluster_of(each)
    head, groups = cluster["headGroupSpec"], cluster.get("workerGroupSpecs", [])
    if cluster.get("rayVersion") != ray_version:
        yield f"rayVersion {cluster.get('rayVersion')}, but {ray_version} is locked"
    if cluster.get("authOptions", {}).get("mode") != "token":
        yield "no token is required"
    if head.get("serviceType") != "ClusterIP" or head.get("enableIngress") is not False or "headService" in head:
        yield "the head must have a service of type ClusterIP and no ingress"
    start = head.get("rayStartParams", {})
    if start.get("num-cpus") != "0":
        yield "the head takes tasks: num-cpus must be 0"
    host = "0.0.0.0" if each["kind"] == "RayJob" else "127.0.0.1"
    if start.get("dashboard-host") != host:
        yield f"the dashboard must listen at {host}"
    if not cluster.get("enableInTreeAutoscaling") or cluster.get("autoscalerOptions", {}).get("version") != "v2":
        yield "the autoscaler must be on, version v2"
    yield from locked(cluster.get("autoscalerOptions", {}).get("securityContext", {}), "autoscaler")
    yield from (f"{group['groupName']}: {error}" for group in groups for error in _group(group))
    if sum(group["maxReplicas"] * _gpus(group) for group in groups) < run_workers:
        yield f"the groups cannot provide the {run_workers} GPUs that the run file requests"


def _gpus(group: Object) -> int:
    limits = group["template"]["spec"]["containers"][0].get("resources", {}).get("limits", {})
    return int(limits.get("nvidia.com/gpu", 0))


def _group(group: Object) -> Iterator[str]:
    if not 0 == group["minReplicas"] <= group.get("replicas", 0) <= group["maxReplicas"]:
        yield "replicas must be 0 = minReplicas <= replicas <= maxReplicas"
    if _gpus(group) < 1:
        yield "has no GPU"
    if group["template"]["spec"]["nodeSelector"].get("eks.amazonaws.com/capacityType") != "SPOT":
        yield "not on spot machines"


def _job(job: Object) -> Iterator[str]:
    if job.get("backoffLimit", 0) < 1:
        yield "backoffLimit: the job must be retried when the head is lost"
    if job.get("activeDeadlineSeconds", 0) < 1:
        yield "activeDeadlineSeconds: a run must have a time limit"
    if not job.get("shutdownAfterJobFinishes") or job.get("ttlSecondsAfterFinished", 0) < 0:
        yield "the machines must go away when the run is over"
    if "submitterPodTemplate" not in job:
        yield "the submitter's pod would not be locked"
    mounts = job["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    folder = next((mount["mountPath"] for mount in mounts if mount["name"] == "run-file"), "?")
    if job.get("entrypoint") != f"python -m jobs.explain {folder}/run.yaml":
        yield "the entrypoint must explain the run file of the ConfigMap"


def _network(manifests: Manifests) -> Iterator[str]:
    """Check that only named traffic enters; the job port of the head is for the submitter and the operator only."""
    policies = [each["spec"] for each in manifests.values() if each["kind"] == "NetworkPolicy"]
    if {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]} not in policies:
        yield "no policy closes the namespace"
    for source, target, port, wanted in _CONNECTIONS:
        inward = any(_allows(policy, target, "ingress", source, port) for policy in policies)
        outward = any(_allows(policy, source, "egress", target, port) for policy in policies)
        if (inward and outward) is not wanted:
            yield f"the {source} must {'' if wanted else 'not '}reach port {port} of the {target}"
    for policy in policies:
        for rule in policy.get("ingress", []):
            yield from _ingress_rule(rule)


def _allows(policy: Object, role: str, direction: str, other: str, port: int) -> bool:
    """Tell whether a policy lets pods of one role reach those of another (egress) or be reached (ingress)."""
    if not _selects(policy["podSelector"], role):
        return False
    for rule in policy.get(direction, []):
        peers = rule.get("from" if direction == "ingress" else "to")
        ports = [each.get("port") for each in rule.get("ports", [])]
        near = [peer["podSelector"] for peer in peers or [] if set(peer) == {"podSelector"}]
        if (peers is None or any(_selects(selector, other) for selector in near)) and (not ports or port in ports):
            return True
    return False


def _ingress_rule(rule: Object) -> Iterator[str]:
    peers: list[Any] = rule.get("from", [])
    if not peers or any("ipBlock" in peer or not any(peer.values()) for peer in peers):
        yield "an ingress rule admits everybody"
    foreign = [peer for peer in peers if "namespaceSelector" in peer]
    ports = [port.get("port") for port in rule.get("ports", [])]
    if any(not isinstance(port, int) or not 0 < port < 65536 for port in ports):
        yield f"invalid ports {ports} of a policy"
    if (foreign and not set(ports) <= {8080, 8265}) or (foreign and not ports):
        yield "another namespace reaches more than the jobs and the metrics"
    if 8265 in ports and any("podSelector" not in peer for peer in foreign):
        yield "a whole namespace reaches the jobs"


def _selects(selector: Object, role: str) -> bool:
    values = [selector.get("matchLabels", {}).get("camatlas/role")]
    for each in selector.get("matchExpressions", []):
        values += each["values"] if each["key"] == "camatlas/role" and each["operator"] == "In" else []
    return role in values


def _shared(manifests: Manifests) -> Iterator[str]:
    """Check what every cluster needs: a closed namespace, an account without keys, a head that is not evicted."""
    kinds = {each["kind"]: each for each in manifests.values()}
    labels = kinds.get("Namespace", {}).get("metadata", {}).get("labels", {})
    if labels.get("pod-security.kubernetes.io/enforce") != "restricted":
        yield "the namespace admits pods that are not locked down"
    account = kinds.get("ServiceAccount", {})
    if (
        account.get("metadata", {}).get("name") != "camatlas"
        or account.get("automountServiceAccountToken") is not False
    ):
        yield "the service account is missing, or mounts its token everywhere"
    if "secrets" in account or "Secret" in kinds:
        yield "manifests must not contain keys"
    budget = kinds.get("PodDisruptionBudget", {}).get("spec", {})
    if budget.get("minAvailable") != 1 or not _selects(budget.get("selector", {}), "head"):
        yield "the head may be evicted while it runs"
    monitor = kinds.get("PodMonitor", {}).get("spec", {"podMetricsEndpoints": [{"port": "metrics"}]})
    if [each.get("port") for each in monitor["podMetricsEndpoints"]] != ["metrics"]:
        yield "the monitor must read the port `metrics`"
