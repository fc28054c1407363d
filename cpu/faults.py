"""Exception vectors and how mechanism code raises them (SDM 3, chapter 6 and table 6-1).

Raising only notes the exception in FAULT_VECTOR and FAULT_ERROR; interrupts.deliver_fault() delivers it afterwards, at
the RIP of the faulting instruction. Not here: delivery and double faults (interrupts.py).
"""

from __future__ import annotations

from pyemu.cpu.state import FAULT_CR2, FAULT_DR6, FAULT_ERROR, FAULT_VECTOR, NO_FAULT, State

# Vectors (SDM 3, table 6-1); 9 and 15 are reserved.
DE, DB, NMI, BP, OF, BR, UD, NM, DF = 0, 1, 2, 3, 4, 5, 6, 7, 8
TS, NP, SS, GP, PF, MF, AC, MC, XM, VE, CP = 10, 11, 12, 13, 14, 16, 17, 18, 19, 20, 21

NAMES = {
    DE: "#DE", DB: "#DB", NMI: "NMI", BP: "#BP", OF: "#OF", BR: "#BR", UD: "#UD", NM: "#NM", DF: "#DF", TS: "#TS",
    NP: "#NP", SS: "#SS", GP: "#GP", PF: "#PF", MF: "#MF", AC: "#AC", MC: "#MC", XM: "#XM", VE: "#VE", CP: "#CP",
}  # fmt: skip

# Sets of vectors as bit masks.
PUSH_ERROR = 1 << DF | 1 << TS | 1 << NP | 1 << SS | 1 << GP | 1 << PF | 1 << AC | 1 << CP
CONTRIBUTORY = 1 << DE | 1 << TS | 1 << NP | 1 << SS | 1 << GP | 1 << CP  # SDM 3, table 6-4
PAGE_FAULTS = 1 << PF | 1 << VE  # SDM 3, table 6-4
TRAPS = 1 << DB | 1 << NMI | 1 << BP | 1 << OF | 1 << DF | 1 << MC  # not faults: RF is not set in the pushed flags

# Selector error codes (SDM 3, 6.13).
EXT = 1  # the event was external to the program
IDT = 2  # the index is a vector

# Page-fault error codes (SDM 3, 4.7).
PF_PRESENT, PF_WRITE, PF_USER, PF_RESERVED, PF_FETCH = 1, 2, 4, 8, 16

# DR6 (SDM 3, 18.2.3).
DR6_HITS, DR6_BD, DR6_BS, DR6_BT = 0xF, 1 << 13, 1 << 14, 1 << 15  # B0 to B3: the breakpoints that are met

# Classes for the double-fault rules.
BENIGN, CONTRIBUTORY_CLASS, PAGE_FAULT_CLASS, DOUBLE_FAULT_CLASS = 0, 1, 2, 3


def raise_fault(s: State, vector: int, error: int) -> int:
    """Note an exception to be delivered; always 1, so that callers can `return raise_fault(...)`."""
    s[FAULT_VECTOR] = vector
    s[FAULT_ERROR] = error
    return 1


def raise_page_fault(s: State, linear: int, error: int) -> int:
    """Note a page fault at a linear address; always 1."""
    s[FAULT_VECTOR] = PF
    s[FAULT_ERROR] = error
    s[FAULT_CR2] = linear
    return 1


def raise_debug(s: State, dr6: int) -> int:
    """Note a debug exception that will set these bits of DR6; always 1."""
    s[FAULT_VECTOR] = DB
    s[FAULT_ERROR] = 0
    s[FAULT_DR6] = dr6
    return 1


def clear_fault(s: State) -> int:
    """Forget a noted exception."""
    s[FAULT_VECTOR] = NO_FAULT
    return 0


def has_error_code(vector: int) -> int:
    """1 if the exception pushes an error code."""
    if vector >= 32:
        return 0
    return (PUSH_ERROR >> vector) & 1


def fault_class(vector: int) -> int:
    """BENIGN, CONTRIBUTORY_CLASS, PAGE_FAULT_CLASS or DOUBLE_FAULT_CLASS."""
    if vector >= 32:
        return BENIGN
    if vector == DF:
        return DOUBLE_FAULT_CLASS
    if (CONTRIBUTORY >> vector) & 1:
        return CONTRIBUTORY_CLASS
    if (PAGE_FAULTS >> vector) & 1:
        return PAGE_FAULT_CLASS
    return BENIGN
