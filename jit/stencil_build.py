"""Compiles stencils: which forms have which, and what becomes of those whose code can't be used.

Not here: what is in a stencil (stencils.py), how LLVM's objects are cut (stencil_object.py).
"""

from __future__ import annotations

import llvmlite.ir as ir

from pyemu.cpu.ops import Form
from pyemu.jit.stencil_object import Stencil, compile_object, extract
from pyemu.jit.stencils import (
    DEAD,
    FLAT,
    HELPERS,
    UNMASKED,
    FlatEmitter,
    Helper,
    NoStencilError,
    StencilEmitter,
)
from pyemu.jit.subset import ModuleCompiler


def compile_helpers() -> dict[str, Stencil]:
    """The stencils that belong to no instruction, by name."""
    owner = ModuleCompiler("helpers", {})
    for name, body in HELPERS.items():
        Helper(owner, name, body)
    return extract(compile_object(owner), list(HELPERS))


def compile_stencils(forms: list[Form]) -> dict[str, Stencil]:
    """The stencils of some forms: by the form's name, with FLAT behind it for those of flat 32-bit mode alone, and then
    DEAD or UNMASKED for the shorter ones. Where ordered loads lead LLVM to code that extract() refuses, others may
    not."""
    stencils, refused = _compile(forms, True)
    if refused:
        others, _ = _compile([form for form in forms if form.name in refused], False)
        stencils = others | stencils
    return stencils


def _compile(forms: list[Form], ordered: bool) -> tuple[dict[str, Stencil], set[str]]:
    """The stencils that come out, and the names of the forms of which one was refused."""
    owner = ModuleCompiler("stencils", {})
    built: dict[str, StencilEmitter] = {}
    for form in forms:
        if form.row.sets_rip:
            continue
        if form.row.modes != "legacy":
            _build_form(owner, form, StencilEmitter, form.name, built, ordered)
        found = [built[name] for name in (form.name, form.name + shorter(form)) if name in built]
        if form.row.modes == "legacy" or (form.row.modes == "any" and any(emitter.wide for emitter in found)):
            _build_form(owner, form, FlatEmitter, form.name + FLAT, built, ordered)
    stencils = extract(compile_object(owner), list(built))
    for name, stencil in stencils.items():
        stencil.wide, stencil.address_sized = built[name].wide, built[name].address_sized
    return stencils, {emitter.form.name for name, emitter in built.items() if name not in stencils}


def shorter(form: Form) -> str:
    """What ends the name of a form's shorter stencil; "" if it has none."""
    return UNMASKED if form.row.element else DEAD if {"w", "m"} & set(form.row.flags) else ""


def _build_form(
    owner: ModuleCompiler,
    form: Form,
    kind: type[StencilEmitter],
    name: str,
    built: dict[str, StencilEmitter],
    ordered: bool,
) -> None:
    """Add the stencils of a form for one mode to a module, those that it can have."""
    for suffix in dict.fromkeys(("", shorter(form))):
        emitter = kind(owner, form, name + suffix, suffix == DEAD, suffix == UNMASKED)
        emitter.ordered = ordered
        try:
            emitter.build()
        except NoStencilError:
            drop(owner.module, name + suffix)
        else:
            built[name + suffix] = emitter


def drop(module: ir.Module, name: str) -> None:
    """Take an unfinished function out of a module."""
    del module.globals[name]
    module.scope._useset.discard(name)
