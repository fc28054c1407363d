"""The decoder: bytes at a linear address become a record (record.py). Mechanism subset.

    start_fetch(s, linear)                            once, where nothing is known about the page
    decode(s, rip, linear, mode64, default32)         the instruction at `linear`, into State[RECORD...]

The caller keeps FETCH_PHYS at the physical address of `linear` and FETCH_PHYS2 at that of the next page or NO_PAGE;
decode() looks the next page up when a byte of it is really needed, so an instruction that ends at a page's end never
touches the next. decode() returns 0, or 1 with a fault raised: #UD, #GP (more than 15 bytes, beyond the code segment),
or #PF.
"""

from __future__ import annotations

from pyemu.cpu import paging
from pyemu.cpu.cpuid import has_feature
from pyemu.cpu.decode import record as rc
from pyemu.cpu.decode import vex
from pyemu.cpu.decode.tables import (
    BASE_16,
    C_BYTE,
    C_MASK,
    C_XMM,
    CANDIDATE_FORM,
    CANDIDATE_MASK,
    CANDIDATE_VALUE,
    CLASS_ROW,
    CLASSES,
    D_FEATURE,
    D_FEATURE2,
    D_IMM,
    D_IMM2,
    D_INSTEAD,
    D_LOCK,
    D_MOFFS,
    D_OP,
    D_REG,
    D_REP,
    D_RM,
    DESCRIPTION,
    GROUP,
    HAS_MODRM,
    INDEX_16,
    INVALID,
    LONG32,
    MODRM,
    NO_REGISTER,
    NO_REX,
    P_ADDRESS,
    P_LOCK,
    P_OPERAND,
    P_REPEAT_SHIFT,
    P_REX_SHIFT,
    P_SEGMENT_SHIFT,
    PREFIX,
    REGISTER,
    REGISTER_ONLY,
    SEGMENT_16,
    SITUATIONS,
    VECTOR,
    VEX_FIRST,
)
from pyemu.cpu.decode.vex_tables import X_DISP8, X_IS4, X_VSIB, X_VVVV
from pyemu.cpu.faults import GP, UD, raise_fault
from pyemu.cpu.mode import PROTECTED, V86
from pyemu.cpu.primitives import mmio_read, ram8
from pyemu.cpu.state import (
    CS,
    DS,
    FETCH_FAULT,
    FETCH_PHYS,
    FETCH_PHYS2,
    FETCH_RIP,
    FS,
    GPR,
    M64,
    MODE,
    NO_PAGE,
    RECORD,
    SEG_BASE,
    SEG_LIMIT,
    SS,
    VEC,
    WALK_PHYS,
    ZERO,
    State,
)

MAX_LENGTH = 15  # SDM 2, 2.3.11
LEGACY_LINEAR = 0xFFFFFFFF
ABSENT = 8 * ZERO  # offset of an absent base or index
REX_B, REX_X, REX_R, REX_W = 1, 2, 4, 8
RSP_NUMBER, RBP_NUMBER = 4, 5


def start_fetch(s: State, linear: int) -> int:
    """Translate the page of `linear` and point the fetch window at it: 0, or 1 with the fault raised."""
    if paging.fetch_page(s, linear):
        return 1
    s[FETCH_PHYS] = s[WALK_PHYS] + (linear & 0xFFF)
    s[FETCH_PHYS2] = NO_PAGE
    return 0


def fetch8(s: State, n: int) -> int:
    """Byte `n` of the instruction. If there is none, FETCH_FAULT is set, the fault is raised, and the result is 0."""
    within = (s[FETCH_RIP] & 0xFFF) + n
    if n >= MAX_LENGTH:
        return no_byte(s, GP)
    if within < 0x1000:
        return fetch_physical(s, s[FETCH_PHYS] + n)
    if s[FETCH_PHYS2] == NO_PAGE:
        if s[FETCH_FAULT]:
            return 0
        if fetch_next_page(s):
            return 0
    return fetch_physical(s, s[FETCH_PHYS2] + within - 0x1000)


def fetch_physical(s: State, address: int) -> int:
    """One code byte; a guest may well run into device memory."""
    if address & paging.FETCH_MMIO:
        return mmio_read(s, address & ~paging.FETCH_MMIO, 1) & 0xFF
    return ram8(s, address)


def no_byte(s: State, vector: int) -> int:
    """The first failure of a fetch raises; always 0."""
    if s[FETCH_FAULT] == 0:
        raise_fault(s, vector, 0)
    s[FETCH_FAULT] = 1
    return 0


def fetch_next_page(s: State) -> int:
    """Find the page after the one that the instruction begins in."""
    linear = ((s[FETCH_RIP] & 0xFFFFFFFFFFFFF000) + 0x1000) & M64
    if s[RECORD + rc.PACKED] & (rc.LEGACY << rc.RFLAGS_SHIFT):
        linear = linear & LEGACY_LINEAR
    if paging.fetch_page(s, linear):
        s[FETCH_FAULT] = 1
        return 1
    s[FETCH_PHYS2] = s[WALK_PHYS]
    return 0


