"""Rules for one pod: its user, what it may write, and that its requests fit together."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from unit.deploy.manifests import Object

_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|k|Ki|M|Mi|G|Gi|T|Ti)?")
_FACTORS = {None: 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12} | {
    f"{prefix}i": 1024.0**power for power, prefix in enumerate("KMGT", 1)
}
_SECRET_NAME = re.compile(r"secret|token|passw|credential|access_?key|api_?key", re.IGNORECASE)
_SECRET_VALUE = re.compile(r"AKIA[0-9A-Z]{12,}|-----BEGIN|eyJ[\w-]{10,}\.|gh[pousr]_\w{20,}")
_IMAGE = re.compile(r"REGISTRY/camatlas:(?!latest$)[\w.-]+")
_SPOT_GRACE = 30


def amount(text: object) -> float:
    """Parse a quantity such as 500m, 2 or 12Gi; raises ValueError unless it is a positive quantity."""
    match = _QUANTITY.fullmatch(str(text))
    if not match or float(match[1]) == 0:
        raise ValueError(f"{text!r} is not a positive quantity")
    return float(match[1]) * _FACTORS[match[2]]


@dataclass(frozen=True)
class Pod:
    """One pod template, and the options that Ray is started with in it."""

    role: str
    template: Object
    start: Object

    @property
    def spec(self) -> Object:
        """Return the spec of the pod."""
        spec: Object = self.template["spec"]
        return spec

    @property
    def container(self) -> Object:
        """Return the only container."""
        container: Object = self.spec["containers"][0]
        return container


def pod_errors(pod: Pod) -> Iterator[str]:
    """Yield what is wrong with a pod."""
    spec, container = pod.spec, pod.container
    if pod.template.get("metadata", {}).get("labels", {}).get("camatlas/role") != pod.role:
        yield "without its label no network policy applies to it"
    if len(spec["containers"]) != 1 or "initContainers" in spec:
        yield "one container is expected"
    if not _IMAGE.fullmatch(container.get("image", "")):
        yield f"image {container.get('image')!r} must be REGISTRY/camatlas with a version"
    if spec.get("restartPolicy") != "Never":
        yield "restartPolicy must be Never"
    if spec.get("automountServiceAccountToken") is not (pod.role == "head"):
        yield "only the head, for its autoscaler, may hold a token of the API server"
    if pod.role != "submitter" and spec.get("serviceAccountName") != "camatlas":
        yield "the service account must be camatlas"
    if pod.role != "worker" and spec["nodeSelector"].get("eks.amazonaws.com/capacityType") != "ON_DEMAND":
        yield "must be on demand"
    yield from _unprivileged(spec)
    yield from locked(container.get("securityContext", {}), container["name"])
    yield from _without_secrets(container)
    yield from _sized(pod)
    yield from _writable(pod)
    yield from _ports(container)
    if pod.role != "submitter":
        yield from _store(pod)
        yield from _leaving(pod)


def _unprivileged(spec: Object) -> Iterator[str]:
    context = spec.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser") or not context.get("runAsGroup"):
        yield "must not run as root"
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "seccomp must be RuntimeDefault"
    if any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        yield "shares the machine's namespaces"
    if any(set(volume) - {"name", "emptyDir", "configMap"} for volume in spec.get("volumes", [])):
        yield "volumes may be emptyDir or configMap"


def locked(context: Object, name: str) -> Iterator[str]:
    """Yield what is wrong with a container's security context."""
    if context.get("privileged") or context.get("allowPrivilegeEscalation") is not False:
        yield f"{name} may become privileged"
    if context.get("readOnlyRootFilesystem") is not True:
        yield f"{name} may write to its root file system"
    if context.get("capabilities") != {"drop": ["ALL"]}:
        yield f"{name} keeps capabilities"
    if "runAsUser" in context or context.get("runAsNonRoot") is False:
        yield f"{name} may run as root: the pod says who runs"


def _without_secrets(container: Object) -> Iterator[str]:
    for each in container.get("env", []):
        if "value" not in each or _SECRET_NAME.search(each["name"]) or _SECRET_VALUE.search(each["value"]):
            yield f"{each['name']} looks like a secret, and manifests must not contain keys"
    if "envFrom" in container:
        yield "envFrom could bring secrets"


def _sized(pod: Pod) -> Iterator[str]:
    resources = pod.container.get("resources", {})
    for kind in ("cpu", "memory"):
        if kind not in resources.get("limits", {}) or kind not in resources.get("requests", {}):
            yield f"no {kind} is requested"
    try:
        limits = {name: amount(text) for name, text in resources.get("limits", {}).items()}
        requests = {name: amount(text) for name, text in resources.get("requests", {}).items()}
    except ValueError as error:
        yield str(error)
        return
    if any(requests[name] > limits.get(name, 0) for name in requests):
        yield "requests more than its limits"


def _writable(pod: Pod) -> Iterator[str]:
    volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", [])}
    mounts = {mount["mountPath"]: mount["name"] for mount in pod.container.get("volumeMounts", [])}
    for path in ("/tmp", "/home/camatlas"):
        if "emptyDir" not in volumes.get(mounts.get(path, ""), {}):
            yield f"{path} must be writable"
    for name in set(mounts.values()) ^ set(volumes):
        yield f"volume {name} is mounted or defined, but not both"
    for volume in volumes.values():
        try:
            amount(volume.get("emptyDir", {"sizeLimit": 1}).get("sizeLimit", "none"))
        except ValueError as error:
            yield f"volume {volume['name']}: {error}"


def _ports(container: Object) -> Iterator[str]:
    ports = {port.get("name"): port["containerPort"] for port in container.get("ports", [])}
    if any(not 0 < port < 65536 for port in ports.values()):
        yield f"invalid ports {ports}"
    if any("hostPort" in port for port in container.get("ports", [])):
        yield "a port of the machine itself is opened"
    if ports and ports.get("metrics") != 8080:
        yield "the port of the metrics must be 8080, KubeRay's"


def _store(pod: Pod) -> Iterator[str]:
    """Check that the object store fits into /dev/shm, and that into half of the pod's memory."""
    requested = pod.start.get("object-store-memory", "")
    if not requested.isdigit():
        yield "object-store-memory must be bytes"
        return
    name = next((m["name"] for m in pod.container["volumeMounts"] if m["mountPath"] == "/dev/shm"), None)
    shared = next((volume["emptyDir"] for volume in pod.spec["volumes"] if volume["name"] == name), {})
    try:
        room, memory = amount(shared.get("sizeLimit")), amount(pod.container["resources"]["limits"].get("memory"))
    except ValueError:
        room = memory = 0.0
    if shared.get("medium") != "Memory" or not int(requested) < room <= memory / 2:
        yield "the object store must be smaller than /dev/shm, in memory, and that at most half of the pod's memory"


def _leaving(pod: Pod) -> Iterator[str]:
    if pod.container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [""])[-1] != "ray stop":
        yield "preStop must stop Ray"
    if pod.role == "worker" and not 0 < pod.spec.get("terminationGracePeriodSeconds", 31) <= _SPOT_GRACE:
        yield f"a spot machine may be gone after {_SPOT_GRACE} s"
