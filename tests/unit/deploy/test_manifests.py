"""The manifests of deploy/kuberay: valid, and every change for the worse is found."""

import json

import pytest
import yaml
from jsonschema import Draft202012Validator
from unit.deploy.locked import locked_versions
from unit.deploy.manifests import DEPLOY, KUBERAY, Manifests, changed, load, schema_errors
from unit.deploy.rules import broken, cluster_of

RAY = locked_versions("deploy/requirements.lock")["ray"]
RUN_WORKERS: int = yaml.safe_load((DEPLOY / "imagenet-val.yaml").read_text(encoding="utf-8"))["compute"]["workers"]

JOB, CLUSTER, POLICY = "rayjob/RayJob", "raycluster/RayCluster", "base/NetworkPolicy"
HEAD = "spec.rayClusterSpec.headGroupSpec"
HEAD_POD = f"{HEAD}.template.spec"
GROUP = "spec.rayClusterSpec.workerGroupSpecs.0"
WORKER_POD = f"{GROUP}.template.spec"
SUBMITTER = "spec.submitterPodTemplate.spec"
REMOVED = None

SCHEMAS_FIND = [
    (JOB, "spec.entryPoint", "python"),
    (JOB, "spec.shutdownAfterJobFinishes", "yes"),
    (JOB, "spec.backoffLimit", "3"),
    (JOB, "spec.activeDeadlineSeconds", 1.5),
    (JOB, "spec.submissionMode", "K8SJobMode"),
    (JOB, "spec.rayClusterSpec.headGroupSpec", REMOVED),
    (JOB, "spec.rayClusterSpec.enableInTreeAutoscaling", "true"),
    (JOB, "spec.rayClusterSpec.authOptions.mode", "tokens"),
    (JOB, "spec.rayClusterSpec.autoscalerOptions.version", "V2"),
    (JOB, f"{HEAD}.rayStartParams.num-cpus", 0),
    (JOB, f"{HEAD}.template", REMOVED),
    (JOB, f"{HEAD_POD}.containers", REMOVED),
    (JOB, f"{HEAD_POD}.container", []),
    (JOB, f"{HEAD_POD}.containers.0.ports.0.containerPort", "6379"),
    (JOB, f"{GROUP}.minReplica", 0),
    (JOB, f"{GROUP}.maxReplicas", REMOVED),
    (JOB, f"{GROUP}.groupName", REMOVED),
    (JOB, f"{WORKER_POD}.tolerations.0.effects", "NoSchedule"),
    (JOB, f"{WORKER_POD}.volumes.0.emptyDir.sizelimit", "1Gi"),
    (JOB, f"{WORKER_POD}.terminationGracePeriodSeconds", "25"),
    (JOB, f"{SUBMITTER}.containers.0.image", ["REGISTRY/camatlas:0.1.0"]),
    (JOB, "apiVersion", "ray.io/v1alpha1"),
    (JOB, "kind", "RayJobs"),
    (CLUSTER, "apiVersion", "ray.io/v2"),
    (CLUSTER, "spec.rayVersion", 2.6),
    (CLUSTER, "spec.networkpolicy", {}),
    (f"{POLICY}/closed", "spec.policyTypes", "Ingress"),
    (f"{POLICY}/closed", "spec.podSelectors", {}),
    (f"{POLICY}/ray-head", "spec.ingress.1.ports.0.protocol", 6),
    (f"{POLICY}/outgoing", "apiVersion", "networking.k8s.io/v1beta1"),
    ("base/PodDisruptionBudget", "apiVersion", "policy/v1beta1"),
    ("base/PodDisruptionBudget", "spec.minimum", 1),
    ("base/ServiceAccount", "automountServiceAccountToken", "no"),
    ("base/Namespace", "metadata.label", {}),
    ("podmonitor/PodMonitor", "spec.podMetricsEndpoints.0.intervall", "15s"),
    ("podmonitor/PodMonitor", "spec.podMetricsEndpoints.0.interval", "15"),
]
RULES_FIND = [
    (JOB, "spec.rayClusterSpec.rayVersion", "2.59.0", "is locked"),
    (CLUSTER, "spec.rayVersion", REMOVED, "is locked"),
    (JOB, "spec.rayClusterSpec.authOptions", REMOVED, "token"),
    (CLUSTER, "spec.authOptions.mode", "disabled", "token"),
    (JOB, "spec.backoffLimit", REMOVED, "backoffLimit"),
    (JOB, "spec.activeDeadlineSeconds", REMOVED, "activeDeadlineSeconds"),
    (JOB, "spec.ttlSecondsAfterFinished", -1, "machines must go"),
    (JOB, "spec.shutdownAfterJobFinishes", False, "machines must go"),
    (JOB, "spec.submitterPodTemplate", REMOVED, "submitter"),
    (JOB, "spec.entrypoint", "camatlas explain run.yaml", "entrypoint"),
    (JOB, "metadata.namespace", "default", "namespace"),
    (JOB, f"{HEAD}.serviceType", "LoadBalancer", "ClusterIP"),
    (CLUSTER, "spec.headGroupSpec.serviceType", "NodePort", "ClusterIP"),
    (CLUSTER, "spec.headGroupSpec.enableIngress", True, "ingress"),
    (CLUSTER, "spec.headGroupSpec.rayStartParams.dashboard-host", "0.0.0.0", "127.0.0.1"),
    (JOB, f"{HEAD}.rayStartParams.num-cpus", "4", "num-cpus"),
    (JOB, f"{HEAD}.rayStartParams.object-store-memory", "2Gi", "bytes"),
    (JOB, f"{GROUP}.rayStartParams.object-store-memory", "8589934592", "/dev/shm"),
    (JOB, f"{WORKER_POD}.volumes.2.emptyDir.sizeLimit", "5Gi", "/dev/shm"),
    (JOB, f"{WORKER_POD}.volumes.2.emptyDir.medium", REMOVED, "/dev/shm"),
    (JOB, f"{WORKER_POD}.volumes.2.emptyDir.sizeLimit", "20Gi", "half of the pod's memory"),
    (JOB, f"{GROUP}.minReplicas", 9, "minReplicas"),
    (JOB, f"{GROUP}.minReplicas", -1, "minReplicas"),
    (JOB, f"{GROUP}.maxReplicas", 7, "GPUs that the run file requests"),
    (JOB, f"{WORKER_POD}.containers.0.resources.limits.nvidia~com/gpu", REMOVED, "no GPU"),
    (JOB, f"{WORKER_POD}.containers.0.resources.requests.cpu", "8", "more than its limits"),
    (JOB, f"{WORKER_POD}.containers.0.resources.limits.memory", "26GB", "quantity"),
    (JOB, f"{WORKER_POD}.containers.0.resources.limits.cpu", "-7", "quantity"),
    (JOB, f"{WORKER_POD}.containers.0.resources.limits.memory", REMOVED, "no memory"),
    (JOB, f"{WORKER_POD}.volumes.0.emptyDir.sizeLimit", "lots", "quantity"),
    (JOB, f"{WORKER_POD}.nodeSelector", {"eks.amazonaws.com/capacityType": "ON_DEMAND"}, "spot"),
    (JOB, f"{HEAD_POD}.nodeSelector", {"eks.amazonaws.com/capacityType": "SPOT"}, "on demand"),
    (JOB, f"{WORKER_POD}.terminationGracePeriodSeconds", 600, "spot machine"),
    (JOB, f"{WORKER_POD}.containers.0.lifecycle", REMOVED, "preStop"),
    (JOB, f"{WORKER_POD}.restartPolicy", "Always", "restartPolicy"),
    (JOB, f"{WORKER_POD}.automountServiceAccountToken", True, "token of the API server"),
    (JOB, f"{WORKER_POD}.serviceAccountName", REMOVED, "service account"),
    (JOB, f"{WORKER_POD}.securityContext.runAsUser", 0, "root"),
    (JOB, f"{WORKER_POD}.securityContext.runAsNonRoot", False, "root"),
    (JOB, f"{WORKER_POD}.securityContext.seccompProfile", REMOVED, "seccomp"),
    (JOB, f"{WORKER_POD}.containers.0.securityContext.privileged", True, "privileged"),
    (JOB, f"{WORKER_POD}.containers.0.securityContext.allowPrivilegeEscalation", REMOVED, "privileged"),
    (JOB, f"{WORKER_POD}.containers.0.securityContext.readOnlyRootFilesystem", False, "root file system"),
    (JOB, f"{WORKER_POD}.containers.0.securityContext.capabilities", {"drop": ["NET_RAW"]}, "capabilities"),
    (JOB, f"{SUBMITTER}.containers.0.securityContext", REMOVED, "privileged"),
    (JOB, "spec.rayClusterSpec.autoscalerOptions.securityContext", REMOVED, "autoscaler"),
    (JOB, f"{WORKER_POD}.hostNetwork", True, "namespaces"),
    (JOB, f"{WORKER_POD}.volumes.0", {"name": "tmp", "hostPath": {"path": "/"}}, "emptyDir or configMap"),
    (JOB, f"{WORKER_POD}.containers.0.volumeMounts.0.mountPath", "/temp", "/tmp"),
    (JOB, f"{WORKER_POD}.containers.0.volumeMounts.0.name", "temp", "volume temp"),
    (JOB, f"{WORKER_POD}.containers.0.image", "REGISTRY/camatlas:latest", "image"),
    (JOB, f"{WORKER_POD}.containers.0.image", "REGISTRY/camatlas", "image"),
    (JOB, f"{HEAD_POD}.containers.0.env.1", {"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}, "secret"),
    (JOB, f"{HEAD_POD}.containers.0.env.1", {"name": "KEY", "value": "AKIAABCDEFGHIJKLMNOP"}, "secret"),
    (JOB, f"{HEAD_POD}.containers.0.env.1", {"name": "RAY_AUTH_TOKEN", "value": "a"}, "secret"),
    (JOB, f"{HEAD_POD}.containers.0.ports.1.containerPort", -8265, "ports"),
    (JOB, f"{HEAD_POD}.containers.0.ports.1.hostPort", 8265, "port of the machine"),
    (JOB, f"{GROUP}.template.metadata.labels", {"camatlas/role": "head"}, "label"),
    (JOB, "spec.rayClusterSpec.enableInTreeAutoscaling", False, "autoscaler"),
    (f"{POLICY}/closed", "spec.podSelector", {"matchLabels": {"a": "b"}}, "closes"),
    (f"{POLICY}/ray-head", "spec.ingress.0.from", REMOVED, "admits everybody"),
    (f"{POLICY}/ray-head", "spec.ingress.1.from.0", {"ipBlock": {"cidr": "0.0.0.0/0"}}, "everybody"),
    (f"{POLICY}/ray-head", "spec.ingress.1.from.1.podSelector", REMOVED, "whole namespace"),
    (f"{POLICY}/ray-head", "spec.ingress.1.ports.0.port", 10001, "another namespace"),
    (f"{POLICY}/ray-worker", "spec.podSelector", {"matchLabels": {"camatlas/role": "workers"}}, "reach"),
    (f"{POLICY}/metrics", "spec.ingress.0.ports", REMOVED, "another namespace"),
    (f"{POLICY}/ray-worker", "spec.ingress.0.from.0.podSelector", {"matchLabels": {"camatlas/role": "head"}}, "reach"),
    ("base/PodDisruptionBudget", "spec.minAvailable", 0, "evicted"),
    ("base/ServiceAccount", "automountServiceAccountToken", REMOVED, "service account"),
    ("base/ServiceAccount", "metadata.name", "default", "service account"),
    ("base/Namespace", "metadata.labels", {}, "locked"),
    ("podmonitor/PodMonitor", "spec.podMetricsEndpoints.0.port", "dashboard", "metrics"),
]


def _broken(manifests: Manifests) -> list[str]:
    return broken(manifests, RAY, RUN_WORKERS)


def test_the_manifests_follow_the_rules() -> None:
    assert len(load()) == 12
    assert _broken(load()) == []


@pytest.mark.parametrize(("where", "path", "value"), SCHEMAS_FIND)
def test_a_schema_finds(where: str, path: str, value: object) -> None:
    mutant = changed(where, path, value)
    errors = schema_errors(mutant[where])
    assert len(errors) == 1, errors


@pytest.mark.parametrize(("where", "path", "value", "error"), RULES_FIND)
def test_a_rule_finds(where: str, path: str, value: object, error: str) -> None:
    mutant = changed(where, path, value)
    assert schema_errors(mutant[where]) == []  # otherwise the rule would not be needed
    errors = _broken(mutant)
    assert any(error in each for each in errors), errors


@pytest.mark.parametrize("name", sorted(load()))
def test_a_missing_object_is_noticed(name: str) -> None:
    left = {each: manifest for each, manifest in load().items() if each != name}
    optional = {"podmonitor/PodMonitor", f"{POLICY}/metrics", JOB, CLUSTER}
    assert bool(_broken(left)) != (name in optional)


def test_job_and_cluster_differ_only_in_the_dashboard() -> None:
    job, cluster = (cluster_of(load()[name]) for name in (JOB, CLUSTER))
    hosts = [each["headGroupSpec"]["rayStartParams"].pop("dashboard-host") for each in (job, cluster)]
    assert hosts == ["0.0.0.0", "127.0.0.1"]
    assert job == cluster


def test_the_config_map_of_the_readme_is_what_the_head_mounts() -> None:
    run_file = (DEPLOY / "imagenet-val.yaml").read_text(encoding="utf-8")
    made = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "camatlas-run"},
        "data": {"run.yaml": run_file},
    }
    assert schema_errors(made) == []
    assert "configmap camatlas-run --from-file=run.yaml=deploy/imagenet-val.yaml" in (DEPLOY / "README.md").read_text()


def test_our_schema_is_valid_and_refuses_unknown_fields() -> None:
    schema = json.loads(KUBERAY.read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    objects = [each for each in schema["$defs"].values() if "properties" in each]
    assert all(each["additionalProperties"] is False for each in objects)
    assert "Apache License 2.0" in schema["$comment"]
    assert "description" not in json.dumps(schema)