def fetch_value(s: State, n: int, size: int) -> int:
    """`size` (0, 1, 2, 4, 8) bytes from byte `n`, sign-extended."""
    if size == 0:
        return 0
    value = 0
    for i in range(size):
        value = value | fetch8(s, n + i) << (8 * i)
    if size == 8:
        return value
    sign = 1 << (8 * size - 1)
    return ((value ^ sign) - sign) & M64


def undefined(s: State) -> int:
    """#UD, unless the bytes could not even be fetched."""
    if s[FETCH_FAULT]:
        return 1
    return raise_fault(s, UD, 0)


def register_offset(kind: int, number: int, rex: int) -> int:
    """What the record says for a register of a class: an offset or a number, or NO_REGISTER."""
    if kind == C_BYTE and rex == 0:
        number = number | NO_REX
    return REGISTER[kind * CLASS_ROW + number]


def pack_address(base: int, index: int, scale: int) -> int:
    """Word ADDRESS without the segment base."""
    return base << rc.BASE | index << rc.INDEX_REG | scale << rc.SCALE


def memory_16(s: State, modrm: int, n: int) -> int:
    """16-bit addressing forms: fills DISP, ADDRESS and the default segment; returns the next byte's number."""
    rm = modrm & 7
    mod = modrm >> 6
    if mod == 0 and rm == 6:
        s[RECORD + rc.DISP] = fetch_value(s, n, 2)
        s[RECORD + rc.ADDRESS] = pack_address(ABSENT, ABSENT, 0)
        s[RECORD + rc.IMM2] = DS
        return n + 2
    s[RECORD + rc.DISP] = fetch_value(s, n, mod)
    s[RECORD + rc.ADDRESS] = pack_address(BASE_16[rm], INDEX_16[rm], 0)
    s[RECORD + rc.IMM2] = SEGMENT_16[rm]
    return n + mod


def memory_32(s: State, modrm: int, n: int, rex: int) -> int:
    """32- and 64-bit addressing forms, all but [disp32] without a SIB byte; like memory_16."""
    mod = modrm >> 6
    base = modrm & 7
    index = ABSENT
    scale = 0
    size = mod & 1 | (mod & 2) << 1  # bytes of the displacement: 0, 1, 4
    if base == RSP_NUMBER:
        sib = fetch8(s, n)
        n = n + 1
        base = sib & 7
        number = (sib >> 3) & 7 | (rex & REX_X) << 2
        if number != RSP_NUMBER:
            index = 8 * (GPR + number)
            scale = sib >> 6
    where = 8 * (GPR + (base | (rex & REX_B) << 3))
    segment = DS
    if base == RBP_NUMBER and mod == 0:
        size = 4
        where = ABSENT
    elif where == 8 * (GPR + RSP_NUMBER) or where == 8 * (GPR + RBP_NUMBER):
        segment = SS
    s[RECORD + rc.DISP] = fetch_value(s, n, size)
    s[RECORD + rc.ADDRESS] = pack_address(where, index, scale)
    s[RECORD + rc.IMM2] = segment
    return n + size


def fetch_vex(s: State, n: int, opcode: int, prefixes: int, mode64: int) -> int:
    """If C4, C5 or 62 (the byte before byte `n`) begins a VEX or EVEX prefix here: its word (vex.py). Else 0."""
    first = fetch8(s, n)
    if mode64 == 0:
        if first < 0xC0 or s[MODE] & (PROTECTED | V86) != PROTECTED:
            return 0
    second = 0
    third = 0
    if opcode != vex.VEX2:
        second = fetch8(s, n + 1)
    if opcode == vex.EVEX:
        third = fetch8(s, n + 2)
    word = vex.parse_vex(opcode, first, second, third, mode64)
    if prefixes & (P_OPERAND | P_LOCK | 3 << P_REPEAT_SHIFT) or prefixes >> P_REX_SHIFT:
        word = word | vex.V_BAD
    return word


def vector_index(s: State, word: int, n: int) -> int:
    """Let the index of an address be a vector register (VSIB, SDM 2, 2.3.12); `n` is the SIB byte's number."""
    number = (fetch8(s, n) >> 3) & 7 | (word & REX_X) << 2 | ((word >> (vex.V_VVVV + 4)) & 1) << 4
    fields = s[RECORD + rc.ADDRESS] & ~((0xFFFF << rc.INDEX_REG) | (0xFFFF << rc.SCALE))
    scale = fetch8(s, n) >> 6
    s[RECORD + rc.ADDRESS] = fields | 8 * (VEC + 8 * number) << rc.INDEX_REG | scale << rc.SCALE
    return 0


