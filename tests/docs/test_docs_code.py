"""The code of the README and the manual runs: Python blocks of a page in order, and its commands, at tiny sizes."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from docs_pages import GIVEN, PAGES, ROOT, TINY, TINY_MODEL, Block, blocks, write_files

from ntkdiag.cli import main
from ntkdiag.train import TrainConfig

SNIPPET = re.compile(r'^--8<-- "(?P<file>[^"]+)"$', re.MULTILINE)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def run(block: Block) -> bool:
    return not block.reason and not SNIPPET.search(block.code)


def commands(block: Block) -> list[list[str]]:
    """The `ntkdiag` commands of a block, made small."""
    lines = block.code.replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [[*found[1:], *_smaller(found)] for found in words if found and found[0] == "ntkdiag"]


def _smaller(words: list[str]) -> list[str]:
    command = words[1]
    if "--help" in words or "--list" in words:
        return []
    tiny = list(TINY.get(command, []))
    if command == "measure":
        tiny = [*tiny, "--buckets", "2", "--controls", "0"] if "full" in words else tiny[:6]
    if "--from" in words:
        tiny = []
    if "--resume" in words:
        tiny = ["--steps", "5"]
    model = words[words.index("--model") + 1] if "--model" in words else ""
    return tiny + [word for option in TINY_MODEL.get(model, []) for word in ("--model-option", option)]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty working folder; measurements and trainings in Python become small, and pages have two figures."""
    import ntkdiag as nd
    from ntkdiag.claims import verification
    from ntkdiag.diagnosis import measure
    from ntkdiag.report.figures import FIGURES
    from ntkdiag.report.page import page

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def measured(*arguments: Any, **options: Any) -> nd.Diagnosis:
        sizes = {"samples": min(8, options.get("samples", 8)), "probes": min(3, options.get("probes", 3))}
        full = options.get("full")
        settings = None if full is None else type(full)(top_k=2, trace_vectors=3, quadrature_vectors=2)
        if full is not None:  # at two noise levels
            arguments = (*arguments[:2], nd.Buckets.uniform(-4, 4, count=2))
        return measure(*arguments, **options | sizes | {"full": settings})

    gram = nd.gram

    def few(denoiser: nd.Denoiser, x0: torch.Tensor, *arguments: Any, **options: Any) -> nd.Gram:
        return gram(denoiser, x0[:100], *arguments, **options)

    monkeypatch.setattr(nd, "measure", measured)
    monkeypatch.setattr(nd, "gram", few)
    monkeypatch.setattr(verification, "measure", measured)
    monkeypatch.setattr(page, "FIGURES", {name: FIGURES[name] for name in ("effective_rank", "trace")})
    monkeypatch.setattr("ntkdiag.report.save_figures", lambda *arguments, **parts: {})
    preset = TrainConfig.preset
    monkeypatch.setattr(TrainConfig, "preset", lambda name, **given: preset(name, **given | {"steps": 4}))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(map(run, blocks(page, "python", "bash")))], ids=name_of
)
def test_the_code_of_a_page_runs(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_files(page)
    run_page(page, GIVEN.get(page.name, dict)(), capsys)


def run_page(page: Path, given: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Run the blocks of a page in order; Python blocks share the names `given`."""
    for block in filter(run, blocks(page, "python", "bash")):
        where = f"{page}:{block.line}"
        if block.language == "python":
            exec(compile("\n" * block.line + block.code, where, "exec"), given)
        for command in commands(block) if block.language == "bash" else []:
            code = main(command)
            assert code == 0 or (command[0] == "audit" and code == 1), (where, capsys.readouterr().err)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_a_block_is_run_or_says_why_not(page: Path) -> None:
    for block in blocks(page, "python", "bash"):
        where = f"{name_of(page)}:{block.line}"
        if block.reason:
            assert len(block.reason) > 10, where
        for found in SNIPPET.finditer(block.code):
            file = ROOT / found["file"]
            assert file.is_file(), where
            tested = any(file.name in test.read_text() for test in ROOT.glob("tests/**/test_*extend.py"))
            assert tested, f"{where}: no test runs {file.name}"
        if block.language == "bash" and run(block):
            # What else stands in a block of commands is make or pip, which this very test is run by.
            others = [line for line in block.code.splitlines() if not re.match(r"\s*(ntkdiag|--|$|#)", line)]
            assert all(re.match(r"make |pip |python ", line) for line in others), where


def test_a_fence_without_a_language_is_not_taken_for_tested_code() -> None:
    for page in PAGES:
        fences = re.findall(r"^```(?: { \.)?(\w*)", page.read_text(), re.MULTILINE)
        assert set(fences[::2]) <= {"python", "bash", "text", ""}, page
        assert set(fences[1::2]) <= {""}, page


@pytest.mark.usefixtures("small")
def test_code_that_is_wrong_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n\n```python\nimport ntkdiag as nd\n```\n\n```python\nnd.measur\n```\n")
    with pytest.raises(AttributeError, match="measur"):
        run_page(page, {}, capsys)
    page.write_text("```bash\nntkdiag measure --model nowhere\n```\n")
    with pytest.raises(AssertionError, match="nowhere"):
        run_page(page, {}, capsys)
