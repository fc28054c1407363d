"""The keys of a PC keyboard by QEMU's names, with the codes that they send (scan code set 2).

Reference: IBM PS/2 Hardware Interface Technical Reference, "Keyboards (101- and 102-Key)", scan code set 2. What a
keyboard does with them is in `devices.ps2_devices`.
"""

from __future__ import annotations

_PLAIN = {
    0x01: "f9", 0x03: "f5", 0x04: "f3", 0x05: "f1", 0x06: "f2", 0x07: "f12", 0x09: "f10", 0x0A: "f8", 0x0B: "f6",
    0x0C: "f4", 0x0D: "tab", 0x0E: "grave_accent", 0x11: "alt", 0x12: "shift", 0x14: "ctrl", 0x15: "q", 0x16: "1",
    0x1A: "z", 0x1B: "s", 0x1C: "a", 0x1D: "w", 0x1E: "2", 0x21: "c", 0x22: "x", 0x23: "d", 0x24: "e", 0x25: "4",
    0x26: "3", 0x29: "spc", 0x2A: "v", 0x2B: "f", 0x2C: "t", 0x2D: "r", 0x2E: "5", 0x31: "n", 0x32: "b", 0x33: "h",
    0x34: "g", 0x35: "y", 0x36: "6", 0x3A: "m", 0x3B: "j", 0x3C: "u", 0x3D: "7", 0x3E: "8", 0x41: "comma", 0x42: "k",
    0x43: "i", 0x44: "o", 0x45: "0", 0x46: "9", 0x49: "dot", 0x4A: "slash", 0x4B: "l", 0x4C: "semicolon", 0x4D: "p",
    0x4E: "minus", 0x52: "apostrophe", 0x54: "bracket_left", 0x55: "equal", 0x58: "caps_lock", 0x59: "shift_r",
    0x5A: "ret", 0x5B: "bracket_right", 0x5D: "backslash", 0x61: "less", 0x66: "backspace", 0x69: "kp_1", 0x6B: "kp_4",
    0x6C: "kp_7", 0x70: "kp_0", 0x71: "kp_decimal", 0x72: "kp_2", 0x73: "kp_5", 0x74: "kp_6", 0x75: "kp_8",
    0x76: "esc", 0x77: "num_lock", 0x78: "f11", 0x79: "kp_add", 0x7A: "kp_3", 0x7B: "kp_subtract",
    0x7C: "kp_multiply", 0x7D: "kp_9", 0x7E: "scroll_lock", 0x83: "f7",
}  # fmt: skip
_EXTENDED = {  # after 0xe0
    0x11: "alt_r", 0x14: "ctrl_r", 0x1F: "meta_l", 0x27: "meta_r", 0x2F: "menu", 0x4A: "kp_divide", 0x5A: "kp_enter",
    0x69: "end", 0x6B: "left", 0x6C: "home", 0x70: "insert", 0x71: "delete", 0x72: "down", 0x74: "right",
    0x75: "up", 0x7A: "pgdn", 0x7D: "pgup",
}  # fmt: skip
# Name to code, and whether 0xe0 comes first.
KEYS = {name: (code, False) for code, name in _PLAIN.items()} | {name: (code, True) for code, name in _EXTENDED.items()}


def parse(text: str) -> list[tuple[int, bool]]:
    """`ctrl-alt-delete` as codes; ValueError names what is no key."""
    names = text.split("-")
    unknown = next((name for name in names if name not in KEYS), None)
    if unknown is not None:
        raise ValueError(f"no key is called '{unknown}'")
    return [KEYS[name] for name in names]
