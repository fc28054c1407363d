"""pyemu: an x86-64 system emulator in Python.

The public API: `from pyemu import Machine`. Names are loaded on first use (PEP 562), so that importing a
sub-package such as `pyemu.cpu` loads none of its siblings.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyemu.machine import Machine

__all__ = ["Machine", "__version__"]
__version__ = "0.1.0"

_HOME = {"Machine": "pyemu.machine"}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'pyemu' has no attribute {name!r}")