def vector_registers(word: int, vector: int, modrm: int, description: int) -> int:
    """Word REGS of a VEX or EVEX instruction; NO_REGISTER in a field that names none."""
    reg = (modrm >> 3) & 7 | (word & REX_R) << 1 | (word & vex.V_REG4)
    rm = modrm & 7 | (word & REX_B) << 3
    kind = (description >> D_RM) & 15
    if kind == C_XMM:
        if word & vex.V_EVEX:
            rm = rm | (word & REX_X) << 3
    elif kind == C_MASK:
        rm = rm & 7
    third = (word >> vex.V_VVVV) & 31
    if word & vex.V_EVEX == 0:  # AMD's processors ignore the fourth bit of a mask register's number
        reg = reg & 7 if (description >> D_REG) & 15 == C_MASK else reg
        third = third & 7 if (vector >> X_VVVV) & 15 == C_MASK else third
    return (
        REGISTER[((description >> D_REG) & 15) * CLASS_ROW + reg] << rc.REG
        | REGISTER[kind * CLASS_ROW + rm] << rc.RM
        | REGISTER[((vector >> X_VVVV) & 15) * CLASS_ROW + third] << rc.VVVV
    )


def has_register(registers: int, field: int) -> int:
    """Does a field of REGS name a register?"""
    return int((registers >> field) & 0xFFFF != NO_REGISTER)


def vector_operands(s: State, word: int, vector: int, modrm: int, description: int, memory: int) -> int:
    """Registers, and the unit of the displacement, of a VEX or EVEX instruction; 1 if a field names no register."""
    registers = vector_registers(word, vector, modrm, description)
    if has_register(registers, rc.REG) & has_register(registers, rc.RM) & has_register(registers, rc.VVVV) == 0:
        return 1
    s[RECORD + rc.REGS] = registers | vex.mask_offset(word) << rc.MASK
    if memory and modrm >> 6 == 1:  # an EVEX displacement of 8 bits counts in units (SDM 2, 2.7.5)
        s[RECORD + rc.DISP] = (s[RECORD + rc.DISP] << ((vector >> X_DISP8) & 7)) & M64
    return 0


