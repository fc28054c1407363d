"""-cpu: QEMU's names and syntax."""

import subprocess
import sys

import pytest

from pyemu import cpuoption
from pyemu.config import ConfigError
from pyemu.cpu.cpuid import configure, model_of
from pyemu.cpu.features import IMPLEMENTED
from pyemu.cpu.models import MODELS
from pyemu.cpu.state import new_state
from pyemu.cpuoption import choose, host_features

CPUINFO = "processor\t: 0\nflags\t\t: fpu sse sse2 pni sse4_1 avx512_vnni lahf_lm nx lm\nbugs\t\t: none\n"


def test_max_has_everything_and_no_warning():
    chosen = choose("max")
    assert chosen.features == IMPLEMENTED
    assert chosen.warning == ""


@pytest.mark.parametrize("name", [model.name for model in MODELS])
def test_a_warning_names_exactly_what_is_missing(name):
    chosen = choose(name)
    missing = chosen.model.features - IMPLEMENTED
    assert chosen.features <= IMPLEMENTED
    assert chosen.warning.partition("left out: ")[2] == ", ".join(sorted(missing))
    assert choose(f"{name},check=off").warning == ""
    if missing:
        with pytest.raises(ConfigError, match="not implemented"):
            choose(f"{name},enforce")


@pytest.mark.parametrize(
    ("text", "has", "lacks"),
    [
        ("qemu64,+popcnt", "popcnt", "ssse3"),
        ("qemu64,popcnt=on,ssse3", "popcnt ssse3", "sse4.1"),
        ("max,-popcnt", "sse4.2", "popcnt"),
        ("max,+popcnt,-popcnt", "", "popcnt"),
        ("max,-popcnt,+popcnt", "", "popcnt"),  # as in QEMU, minus wins
        ("max,popcnt=off,+popcnt", "popcnt", ""),
        ("max,-sse4_1", "ssse3", "sse4.1 sse4.2"),
        ("max,sse4-2=off", "sse4.1", "sse4.2"),
        ("max,-xsave", "", "xsave xsaveopt xsavec xsaves xgetbv1"),
        ("max,-lahf_lm,-sse3", "sse2", "lahf-lm pni ssse3"),
    ],
)
def test_features_come_and_go(text, has, lacks):
    chosen = choose(text)
    assert set(has.split()) <= chosen.features
    assert not set(lacks.split()) & chosen.features
    assert not any(name in chosen.warning for name in has.split())


def test_properties_of_the_width():
    assert choose("max,phys-bits=40,host-phys-bits=off,migratable=no,host-phys-bits") == choose("max")
    with pytest.raises(ConfigError, match="phys-bits=36: only 40 is implemented"):
        choose("IvyBridge,phys-bits=36")
    with pytest.raises(ConfigError, match="migratable=maybe: expected on or off"):
        choose("max,migratable=maybe")


def test_what_is_asked_for_in_vain_is_named():
    assert choose("max,+hle").warning == "-cpu max: not implemented and left out: hle"
    assert choose("486,+sse4.1").warning == "-cpu 486: left out: sse4.1 (needs ssse3)"
    with pytest.raises(ConfigError, match=r"sse4.1 \(needs ssse3\)"):
        choose("486,+sse4.1,enforce=on")


def test_host_is_cut_to_the_host(monkeypatch):
    assert host_features(CPUINFO) == {"fpu", "sse", "sse2", "pni", "sse4.1", "avx512vnni", "lahf-lm", "nx", "lm"}
    monkeypatch.setattr(cpuoption, "host_features", lambda: host_features(CPUINFO))
    chosen = choose("host,+popcnt")
    assert chosen.features & {"sse", "sse2", "pni", "ssse3", "sse4.1", "sse4.2", "lm"} == {"sse", "sse2", "pni", "lm"}
    assert {"popcnt", "hypervisor", "apic"} <= chosen.features
    assert chosen.warning == ""


def test_the_real_host():
    assert {"fpu", "sse2", "lm", "cx8"} <= choose("host").features <= IMPLEMENTED


def test_help_names_models_and_features():
    command = [sys.executable, "-m", "pyemu", "-cpu", "help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    for word in ("qemu64", "Haswell", "EPYC-Milan", "sse4.2", "rtm"):
        assert word in done.stdout.split()


def test_vendor():
    chosen = choose("max,vendor=GenuineIntel")
    assert chosen.model.vendor == "GenuineIntel"
    state = new_state()
    configure(state, chosen.model, chosen.features)
    assert model_of(state) == chosen.model
    with pytest.raises(ConfigError, match="unknown vendor"):
        choose("max,vendor=me")
