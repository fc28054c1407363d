"""The back end that explains: every form has a text, every check its words."""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Callable, Iterator

import keystone
import pytest

import pyemu.cpu
from pyemu.cpu import check_words, mechanism_words
from pyemu.cpu import flags as fl
from pyemu.cpu.concrete import Concrete
from pyemu.cpu.decode import record as rc
from pyemu.cpu.decode.decoder import decode
from pyemu.cpu.ops import build_table
from pyemu.cpu.sentences import CONDITION_WORDS, Meaning, Sentences, first_sentence, meaning
from pyemu.cpu.state import CS, FETCH_PHYS, FETCH_PHYS2, NO_PAGE, RECORD, SEG_LIMIT, new_state
from pyemu.cpu.values import Value
from pyemu.dry_run import condition_at

FORMS = build_table().forms


def test_every_form_has_a_text() -> None:
    for form in FORMS:
        means = meaning(form)
        assert means.text
        assert len(means.text) < 4000, form.name
        assert all(means.statements)
        assert len(means.faults) == len(set(means.faults))


def test_mechanism_is_named_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    called: set[Callable[..., int]] = set()
    call = Sentences.call

    def note(self: Sentences, function: Callable[..., int], *arguments: Value | int) -> None:
        called.add(function)
        call(self, function, *arguments)

    monkeypatch.setattr(Sentences, "call", note)
    for form in FORMS:
        meaning(form)
    assert len(called) > 80
    for function in called:
        name = function.__name__.rstrip("_")
        assert name in mechanism_words.WORDS or len(first_sentence(function).split()) >= 4, name
    assert mechanism_words.WORDS.keys() <= {function.__name__.rstrip("_") for function in called}, "these are gone"


def checks() -> Iterator[tuple[str, str, str]]:
    """Function, condition and path of every place where mechanism raises an exception."""
    for path in sorted(pathlib.Path(pyemu.cpu.__path__[0]).rglob("*.py")):
        if path.name in ("concrete.py", "faults.py", "msr.py"):
            continue
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                for node in ast.walk(function):
                    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                        continue
                    if node.func.id in ("raise_fault", "raise_page_fault", "raise_debug"):
                        yield function.name, condition_at(str(path), function.name, node.lineno), path.name


def test_every_check_has_its_words() -> None:
    found = list(checks())
    assert len(found) > 140
    missing = [entry for entry in found if entry[1] not in check_words.WORDS.get(entry[0], {})]
    assert not missing, "cpu/check_words.py says nothing of these"
    known = {(name, condition) for name, words in check_words.WORDS.items() for condition in words}
    stale = known - {entry[:2] for entry in found} - {("rdmsr", "call_service(s, READ_MSR, index, 0)")}
    assert not stale - {("wrmsr", "call_service(s, WRITE_MSR, index, value)")}, "these checks are gone"