def decode(s: State, rip: int, linear: int, mode64: int, default32: int) -> int:
    """Decode the instruction at `linear`, whose offset in CS is `rip`. `mode64` and `default32` (CS.D) are 0 or 1."""
    s[FETCH_RIP] = linear
    s[FETCH_FAULT] = 0
    s[RECORD + rc.R_RIP] = rip
    s[RECORD + rc.DISP] = 0
    s[RECORD + rc.ADDRESS] = pack_address(ABSENT, ABSENT, 0)
    s[RECORD + rc.IMM2] = DS  # until the immediates are read: default segment
    flags = 0 if mode64 else rc.LEGACY
    s[RECORD + rc.PACKED] = flags << rc.RFLAGS_SHIFT  # for fetch_next_page

    # ---- prefixes
    prefixes = 0
    n = 1
    opcode = fetch8(s, 0)
    entry = PREFIX[mode64 << 8 | opcode]
    while entry != 0:
        prefixes = prefixes & (entry >> 16) | entry & 0xFFFF
        opcode = fetch8(s, n)
        n = n + 1
        entry = PREFIX[mode64 << 8 | opcode]
    rex = prefixes >> P_REX_SHIFT
    if rex & REX_W:
        flags = flags | rc.REX_W

    # ---- opcode
    word = 0
    if opcode == vex.VEX2 or opcode == vex.VEX3 or opcode == vex.EVEX:
        word = fetch_vex(s, n, opcode, prefixes, mode64)
    if word != 0:
        n = n + (1 if opcode == vex.VEX2 else 2 if opcode == vex.VEX3 else 3)
        rex = word & 15
        opcode = ((word >> vex.V_MAP) & 7) << 8 | fetch8(s, n)
        n = n + 1
        if word & vex.V_BAD:
            return undefined(s)
    elif opcode == 0x0F:
        opcode = 0x100 | fetch8(s, n)
        n = n + 1
        if opcode == 0x138 or opcode == 0x13A:
            opcode = (0x200 if opcode == 0x138 else 0x300) | fetch8(s, n)
            n = n + 1

    # ---- operand and address size
    if mode64:
        situation = LONG32 + (prefixes & P_OPERAND) + ((rex & REX_W) >> 2)
        address_size = 4 if prefixes & P_ADDRESS else 8
    else:
        situation = default32 ^ (prefixes & P_OPERAND)
        address_size = 4 if default32 ^ ((prefixes & P_ADDRESS) >> 1) else 2
    repeat = (prefixes >> P_REPEAT_SHIFT) & 3
    prefix_class = repeat
    if repeat == 0 and prefixes & P_OPERAND:
        prefix_class = 3

    # ---- ModRM, SIB, displacement
    modrm = 0
    memory = 0
    relative = 0
    sib = 0
    if MODRM[opcode] or (word != 0 and opcode != 0x177):  # VZEROUPPER has none
        modrm = fetch8(s, n)
        n = n + 1
        sib = n
        if modrm < 0xC0 and MODRM[opcode] != HAS_MODRM | REGISTER_ONLY:
            memory = 1
            if address_size == 2:
                n = memory_16(s, modrm, n)
            elif modrm & 0xC7 == 5:
                s[RECORD + rc.DISP] = fetch_value(s, n, 4)
                n = n + 4
                relative = mode64
            else:
                n = memory_32(s, modrm, n, rex)

    # ---- which form
    key = modrm | (rex & REX_B) << 8
    candidate = 0
    if word != 0:
        key = vex.key(word, modrm, memory, mode64)
        candidate = VEX_FIRST[opcode | int(word & vex.V_EVEX != 0) << 10]
    else:
        candidate = GROUP[((opcode * SITUATIONS + situation) * CLASSES + prefix_class) * 2 + memory]
    while key & CANDIDATE_MASK[candidate] != CANDIDATE_VALUE[candidate]:
        candidate = candidate + 1
    form = CANDIDATE_FORM[candidate]
    if form == INVALID:
        return undefined(s)
    description = DESCRIPTION[form]
    if has_feature(s, (description >> D_FEATURE) & 0xFF) & has_feature(s, (description >> D_FEATURE2) & 0xFF) == 0:
        form = (description >> D_INSTEAD) & 0xFFFF
        if form == 0:
            return undefined(s)
        description = DESCRIPTION[form]
    if prefixes & P_LOCK:
        if description & D_LOCK == 0:
            return undefined(s)
        flags = flags | rc.LOCKED
    if description & D_REP:
        flags = flags | repeat * rc.REPEAT

    # ---- registers
    vector = VECTOR[form]
    if word != 0:
        if vex.undefined(word, vector, mode64) or vector_operands(s, word, vector, modrm, description, memory):
            return undefined(s)
        flags = flags | vex.record_flags(word, vector)
        if vector & X_VSIB:
            if address_size == 2 or modrm & 7 != RSP_NUMBER:
                return undefined(s)
            vector_index(s, word, sib)
    else:
        reg = register_offset((description >> D_REG) & 15, (modrm >> 3) & 7 | (rex & REX_R) << 1, rex)
        rm = register_offset((description >> D_RM) & 15, modrm & 7 | (rex & REX_B) << 3, rex)
        op = register_offset((description >> D_OP) & 15, opcode & 7 | (rex & REX_B) << 3, rex)
        if reg == NO_REGISTER or rm == NO_REGISTER or op == NO_REGISTER:
            return undefined(s)
        s[RECORD + rc.REGS] = reg << rc.REG | rm << rc.RM | op << rc.OP

    # ---- segment
    segment = s[RECORD + rc.IMM2]
    override = (prefixes >> P_SEGMENT_SHIFT) & 7
    if override != 0:
        segment = override - 1
    base = ABSENT
    if mode64 == 0 or segment >= FS:
        base = 8 * (SEG_BASE + segment)
    s[RECORD + rc.ADDRESS] = s[RECORD + rc.ADDRESS] | base << rc.SEGMENT_BASE

    # ---- immediates
    size = (description >> D_IMM) & 15
    if description & D_MOFFS:
        size = address_size
    immediate = fetch_value(s, n, size)
    n = n + size
    if description & D_MOFFS and size < 8:
        immediate = immediate & ((1 << (8 * size)) - 1)
    if opcode & ~7 == 0xD8:
        immediate = (opcode & 7) << 8 | modrm
    s[RECORD + rc.IMM] = immediate
    if vector & X_IS4:
        number = (immediate >> 4) & 15
        if mode64 == 0:
            number = number & 7
        registers = s[RECORD + rc.REGS] & ~(0xFFFF << rc.IS4)
        s[RECORD + rc.REGS] = registers | REGISTER[C_XMM * CLASS_ROW + number] << rc.IS4
    size = (description >> D_IMM2) & 15
    s[RECORD + rc.IMM2] = fetch_value(s, n, size)
    n = n + size
    if relative:
        s[RECORD + rc.DISP] = (s[RECORD + rc.DISP] + rip + n) & M64

    if s[FETCH_FAULT]:
        return 1
    if mode64 == 0 and rip + n - 1 > s[SEG_LIMIT + CS]:
        return raise_fault(s, GP, 0)
    s[RECORD + rc.PACKED] = (
        form | n << rc.LENGTH | address_size << rc.ADDRESS_SIZE | flags << rc.RFLAGS_SHIFT | segment << rc.SEGMENT
    )
    return 0
