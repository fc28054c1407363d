"""What an edit has compiled again: everything that depends on the source, and little else."""

import pytest

from pyemu.cpu.ops import build_table
from pyemu.jit import shards


def changed_by_edit(module: str, monkeypatch: pytest.MonkeyPatch) -> tuple[set[str], set[str]]:
    """The modules whose shards of handlers, and of stencils, get other keys when a source changes."""
    forms = build_table().forms
    before = shards.shards(forms)
    contents = shards.contents
    monkeypatch.setattr(shards, "contents", lambda name: b"edited" if name == module else contents(name))
    changed: dict[shards.Kind, set[str]] = {kind: set() for kind in shards.Kind}
    for old, new in zip(before, shards.shards(forms), strict=True):
        if old.key != new.key:
            name = forms[old.forms[0]].row.function.__module__.rpartition(".")[2] if old.forms else "helpers"
            changed[old.kind].add(name)
    return changed[shards.Kind.HANDLERS], changed[shards.Kind.STENCILS]


ALL = {form.row.function.__module__.rpartition(".")[2] for form in build_table().forms if not form.row.lazy}


@pytest.mark.parametrize(
    ("module", "handlers", "stencils"),
    [
        ("pyemu.cpu.semantics.alu", {"alu"}, {"alu"}),
        ("pyemu.jit.translator", set(), set()),
        ("pyemu.cpu.decode.decoder", set(), set()),
        ("pyemu.jit.stencils", set(), {*ALL, "helpers"}),
        ("pyemu.jit.emit", ALL, {*ALL, "helpers"}),
        ("pyemu.cpu.instruction", ALL, {*ALL, "helpers"}),
    ],
)
def test_an_edit_touches(module: str, handlers: set[str], stencils: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Exactly these modules' shards."""
    assert changed_by_edit(module, monkeypatch) == (handlers, stencils)


def test_rows_may_stand_in_another_module_than_their_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit of a module that registers rows for functions of another one touches those too."""
    assert {"packed", "mmx"} & ALL <= changed_by_edit("pyemu.cpu.semantics.mmx", monkeypatch)[0]


def test_names_are_unique_and_have_no_numbers_of_forms() -> None:
    """Symbols are the same after a row was added in front."""
    forms = build_table().forms
    assert len({form.name for form in forms}) == len(forms)
