"""`-cpu MODEL[,+FEATURE][,-FEATURE][,FEATURE=on|off][,check=on|off][,enforce=on|off][,vendor=ID]`: QEMU's names and
meaning; also `phys-bits=40`, the only width there is, and what concerns QEMU's KVM only: `migratable`,
`host-phys-bits`.

    choose(text) -> Chosen     ConfigError, one line, for what is unknown
    help_text()                what `-cpu help` prints

As in QEMU, what a model or the user asks for and pyemu lacks is left out with a warning; with `enforce` it is an error.
`host` is `max` without what the host's processor lacks. Not here: what the models are (cpu/models.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pyemu.config import ConfigError
from pyemu.cpu.features import ALIASES, FEATURES, IMPLEMENTED, NEEDS, closed
from pyemu.cpu.models import MODELS, VENDORS, Model, model
from pyemu.cpu.physical import PHYSICAL_BITS

_SWITCH = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}
# The machine provides these whatever the host has.
_OF_THE_MACHINE = frozenset("hypervisor apic x2apic tsc-deadline arat invtsc ss".split())
_WITHOUT_EFFECT = frozenset(("migratable", "host-phys-bits"))  # about the host's processor under KVM
# Linux's names in /proc/cpuinfo where they are not QEMU's with underscores
_LINUX_NAMES = {
    "sse4.1": "sse4_1", "sse4.2": "sse4_2", "avx512vbmi2": "avx512_vbmi2", "avx512vnni": "avx512_vnni",
    "avx512bitalg": "avx512_bitalg", "avx512-vpopcntdq": "avx512_vpopcntdq",
}  # fmt: skip


@dataclass(frozen=True)
class Chosen:
    """What -cpu asks for."""

    model: Model
    features: frozenset[str]
    warning: str = ""  # one line, or nothing


def _feature(name: str) -> str:
    plain = name.lower().replace("_", "-")
    for spelling in (name, plain, plain.replace("sse4-", "sse4.")):
        found = ALIASES.get(spelling, spelling)
        if found in FEATURES:
            return found
    raise ConfigError(f"-cpu: unknown feature or property '{name}' (-cpu help lists them)")


def _switch(name: str, value: str) -> bool:
    if value not in _SWITCH:
        raise ConfigError(f"-cpu: {name}={value}: expected on or off")
    return _SWITCH[value]


def host_features(cpuinfo: str | None = None) -> frozenset[str]:
    """The features that the host's processor has."""
    text = Path("/proc/cpuinfo").read_text() if cpuinfo is None else cpuinfo
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    listed = set(flags[1].split()) if flags else set()
    return frozenset(name for name in FEATURES if _LINUX_NAMES.get(name, name.replace("-", "_")) in listed)


def _needed(names: Iterable[str]) -> str:
    """Why these had to go."""
    return ", ".join(f"{name} (needs {' '.join(sorted(NEEDS[name]))})" for name in sorted(names))


def choose(text: str) -> Chosen:
    """What the option's value means."""
    name, *words = text.split(",")
    try:
        chosen = model(name)
    except KeyError:
        raise ConfigError(f"unknown CPU model '{name}' (-cpu help lists them)") from None
    wanted = set(chosen.features)
    if name == "host":
        wanted &= host_features() | _OF_THE_MACHINE
    enforce, check = False, True
    asked: set[str] = set()
    changes: list[tuple[int, str, bool]] = []  # order: FEATURE=on|off as written, then all +, then all -
    for word in words:
        key, equals, value = word.partition("=")
        if word[:1] in ("+", "-") and not equals:
            changes.append((1 if word[0] == "+" else 2, _feature(word[1:]), word[0] == "+"))
        elif key == "enforce":
            enforce = _switch(key, value) if equals else True
        elif key == "vendor":
            if value not in VENDORS:
                raise ConfigError(f"-cpu: unknown vendor '{value}' (known: {', '.join(VENDORS)})")
            chosen = replace(chosen, vendor=value)
        elif key in _WITHOUT_EFFECT:
            _switch(key, value if equals else "on")
        elif key == "phys-bits":
            if value != str(PHYSICAL_BITS):
                raise ConfigError(f"-cpu: phys-bits={value}: only {PHYSICAL_BITS} is implemented")
        elif key == "check":
            check = _switch(key, value) if equals else True
        else:
            changes.append((0, _feature(key), _switch(key, value) if equals else True))
    for _, feature, on in sorted(changes, key=lambda change: change[0]):
        for names in (wanted, asked):
            if on:
                names.add(feature)
            else:
                names.discard(feature)
    have = wanted & IMPLEMENTED
    features = closed(have)
    complaints = []
    if lacking := wanted - IMPLEMENTED:
        complaints.append(f"not implemented and left out: {', '.join(sorted(lacking))}")
    if lost := (have - features) & asked:
        complaints.append(f"left out: {_needed(lost)}")
    complaint = f"-cpu {name}: {'; '.join(complaints)}" if complaints else ""
    if complaint and enforce:
        raise ConfigError(complaint)
    return Chosen(chosen, features, complaint if check else "")


def help_text() -> str:
    """The models and the features."""
    lines = ["CPU models:"]
    descriptions = {"max": "everything that is implemented", "host": "max without what the host's processor lacks"}
    for known in MODELS:
        lines.append(f"  {known.name:<28} {descriptions.get(known.name, known.brand)}".rstrip())
    lines += ["", "Implemented features, for +FEATURE and -FEATURE:", *_wrapped(sorted(IMPLEMENTED))]
    return "\n".join([*lines, "", "Known, but not implemented:", *_wrapped(sorted(set(FEATURES) - IMPLEMENTED))])


def _wrapped(words: list[str]) -> list[str]:
    from textwrap import wrap

    return wrap(" ".join(words), 78, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