def explained(text: str, bits: int = 64, address: int = 0x1000) -> Meaning:
    """The meaning of one instruction in assembler."""
    modes = {16: keystone.KS_MODE_16, 32: keystone.KS_MODE_32, 64: keystone.KS_MODE_64}
    code, _ = keystone.Ks(keystone.KS_ARCH_X86, modes[bits]).asm(text, address, as_bytes=True)
    s = new_state()
    s.ram = memoryview(bytearray(address) + bytearray(code) + bytearray(16))
    s[SEG_LIMIT + CS] = 0xFFFFFFFF
    s[FETCH_PHYS], s[FETCH_PHYS2] = address, NO_PAGE
    assert decode(s, address, address, int(bits == 64), int(bits == 32)) == 0
    words = [s[RECORD + n] for n in range(rc.WORDS)]
    return meaning(FORMS[words[rc.PACKED] & 0xFFFF], words)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("add rax, [rsi + 8]", "rax <- rax + mem64[rsi + 8]; flags from add64"),
        ("add eax, ecx", "rax <- eax + ecx, zero-extended; flags from add32"),
        ("sub byte ptr [rbx + rcx*4 - 16], ah", "mem8[rbx + rcx * 4 - 0x10] <- mem8[rbx + rcx * 4 - 0x10] - ah; flags from sub8"),
        ("cmp rax, 5", "flags from sub64 of rax and 5"),
        ("test al, 1", "flags from logic8 of al & 1"),
        ("mov rax, gs:[0x28]", "rax <- mem64[gs:0x28]"),
        ("lea r8, [rip + 0x10]", "r8 <- 0x1017"),
        ("push rbx", "mem64[rsp - 8] <- rbx; rsp <- rsp - 8"),
        ("ret", "rsp <- rsp + 8; rip <- mem64[rsp]"),
        ("jne 0x1010", "rip <- 0x1010 if not ZF, else the next instruction"),
        ("cmovge ax, dx", "ax <- dx if SF == OF else ax"),
        ("setb cl", "cl <- CF"),
        ("std", "DF <- 1"),
        ("hlt", "the processor halts until an interrupt"),
        ("paddd xmm1, xmm2", "xmm1 <- in each 32-bit lane: xmm1 + xmm2"),
        ("vaddpd ymm1, ymm2, [rax]", "ymm1 <- in each 64-bit lane: ymm2 + mem256[rax], what is above becomes 0"),
        ("movd xmm3, eax", "xmm3 <- eax, zero-extended"),
        ("mulss xmm1, xmm2", "xmm1.d[0] <- xmm1.d[0] * xmm2.d[0]"),
        ("aesenc xmm1, xmm2", "xmm1 <- aesenc(xmm1, xmm2)"),
        ("rep movsb", "until rcx = 0, rcx counting down: mem[es:rdi] <- mem[rsi], 1 bytes; rsi and rdi move on (back if DF)"),
        ("in al, dx", "1 bytes are read from I/O port dx; al <- port_in(dx)[7:0]"),
        ("mov cr3, rax", "control register cr3 <- rax, after checks of its reserved bits; modes and TLB follow"),
        ("wrmsr", "model-specific register ecx <- edx:eax"),
        ("mov ss, ax", "interrupts wait until the next instruction is over; so do debug traps; segment register ss is loaded with selector ax: its descriptor is fetched and checked"),
        ("fld st(2)", "a copy of st2 is pushed onto the x87 stack; the x87 instruction and data pointers name this instruction"),
        ("bswap rdx", "rdx <- bytes reversed(rdx)"),
        ("popcnt rax, rbx", "rax <- count of ones(rbx); ZF SF PF from rbx != 0; CF <- 0; OF <- 0; AF <- 0"),
        ("nop", "nothing"),
    ],
)  # fmt: skip
def test_sentences(text: str, expected: str) -> None:
    assert explained(text).text == expected


@pytest.mark.parametrize(
    ("bits", "text", "expected"),
    [
        (32, "add eax, [esi + 8]", "rax <- eax + mem32[ds:(rsi + 8) mod 2^32], zero-extended; flags from add32"),
        (16, "mov ax, es:[bx + si]", "ax <- mem16[es:(rbx + rsi) mod 2^16]"),
        (32, "push ebx", "mem32[rsp - 4] <- ebx; rsp <- rsp - 4"),
        (32, "jmp 0x1010", "rip <- 0x1010"),
        (64, "mov eax, [esi]", "rax <- mem32[(rsi) mod 2^32], zero-extended"),
    ],
)
def test_sentences_in_other_modes(bits: int, text: str, expected: str) -> None:
    assert explained(text, bits).text == expected


def test_faults_are_those_of_the_definition() -> None:
    assert explained("div rcx").checks[0].name == "#DE"
    assert str(explained("hlt").checks[0]) == "#GP(0) if CPL != 0"
    assert str(explained("ud2").checks[0]) == "#UD always"
    assert "#NM if CR0.TS" in explained("movaps xmm0, [rax]").faults
    assert any("& 0xf) != 0" in fault for fault in explained("movaps xmm0, [rax]").faults)
    assert explained("mov rax, [rbx]").touches_memory and not explained("mov rax, rbx").touches_memory


def test_condition_words_are_the_conditions() -> None:
    """Against the definition of the conditions on all flags."""
    s = new_state()
    for image in range(64):
        names = ("CF", "PF", "AF", "ZF", "SF", "OF")
        values = {name: bool(image >> n & 1) for n, name in enumerate(names)}
        fl.set_arithmetic(s, sum(getattr(fl, name) for name, value in values.items() if value))
        i = Concrete(s)
        i.form = FORMS[0]
        for code, words in enumerate(CONDITION_WORDS):
            assert bool(fl.condition(i, code).payload) == bool(eval(words, {}, values)), words
