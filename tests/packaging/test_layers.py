"""No folder imports what is above it: the rules that import-linter can't express, and what happens at run time.

Every import statement counts, also those inside functions and for type checking.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("cpu", "devices", "firmware", "jit")

# folder: what of pyemu its modules may name
ALLOWED = {
    "cpu": ("pyemu.cpu",),
    "jit": ("pyemu.cpu", "pyemu.jit"),
    "devices": ("pyemu.devices",),
    "firmware": ("pyemu.firmware", "pyemu.devices.interfaces"),
}
# The others may use no third-party code at all, or only this much.
OUTSIDE_PACKAGES = {
    "cpu": {"capstone"},
    "devices": set[str](),
    "firmware": {"keystone", "lz4", "zstandard"},
}


def imports(file: Path, package: str) -> Iterator[str]:
    """Full names of everything that a file imports; `package` is what its relative imports start from."""
    for node in ast.walk(ast.parse(file.read_text(), str(file))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{origin}.{alias.name}"


def folder_imports(folder: str) -> Iterator[tuple[Path, str]]:
    """File and imported name of each import in a folder."""
    for file in sorted((ROOT / folder).rglob("*.py")):
        package = ".".join(("pyemu", *file.relative_to(ROOT).parent.parts))
        for name in imports(file, package):
            yield file.relative_to(ROOT), name


def within(name: str, packages: tuple[str, ...]) -> bool:
    """Whether a dotted name is one of the packages or inside one."""
    return any(name == package or name.startswith(package + ".") for package in packages)


@pytest.mark.parametrize("folder", FOLDERS)
def test_folder_imports_only_what_is_below_it(folder: str) -> None:
    wrong = [
        f"{file}: {name}"
        for file, name in folder_imports(folder)
        if name.split(".")[0] == "pyemu" and not within(name, ALLOWED[folder])
    ]
    assert not wrong


@pytest.mark.parametrize("folder", sorted(OUTSIDE_PACKAGES))
def test_folder_uses_only_the_outside_packages_it_should(folder: str) -> None:
    allowed = sys.stdlib_module_names | {"pyemu"} | OUTSIDE_PACKAGES[folder]
    assert not [f"{file}: {name}" for file, name in folder_imports(folder) if name.split(".")[0] not in allowed]


def test_relative_imports_are_understood(tmp_path: Path) -> None:
    file = tmp_path / "module.py"
    top = "from . import a\nfrom .. import b\nfrom ..c import d\nimport e.f\n"
    file.write_text(top + "def g():\n    from .h import i\n")
    names = ["pyemu.cpu.decode.a", "pyemu.cpu.b", "pyemu.cpu.c.d", "e.f", "pyemu.cpu.decode.h.i"]
    assert sorted(imports(file, "pyemu.cpu.decode")) == sorted(names)


@pytest.mark.parametrize("folder", FOLDERS)
def test_importing_a_folder_loads_no_sibling_that_it_does_not_need(folder: str) -> None:
    program = f"import sys, pyemu.{folder}; print(*sys.modules, sep='\\n')"
    output = subprocess.run([sys.executable, "-c", program], cwd="/", check=True, capture_output=True, text=True).stdout
    loaded = {name for name in output.split() if name.startswith("pyemu.")}
    assert f"pyemu.{folder}" in loaded
    assert not [name for name in loaded if not within(name, ALLOWED[folder])]
    if folder != "jit":
        assert "llvmlite" not in output.split()
