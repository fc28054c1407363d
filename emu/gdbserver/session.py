"""One gdb that is connected: what each packet means (gdb manual, E.2 to E.4).

`handle` takes a payload and gives the reply, None if there is none yet: while the guest runs gdb waits for `stopped`.
Addresses are linear, and memory is read and written whatever the guest's page tables allow. Breakpoints are hooks
(pyemu.hooks), so that a breakpoint never changes the guest's memory. No memory map is offered: gdb would take it for
linear addresses. Not here: packets (packets.py), sockets (server.py).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pyemu.cpu import features
from pyemu.cpu.state import CPU_FEATURES, HALTED
from pyemu.gdbserver import packets
from pyemu.gdbserver.agent import compile_agent, unpack
from pyemu.gdbserver.description import Description, architecture, describe
from pyemu.hooks import Breakpoint, Hook, HookError, Program, Watchpoint
from pyemu.memory import OutOfRange
from pyemu.monitor_table import Session as MonitorSession
from pyemu.snapshot_error import SnapshotError
from pyemu.until import A_LOOK, RESUMABLE, Stop, StopKind
from pyemu.virtual import read_virtual

if TYPE_CHECKING:
    from pyemu.machine import Machine

SIGINT, SIGTRAP = 2, 5  # gdb's numbers, which are those of Linux
OK, UNSUPPORTED = b"OK", b""
_BAD_ARGUMENT, _FAULT, _NO_SPACE = b"E16", b"E0e", b"E1c"  # EINVAL, EFAULT, ENOSPC, in hex
_THREAD, _PROCESS = 1, 1  # one vCPU: thread 1 of process 1, which is the machine
_WATCHES = {2: ("w", "watch"), 3: ("r", "rwatch"), 4: ("rw", "awatch")}
_MOST_MEMORY = packets.MOST // 2 - 16
_FEATURES = (
    "vContSupported+", "multiprocess+", "swbreak+", "hwbreak+", "QStartNoAckMode+", "qXfer:features:read+",
    "ConditionalBreakpoints+",
)  # fmt: skip
_JOIN_S = 5.0  # for a way back to hear that it is to end
_LONG_MODE = features.number("lm")
# QEMU's single step flags (its manual, GDB usage): step, without interrupts, without timers.
_STEP_ENABLE, _STEP_QUIET, _STEP_NO_TIMER = 1, 2, 4


class BadPacketError(Exception):
    """A packet that can't be understood; the reply is an error."""


def number(text: bytes) -> int:
    """A hexadecimal number without a sign."""
    if not text or len(text) > 16 or not all(digit in b"0123456789abcdefABCDEF" for digit in text):
        raise BadPacketError
    return int(text, 16)


def unhex(text: bytes) -> bytes:
    try:
        return bytes.fromhex(text.decode("ascii"))
    except (ValueError, UnicodeDecodeError):
        raise BadPacketError from None


@dataclass
class Settings:
    """What gdb asks for once, and finds again when it comes back."""

    # "auto" follows the processor's mode. It isn't the default, although a gdb without a program likes it best: one
    # that has loaded a 64-bit program refuses any other description than i386:x86-64, and then misunderstands all.
    architecture: str = "i386:x86-64"
    step: int = _STEP_ENABLE | _STEP_QUIET | _STEP_NO_TIMER


