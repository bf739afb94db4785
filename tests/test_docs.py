"""What the documentation says is run, or made by what it speaks of."""

from __future__ import annotations

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from edgetl.config import load_study

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.S)


def test_the_command_reference_is_what_the_commands_say() -> None:
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == _script("generate_cli").reference(), (
        "run make docs"
    )


def test_the_figures_of_the_readme_are_those_of_the_results() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert readme == _script("generate_figures").with_figures(readme), "run make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_study_files_of_the_documentation_are_valid(page: Path, tmp_path: Path) -> None:
    for block in _blocks(page, "yaml"):
        (tmp_path / "study.yaml").write_text(block)
        load_study(tmp_path / "study.yaml")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.slow
def test_the_commands_of_the_readme_run_one_after_another(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    commands = [line for block in _blocks(ROOT / "README.md", "console") for line in block.splitlines()]
    assert len(commands) >= 10
    for line in commands:
        program, *arguments = shlex.split(line)
        assert program == "edgetl"
        done = subprocess.run(
            [sys.executable, "-m", "edgetl", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
