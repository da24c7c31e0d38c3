"""deploy/README.md: names only files and verbs that exist, and marks commands that were not run."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command
from unit.deploy.manifests import DEPLOY, ROOT

from jobs.cli import app

TEXT = (DEPLOY / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"^```\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
]
UNRUN = re.compile(r"^(kubectl|helm|docker|aws|ray (up|down|dashboard))\b")
PLACEHOLDERS = r"\b(?:REGISTRY|BUCKET|REGION|ACCOUNT|AMI|ADDRESS)\b"


def _bare(folder: Path) -> str:
    """Return the text of all files that may hold placeholders, without comments."""
    paths = [folder / "ray-cluster.yaml", folder / "imagenet-val.yaml", *folder.glob("kuberay/*.yaml")]
    return " ".join(re.sub(r"#.*", "", path.read_text(encoding="utf-8")) for path in paths)


def test_commands_for_clouds_are_marked_as_not_run() -> None:
    assert len(COMMANDS) > 25
    unmarked = [line for line in COMMANDS if UNRUN.search(line) and "(not run here)" not in line]
    assert unmarked == []
    assert "*(not run here)*" in TEXT.split("## 1.")[0]  # the mark is explained before its first use


def test_every_verb_exists() -> None:
    verbs = set(re.findall(r"(?<!-n )(?<!namespace )\bcamatlas ([a-z]+) ", "\n".join(COMMANDS)))
    known = set(get_command(app).commands)  # type: ignore[attr-defined]
    assert {"pack", "plan", "status", "verify", "query", "audit"} <= verbs <= known


def test_every_file_exists() -> None:
    named = set(re.findall(r"deploy/[\w./-]+\.(?:yaml|lock)|deploy/Dockerfile", TEXT))
    assert "deploy/kuberay/rayjob.yaml" in named
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert [name for name in re.findall(r"\]\(([^)#]+)\)", TEXT) if not (DEPLOY / name).exists()] == []


def test_no_file_names_a_registry_or_holds_a_key() -> None:
    files = [*DEPLOY.glob("*.md"), *DEPLOY.glob("*.yaml"), *DEPLOY.glob("kuberay/*.yaml"), DEPLOY / "Dockerfile"]
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\b(docker|quay|ghcr|gcr|nvcr)\.io\b|public\.ecr\.|amazonaws\.com/camatlas", text), path
        assert not re.search(r"AKIA[0-9A-Z]{12}|-----BEGIN|secret_access_key", text), path


def test_the_placeholders_are_explained() -> None:
    used = set(re.findall(PLACEHOLDERS, _bare(DEPLOY)))
    explained = TEXT.split("Replace the words in capitals everywhere: ")[1].split("\n\n")[0]
    assert used == set(re.findall(r"[A-Z]{3,}", explained))


@pytest.mark.skipif(sys.platform != "linux", reason="the commands are written for GNU sed")
def test_its_commands_replace_every_placeholder_and_nothing_else(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    edits = [line for line in COMMANDS if line.startswith("sed ")]
    assert len(edits) == 3
    for line in edits:
        subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True, timeout=30)
    changed = _bare(tmp_path / "deploy")
    assert re.findall(PLACEHOLDERS, changed) == []
    assert changed.count("{name: AWS_REGION, value: my-region}") == 2