class Session:
    """The state of a connection."""

    def __init__(self, machine: Machine, send: Callable[[bytes], None], settings: Settings) -> None:
        self.machine = machine
        self._send = send
        self._settings = settings
        self._description: Description | None = None  # what gdb was told last; it decides how registers look
        self._hooks: dict[tuple[int, int, int], Hook] = {}
        self._monitor = MonitorSession(machine)
        self._multiprocess = False
        self._says_why = False  # gdb knows swbreak and hwbreak
        self._physical = False
        self._interrupted = False
        self._interrupt = threading.Event()  # of going back
        self._traveller: threading.Thread | None = None
        # The watchpoint that the guest stopped for last: when, which (gdb sets it anew each time), the stop.
        self._watched: tuple[int, tuple[int, int, int], Stop] | None = None
        self._forward = True  # how it was let go last
        self.running = False
        self.acknowledging = True
        self.over = False  # detached or killed
        self._packets: dict[str, Callable[[bytes], bytes | None]] = {
            "?": lambda _: self._status(), "!": lambda _: OK, "g": lambda _: self._read_registers(),
            "G": self._write_registers, "p": self._read_register, "P": self._write_register, "m": self._read_memory,
            "M": self._write_memory, "X": self._write_binary, "c": self._continue, "C": self._continue,
            "s": self._single, "S": self._single, "H": self._thread_for, "T": self._alive, "D": self._detach,
            "k": self._kill, "Z": self._insert, "z": self._delete, "b": self._backwards, "R": self._restart,
        }  # fmt: skip
        self._words: dict[str, Callable[[bytes], bytes | None]] = {
            "qSupported": self._supported, "qXfer": self._transfer, "qRcmd": self._command, "qC": self._current,
            "qfThreadInfo": lambda _: b"m" + self._thread(), "qsThreadInfo": lambda _: b"l",
            "qThreadExtraInfo": self._thread_name, "qAttached": lambda _: b"1", "QStartNoAckMode": self._no_acks,
            "vMustReplyEmpty": lambda _: UNSUPPORTED, "vCont?": lambda _: b"vCont;c;C;s;S", "vCont": self._actions,
            "vKill": self._kill, "vAttach": lambda _: self._status(), "qqemu.sstepbits": self._step_bits,
            "qqemu.sstep": lambda _: b"0x%x" % self._settings.step, "Qqemu.sstep": self._set_step,
            "qqemu.PhyMemMode": lambda _: b"%d" % self._physical, "Qqemu.PhyMemMode": self._set_physical,
        }  # fmt: skip

    def begin(self) -> None:
        """gdb has connected: it expects a guest that stands still."""
        self.machine.prepare()
        self.machine.pause()

    def end(self) -> None:
        """The connection is over: what gdb set is taken out. The guest stays as it is."""
        if self._traveller is not None:
            self._interrupt.set()
            self._traveller.join(_JOIN_S)
        for hook in self._hooks.values():
            hook.remove()
        self._hooks.clear()

    def handle(self, payload: bytes) -> bytes | None:
        """The reply to a packet."""
        try:
            if payload[:1] in (b"q", b"Q", b"v"):
                return self._word(payload)
            known = self._packets.get(payload[:1].decode("latin-1"))
            return UNSUPPORTED if known is None else known(payload[1:])
        except (BadPacketError, ValueError):
            return _BAD_ARGUMENT
        except SnapshotError as error:
            return b"E." + str(error).encode("ascii", "replace")

    def _word(self, payload: bytes) -> bytes | None:
        """A packet that is called by a word, which ends at a colon, comma, semicolon or equals sign."""
        end = next((k for k, byte in enumerate(payload) if byte in b":,;="), len(payload))
        known = self._words.get(payload[:end].decode("latin-1"))
        return UNSUPPORTED if known is None else known(payload[end + 1 :])

    # ---- what is there -----------------------------------------------------------------------------------------
    def _supported(self, rest: bytes) -> bytes:
        theirs = rest.split(b";")
        self._multiprocess = b"multiprocess+" in theirs
        self._says_why = b"swbreak+" in theirs and b"hwbreak+" in theirs
        features = [f"PacketSize={packets.MOST:x}", *_FEATURES]
        if self.machine.can_reverse:
            features += ["ReverseStep+", "ReverseContinue+"]
        return ";".join(features).encode()

    def _no_acks(self, _: bytes) -> bytes:
        self.acknowledging = False
        return OK

    def _transfer(self, rest: bytes) -> bytes:
        """`features:read:target.xml:offset,length`."""
        parts = rest.split(b":")
        if parts[:2] != [b"features", b"read"]:
            return UNSUPPORTED
        if len(parts) != 4 or parts[2] != b"target.xml":
            return b"E00"
        offset, _, length = parts[3].partition(b",")
        start, size = number(offset), number(length)
        if start == 0 or self._description is None:
            self._description = self._describe()
        xml = self._description.xml.encode()
        piece = xml[start : start + min(size, packets.MOST - 1)]
        return (b"m" if start + len(piece) < len(xml) else b"l") + piece

    def _describe(self) -> Description:
        state = self.machine.state
        host = self.machine.host
        return describe(state, self._architecture(), lambda _: host.get_tpr())

    def _architecture(self) -> str:
        """What gdb is told when it asks."""
        chosen = self._settings.architecture
        s = self.machine.state
        has_long_mode = s[CPU_FEATURES + _LONG_MODE // 64] >> _LONG_MODE % 64 & 1
        return architecture(s) if chosen == "auto" or not has_long_mode else chosen

    @property
    def description(self) -> Description:
        """What gdb goes by; one that doesn't ask for it is taken to be for this kind of processor."""
        if self._description is None:
            self._description = self._describe()
        return self._description

    def _thread(self) -> bytes:
        return b"p%x.%x" % (_PROCESS, _THREAD) if self._multiprocess else b"%x" % _THREAD

    def _is_ours(self, text: bytes) -> bool:
        """A thread that packets may name: this one, any, all."""
        process, dot, thread = text.removeprefix(b"p").partition(b".") if text.startswith(b"p") else (b"1", b".", text)
        names = (b"%x" % _THREAD, b"%02x" % _THREAD, b"0", b"-1", b"00")
        return process in (b"1", b"01", b"0", b"-1") and (not dot or thread in names)

    def _current(self, _: bytes) -> bytes:
        return b"QC" + self._thread()

    def _thread_for(self, rest: bytes) -> bytes:
        return OK if self._is_ours(rest[1:]) else _BAD_ARGUMENT

    def _alive(self, rest: bytes) -> bytes:
        return OK if self._is_ours(rest) else _BAD_ARGUMENT

    def _thread_name(self, _: bytes) -> bytes:
        s = self.machine.state
        return f"CPU#0 [{'halted' if s[HALTED] else 'running'}] {architecture(s)}".encode().hex().encode()

    # ---- registers and memory ------------------------------------------------------------------------------------
    def _hex(self, n: int) -> bytes:
        register = self.description.registers[n]
        return register.get(self.machine.state).to_bytes(register.bits // 8, "little").hex().encode()

    def _store(self, n: int, text: bytes) -> bool:
        """Write a register; false if it can't be. The value that it has is always welcome."""
        register, state = self.description.registers[n], self.machine.state
        value = int.from_bytes(unhex(text), "little")
        if len(text) != register.bits // 4:
            raise BadPacketError
        if value == register.get(state):
            return True
        if register.set is None:
            return False
        self.machine.change("gdb register", f"{self.description.architecture} {register.name} {value:x}")
        return True

    def _read_registers(self) -> bytes:
        return b"".join(self._hex(n) for n in range(len(self.description.registers)))

    def _write_registers(self, rest: bytes) -> bytes:
        at = 0
        for n, register in enumerate(self.description.registers):
            digits = register.bits // 4
            if at + digits <= len(rest):
                self._store(n, rest[at : at + digits])
            at += digits
        return OK

    def _register_number(self, text: bytes) -> int:
        n = number(text)
        if n >= len(self.description.registers):
            raise BadPacketError
        return n

    def _read_register(self, rest: bytes) -> bytes:
        return self._hex(self._register_number(rest))

    def _write_register(self, rest: bytes) -> bytes:
        name, _, value = rest.partition(b"=")
        return OK if self._store(self._register_number(name), value) else _BAD_ARGUMENT

    def _range(self, text: bytes) -> tuple[int, int]:
        address, comma, length = text.partition(b",")
        if not comma:
            raise BadPacketError
        return number(address), number(length)

    def _read_memory(self, rest: bytes) -> bytes:
        """As much as there is: gdb asks for whole lines of its cache."""
        address, length = self._range(rest)
        length = min(length, _MOST_MEMORY)
        found = bytearray()
        while len(found) < length:
            at = (address + len(found)) & 0xFFFF_FFFF_FFFF_FFFF
            step = min(length - len(found), 0x1000 - (at & 0xFFF))
            try:
                found += self._read(at, step)
            except OutOfRange:
                break
        return found.hex().encode() if found or not length else _FAULT

    def _read(self, address: int, length: int) -> bytes:
        machine = self.machine
        if self._physical:
            return machine.ram.read(address, length)
        return read_virtual(machine.state, machine.ram, address, length)

    def _write(self, address: int, data: bytes) -> bytes:
        machine = self.machine
        try:
            if self._physical:
                machine.memory.write(address, data)
            else:
                machine.write_virtual(address, data)
        except OutOfRange:
            return _FAULT
        return OK

    def _write_memory(self, rest: bytes) -> bytes:
        where, _, data = rest.partition(b":")
        address, length = self._range(where)
        value = unhex(data)
        return self._write(address, value) if len(value) == length else _BAD_ARGUMENT

    def _write_binary(self, rest: bytes) -> bytes:
        where, _, data = rest.partition(b":")
        address, length = self._range(where)
        return self._write(address, data) if len(data) == length else _BAD_ARGUMENT

    # ---- breakpoints ---------------------------------------------------------------------------------------------
    def _point(self, rest: bytes) -> tuple[int, int, int]:
        """`type,address,kind`, of what may have conditions behind it."""
        parts = rest.split(b";")[0].split(b",")
        if len(parts) != 3:
            raise BadPacketError
        return number(parts[0]), number(parts[1]), number(parts[2])

    def _insert(self, rest: bytes) -> bytes:
        key = kind, address, length = self._point(rest)
        if kind > 4:
            return UNSUPPORTED
        program = self._condition(rest, address) if kind <= 1 else None
        before = self._hooks.get(key)
        if before is not None:
            if before.program == (program or ()):
                return OK
            self._hooks.pop(key).remove()  # gdb sends a changed condition so
        hooks = self.machine.hooks
        try:
            if kind <= 1:
                self._hooks[key] = self._breakpoint(address, program)
            else:
                self._hooks[key] = hooks.add(Watchpoint(hooks, address, length, _WATCHES[kind][0], None, None))
        except HookError:
            return _NO_SPACE
        return OK

    def _breakpoint(self, address: int, program: Program | None) -> Hook:
        """gdb tests for itself if a condition doesn't find room."""
        hooks = self.machine.hooks
        hook = Breakpoint(hooks, address, None, program)
        try:
            hooks.add(hook)
        except HookError:
            hook = Breakpoint(hooks, address, None, None)
            hooks.add(hook)
        return hook

    def _condition(self, rest: bytes, address: int) -> Program | None:
        """What the processor evaluates of the conditions behind a breakpoint."""
        expressions = unpack(rest.partition(b";")[2])

        def register(n: int) -> str | int:
            name = self.description.registers[n].name
            return address if name in ("rip", "eip") else "rflags" if name == "eflags" else name

        return compile_agent(expressions, register) if expressions else None

    def _delete(self, rest: bytes) -> bytes:
        key = self._point(rest)
        if key[0] > 4:
            return UNSUPPORTED
        hook = self._hooks.pop(key, None)
        if hook is not None:
            hook.remove()
        return OK

    # ---- running -------------------------------------------------------------------------------------------------
    def _go(self, step: bool) -> bytes | None:
        loop = self.machine.loop
        if loop.final is not None:
            return self._stop_reply(loop.final)
        self.running = self._forward = True
        self._interrupted = False
        # Masking interrupts would make a counted run differ from one that nobody looks at.
        quiet = self._settings.step & _STEP_QUIET and self.machine.config.icount is None
        if step:
            self.machine.step(quietly=bool(quiet))
        else:
            loop.set_conditions([])
            self.machine.resume()
        return None

    def _continue(self, _: bytes) -> bytes | None:
        return self._go(False)

    def _single(self, _: bytes) -> bytes | None:
        return self._go(True)

    def _actions(self, rest: bytes) -> bytes | None:
        """`vCont;s:p1.1;c`: the first action that is for our thread counts."""
        for action in rest.split(b";"):
            what, colon, thread = action.partition(b":")
            if not colon or self._is_ours(thread):
                if what[:1] in (b"c", b"C"):
                    return self._go(False)
                if what[:1] in (b"s", b"S"):
                    return self._go(True)
                return UNSUPPORTED
        return _BAD_ARGUMENT

    def _backwards(self, rest: bytes) -> bytes | None:
        """`bs`, `bc`. What stops the guest on the way may be told while this runs."""
        if rest not in (b"s", b"c") or not self.machine.can_reverse:
            return UNSUPPORTED
        if self.running:
            return _BAD_ARGUMENT
        self.running, self._forward = True, False
        self._interrupted = False
        self._interrupt.clear()
        self._traveller = threading.Thread(
            target=self._travel, args=(self._run_back if rest == b"c" else self.machine.reverse_step,),
            name="pyemu-gdb-back", daemon=True,
        )  # fmt: skip
        self._traveller.start()
        return None

    def _travel(self, travel: Callable[[], Stop]) -> None:
        """On a thread of its own, so that Ctrl-C is heard meanwhile; the stop is told when all is done."""
        machine = self.machine
        try:
            with machine.interruptible(self._interrupt), machine.unannounced():
                stop = travel()
        except (SnapshotError, RuntimeError) as error:
            stop = Stop(StopKind.STEP, message=str(error))
        machine.tell_stop(stop)

    def _run_back(self) -> Stop:
        """Going back, gdb takes a watchpoint to have been hit when the access has been undone: it compares the value
        with the one that it has seen last. So where the guest has just stopped for one, that is the first to undo."""
        machine = self.machine
        if self._watched is not None:
            count, key, seen = self._watched
            self._watched = None
            if count == machine.instructions and key in self._hooks:
                machine.goto(count - 1)
                return replace(seen, hook=self._hooks[key])
        stop = machine.reverse_continue()
        if stop.kind is StopKind.WATCHPOINT:
            machine.goto(machine.instructions - 1)
        return stop

    def interrupt(self) -> None:
        """Ctrl-C."""
        if self.running:
            self._interrupted = True
            self._interrupt.set()
            if self._forward:
                self.machine.loop.ask_stop(Stop(StopKind.PAUSED))

    def stopped(self, stop: Stop) -> bytes | None:
        """The guest stands: what gdb, which waits for it, is told."""
        if not self.running or stop.message == A_LOOK:
            return None
        self.running = False
        key = self._key(stop)
        hit = stop.kind is StopKind.WATCHPOINT and self._forward and key is not None
        self._watched = (self.machine.instructions, key, stop) if hit and key is not None else None
        if stop.kind is StopKind.STEP and stop.message:  # why there is no way back
            self._send(b"O" + f"{stop.message}\n".encode().hex().encode())
        return self._stop_reply(stop)

    def _stop_reply(self, stop: Stop) -> bytes:
        if stop.kind not in RESUMABLE:
            process = b";process:%x" % _PROCESS if self._multiprocess else b""
            return b"W%02x" % (stop.status & 0xFF) + process
        signal = SIGINT if stop.kind in (StopKind.PAUSED, StopKind.TIMEOUT) else SIGTRAP
        return b"T%02xthread:%b;%b" % (signal, self._thread(), self._why(stop))

    def _key(self, stop: Stop) -> tuple[int, int, int] | None:
        """What gdb calls the hook that the guest has stopped for."""
        return next((key for key, hook in self._hooks.items() if hook is stop.hook), None)

    def _why(self, stop: Stop) -> bytes:
        if stop.kind is StopKind.HISTORY_END:
            return b"replaylog:%b;" % (b"begin" if stop.event == "begin" else b"end")
        key = self._key(stop)
        if key is None:
            return b""
        if key[0] >= 2:
            assert isinstance(stop.hook, Watchpoint)
            return b"%b:%x;" % (_WATCHES[key[0]][1].encode(), stop.hook.address)
        if not self._says_why:
            return b""
        return b"swbreak:;" if key[0] == 0 else b"hwbreak:;"

    def _status(self) -> bytes:
        """`?`."""
        final = self.machine.loop.final
        if final is not None:
            return self._stop_reply(final)
        return b"T%02xthread:%b;" % (SIGTRAP, self._thread())

    # ---- the end ---------------------------------------------------------------------------------------------------
    def _detach(self, _: bytes) -> bytes:
        """The guest goes on without us."""
        self.end()
        self.over = True
        if self.machine.loop.final is None:
            self.machine.resume()
        return OK

    def _kill(self, _: bytes) -> bytes:
        self.end()
        self.over = True
        self.machine.quit()
        return OK

    def _restart(self, _: bytes) -> None:
        self.machine.reset()

    # ---- the monitor, and what QEMU has ---------------------------------------------------------------------------
    def _command(self, rest: bytes) -> bytes:
        """`monitor ...`; what it says goes out as console output."""
        line = unhex(rest).decode("utf-8", "replace")
        words = line.split()
        if words[:1] == ["architecture"]:
            text = self._choose(words[1:])
        else:
            text = self._monitor.execute(line)
        data = (text.rstrip("\n") + "\n").encode() if text else b""
        most = packets.MOST // 2 - 8
        for at in range(0, len(data), most):
            self._send(b"O" + data[at : at + most].hex().encode())
        return OK

    def _choose(self, words: list[str]) -> str:
        """`monitor architecture [NAME]`: which description gdb gets, for what it has no command for."""
        known = ("auto", "i8086", "i386", "i386:x86-64")
        if len(words) > 1 or (words and words[0] not in known):
            return f"architecture [{'|'.join(known)}] -- what gdb is told"
        if words:
            self._settings.architecture = words[0]
        now, told = architecture(self.machine.state), self.description.architecture
        text = f"the processor executes {now}; gdb was told {told}"
        if self._architecture() != told:
            text += f", and is told {self._architecture()} when it asks again: unset tdesc filename"
        return text

    def _step_bits(self, _: bytes) -> bytes:
        return b"ENABLE=%x,NOIRQ=%x,NOTIMER=%x" % (_STEP_ENABLE, _STEP_QUIET, _STEP_NO_TIMER)

    def _set_step(self, rest: bytes) -> bytes:
        value = number(rest.removeprefix(b"0x"))
        if value & ~7 or not value & _STEP_ENABLE:
            return _BAD_ARGUMENT
        self._settings.step = value
        return OK

    def _set_physical(self, rest: bytes) -> bytes:
        self._physical = number(rest) != 0
        return OK
