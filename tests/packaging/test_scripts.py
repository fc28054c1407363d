"""The scripts that people and CI start do what the README says of them."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import judges

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("tests/run", ".ci/run")


@pytest.mark.parametrize("script", SCRIPTS)
def test_script_is_executable_and_parses(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)
    subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_ci_runs_exactly_what_people_run() -> None:
    commands = [line for line in (ROOT / ".ci/run").read_text().splitlines() if line and not line.startswith("#")]
    assert len(commands) == 1
    assert re.fullmatch(r'exec ".*/\.\./tests/run" "\$@"', commands[0])


def test_run_explains_a_missing_python(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "tests").mkdir(parents=True)
    for name in ("tests/run", "pyproject.toml"):
        shutil.copy(ROOT / name, tree / name)
    tools = tmp_path / "bin"  # a system that has everything but Python
    tools.mkdir()
    for name in ("bash", "cksum", "dirname", "rm"):
        path = shutil.which(name)
        assert path
        (tools / name).symlink_to(path)
    done = subprocess.run(
        [tools / "bash", tree / "tests/run"], env={"PATH": str(tools)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "no Python 3.11 or newer found" in done.stderr


def test_missing_judges_are_named_with_what_to_install(tmp_path: Path) -> None:
    programs = dict(list(judges.PACKAGES.items())[:2]) | {"sh": "dash"}
    assert "sh" not in judges.missing(programs)
    done = subprocess.run(
        [sys.executable, "-m", "tests.judges"], cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 1  # no apt-get in that PATH either
    for word in (*judges.PACKAGES, *judges.PACKAGES.values(), "apt-get install"):
        assert word in done.stderr


def test_a_test_without_its_judge_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert judges.require("iasl").endswith("/iasl")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(pytest.fail.Exception, match="not found: iasl; install them, on Debian: apt-get install acpica"):
        judges.require("iasl")


def test_first_command_of_the_readme_installs_this_distribution() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "tests/run" in readme
    assert "pip install pyemu" not in readme, "that would be another project"
