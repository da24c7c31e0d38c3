"""Pages that name what does not exist are refused, with the nearest name; names that exist are not."""

from pathlib import Path

import pytest
from docs.commands import ROOT
from handbook.blocks import blocks
from handbook.checked import problems_of
from handbook.names import problems
from handbook.vocabulary import vocabulary

KNOWN = vocabulary(ROOT)


def found(page: str) -> list[str]:
    return [problem.text for problem in problems(page, KNOWN)]


@pytest.mark.parametrize(
    ("span", "problem"),
    [
        ("data.shard", "no key of the run file 'data.shard' (did you mean 'data.shards'?)"),
        ("data.columns.pat", "no key of the run file 'data.columns.pat' (did you mean 'data.columns.path'?)"),
        ("explain.method: [gradcam]", "no key of the run file 'explain.method' (did you mean 'explain.methods'?)"),
        ("camatlas verfy RUN", "no verb 'verfy' (did you mean 'verify'?)"),
        ("camatlas truth mak DEST", "no verb 'truth mak' (did you mean 'truth make'?)"),
        ("camatlas query RUN --cvs", "no option of `camatlas query` '--cvs' (did you mean '--csv'?)"),
        ("camatlas --halp", "no option of camatlas '--halp' (did you mean '--help'?)"),
        ("--max-failure-rat", "no option of any verb '--max-failure-rat' (did you mean '--max-failure-rate'?)"),
        ("pipeline/model/prob.py", "no file 'pipeline/model/prob.py' in this project"),
        ("tests/unit/nothing_*.py", "no file 'tests/unit/nothing_*.py' in this project"),
        ("image_ky", "no name 'image_ky' (did you mean 'image_key'?)"),
        ("SELECT avg(average_drp) FROM explanations", "no name 'average_drp' (did you mean 'average_drop'?)"),
        ("grad_cam_pp", "no name 'grad_cam_pp' (did you mean 'gradcam_pp'?)"),
        ("energy_in_the_box", "no name 'energy_in_the_box' (did you mean 'energy_in_box'?)"),
        ("{iscam: {num_step: 3}}", "no name 'num_step' (did you mean 'num_steps'?)"),
    ],
)
def test_a_name_that_nothing_has_is_a_problem(span: str, problem: str) -> None:
    assert found(f"# Page\n\nA sentence with `{span}`.\n") == [problem]


@pytest.mark.parametrize(
    "span",
    [
        "data.shards",
        "data.members.image",
        "model.preprocess: {crop: 96}",
        "model.safetensors",
        "camatlas",
        'camatlas query RUN "SELECT count(*) FROM images" --csv',
        "camatlas VERB --help",
        "camatlas truth make DEST --network vit",
        "tests/unit/results/test_*.py",
        "explanations",
        "acts_BKuv",
        "my_folder/some_thing.csv",
        "https://example.org/data.shards",
    ],
)
def test_a_name_that_exists_is_no_problem(span: str) -> None:
    assert found(f"A sentence with `{span}`.\n") == []


def test_commands_in_blocks_are_checked_even_where_they_do_not_run() -> None:
    page = "<!-- not run: a cluster -->\n```bash\ncamatlas explain run.yaml \\\n  --worker 8   # a comment\n```\n"
    assert found(page) == ["no option of `camatlas explain` '--worker' (did you mean '--workers'?)"]


def test_run_files_in_blocks_are_checked() -> None:
    page = "```yaml\ndata: {shard: my_images}\nexplain: {methods: [gradcm, {iscam: {num_step: 3}}]}\n```\n"
    assert found(page) == [
        "data.shard: unknown key (did you mean 'shards'?)",
        "explain.methods: unknown name 'gradcm' (did you mean 'gradcam'?)",
        "explain.methods.iscam: unknown parameter 'num_step' (did you mean 'num_steps'?)",
    ]
    assert found("```yaml\nservices: {shard: x}\n```\n") == []


def test_a_block_without_a_language_is_a_problem() -> None:
    assert len(found("```\nls\n```\n")) == 1


def test_a_problem_has_its_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("# Good\n", encoding="utf-8")
    (tmp_path / "docs" / "howto").mkdir(parents=True)
    (tmp_path / "docs" / "howto" / "page.md").write_text("# Page\n\nSee `data.shard`.\n", encoding="utf-8")
    ((path, problem),) = problems_of(tmp_path, KNOWN)
    assert (path.name, problem.line) == ("page.md", 3)


def test_comments_belong_to_the_block_below_them() -> None:
    page = (
        "<!-- with: my_run -->\n\n# Page\n\n<!-- not run: a cluster -->\n```bash\nls\n```\n\n"
        "<!-- not run: is not followed by a block -->\n\nText.\n\n```python\n1\n```\n"
    )
    first, second = blocks(page)
    assert (dict(first.comments), first.runs) == ({"with": "my_run", "not run": "a cluster"}, False)
    assert (dict(second.comments), second.runs, second.line) == ({}, True, 14)
