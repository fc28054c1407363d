"""The packages that pyproject.toml lists are those of the tree, installed under the names they should have."""

import importlib
import importlib.metadata
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import pyemu

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = {
    "emu": "pyemu",
    "cpu": "pyemu.cpu",
    "devices": "pyemu.devices",
    "firmware": "pyemu.firmware",
    "jit": "pyemu.jit",
}
MAX_LINES = 600


def project() -> dict[str, Any]:
    """What pyproject.toml says."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def sources() -> Iterator[Path]:
    """Every Python file of the project."""
    for folder in (*FOLDERS, "tests", "benchmarks"):
        yield from (ROOT / folder).rglob("*.py")


def packages_in_tree() -> dict[str, Path]:
    """Name and directory of every directory that holds modules."""
    found = {}
    for folder, name in FOLDERS.items():
        for directory in {file.parent for file in (ROOT / folder).rglob("*.py")}:
            below = directory.relative_to(ROOT / folder).parts
            found[".".join((name, *below))] = directory
    return found


def test_the_list_of_packages_is_the_tree() -> None:
    listed = project()["tool"]["setuptools"]["packages"]
    tree = sorted(packages_in_tree())
    assert listed == tree, f"tool.setuptools.packages in pyproject.toml should be {json.dumps(tree)}"


def test_the_mapping_of_folders() -> None:
    mapping = project()["tool"]["setuptools"]["package-dir"]
    assert mapping == {name: folder for folder, name in FOLDERS.items()}


@pytest.mark.parametrize("name", sorted(packages_in_tree()))
def test_package_is_imported_from_its_folder(name: str) -> None:
    directory = packages_in_tree()[name]
    assert (directory / "__init__.py").is_file()
    module = importlib.import_module(name)
    assert module.__file__ and Path(module.__file__).resolve() == directory / "__init__.py"


def test_the_distribution_is_not_called_pyemu() -> None:
    assert importlib.metadata.metadata("pyemu-x86")["Name"] == "pyemu-x86"
    owners = importlib.metadata.packages_distributions().get("pyemu", ["pyemu-x86"])
    assert set(owners) == {"pyemu-x86"}, "PyPI's pyemu is another project, and it's installed here"


def test_running_needs_none_of_the_test_tools() -> None:
    """Imports every module with the test and development tools, and what they bring, made unimportable."""
    hidden = ["pytest", "hypothesis", "unicorn", "numba", "mypy", "ruff", "_pytest"]
    modules = []
    for name, directory in packages_in_tree().items():
        modules += [f"{name}.{file.stem}" for file in directory.glob("*.py") if not file.stem.startswith("__")]
    program = (
        "import importlib, sys\n"
        f"for name in {hidden!r}: sys.modules[name] = None\n"
        f"for name in {sorted(modules)!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_files_stay_short_enough_to_read() -> None:
    too_long = {}
    for file in sources():
        lines = file.read_text().count("\n")
        if lines >= MAX_LINES:
            too_long[str(file.relative_to(ROOT))] = lines
    assert not too_long


def test_version_is_the_same_everywhere() -> None:
    assert project()["project"]["version"] == pyemu.__version__


def test_license_is_apache() -> None:
    assert project()["project"]["license"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
