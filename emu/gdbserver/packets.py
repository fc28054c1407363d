"""Framing of gdb's remote protocol: `$payload#checksum`, acknowledgements, the byte that interrupts (gdb manual, E.1).

`Reader.feed` takes whatever arrives, garbage too, and gives what it meant. Not here: what payloads mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

INTERRUPT = 0x03
_START, _END, _ESCAPE, _FLIP = b"$"[0], b"#"[0], b"}"[0], 0x20
_ESCAPED = frozenset(b"#$}*")
MOST = 0x4000  # bytes of a payload, as both sides count it; announced as PacketSize
_HEX = {digit: int(chr(digit), 16) for digit in b"0123456789abcdefABCDEF"}


class Signal(Enum):
    """What is not a packet."""

    ACKNOWLEDGED = "+"
    SEND_AGAIN = "-"
    INTERRUPT = "interrupt"
    DAMAGED = "damaged"  # a packet whose checksum is wrong, or that is too long


@dataclass(frozen=True)
class Packet:
    """A payload, with its escapes undone."""

    payload: bytes


def checksum(data: bytes) -> int:
    return sum(data) & 0xFF


def escape(payload: bytes) -> bytes:
    """What may be sent between `$` and `#`."""
    if not _ESCAPED.intersection(payload):
        return payload
    out = bytearray()
    for byte in payload:
        out += bytes((_ESCAPE, byte ^ _FLIP)) if byte in _ESCAPED else bytes((byte,))
    return bytes(out)


def unescape(data: bytes) -> bytes:
    """Likewise, undone. An escape at the very end escapes nothing."""
    if _ESCAPE not in data:
        return data
    out, flip = bytearray(), False
    for byte in data:
        if flip:
            out.append(byte ^ _FLIP)
            flip = False
        elif byte == _ESCAPE:
            flip = True
        else:
            out.append(byte)
    return bytes(out)


def frame(payload: bytes) -> bytes:
    """A packet to send."""
    body = escape(payload)
    return b"$%b#%02x" % (body, checksum(body))


class Reader:
    """Takes bytes apart."""

    def __init__(self) -> None:
        self._body: bytearray | None = None  # of the packet being received
        self._sum: bytes = b""  # digits of its checksum so far
        self._summing = False
        self._too_long = False

    def feed(self, data: bytes) -> list[Packet | Signal]:
        """What is complete now."""
        found: list[Packet | Signal] = []
        for byte in data:
            if self._summing:
                if (item := self._digit(byte)) is not None:
                    found.append(item)
            elif self._body is None:
                if (item := self._outside(byte)) is not None:
                    found.append(item)
            elif byte == _END:
                self._summing, self._sum = True, b""
            elif byte == _START:  # the end of the one before is lost
                self._begin()
            elif len(self._body) < 2 * MOST:  # each byte may be escaped
                self._body.append(byte)
            else:
                self._too_long = True
        return found

    def _begin(self) -> None:
        self._body, self._too_long, self._summing = bytearray(), False, False

    def _outside(self, byte: int) -> Signal | None:
        if byte == _START:
            self._begin()
        elif byte == INTERRUPT:
            return Signal.INTERRUPT
        elif byte in b"+":
            return Signal.ACKNOWLEDGED
        elif byte in b"-":
            return Signal.SEND_AGAIN
        return None  # noise

    def _digit(self, byte: int) -> Packet | Signal | None:
        self._sum += bytes((byte,))
        if len(self._sum) < 2:
            return None
        body, self._body, self._summing = bytes(self._body or b""), None, False
        if not all(digit in _HEX for digit in self._sum) or self._too_long or int(self._sum, 16) != checksum(body):
            return Signal.DAMAGED
        return Packet(unescape(body))
