"""What a debugger changes in the guest: registers, memory and ports, from the API, the monitor and gdb.

Where the machine keeps a history, a change is an event like a typed key: noted with its moment, and given again in a
replay. What devices and loaders write (`GuestRam.write`) follows from the guest's own doings, and is not noted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from pyemu.cpu.state import GPR, HYPERCALL_ANSWERED, ICOUNT, M64, RAX, SHADOW
from pyemu.memory import GuestRam, OutOfRange
from pyemu.part import Part
from pyemu.registers import Registers
from pyemu.snapshot_error import SnapshotError
from pyemu.virtual import read_virtual, translate, write_virtual

_SIZES = {"1": 1, "2": 2, "4": 4}  # of accesses to ports

if TYPE_CHECKING:
    from pyemu.cpu.state import State
    from pyemu.outside import Outside
    from pyemu.recording import Recording


class PhysicalMemory:
    """RAM and ROM as a debugger reads and writes them."""

    def __init__(self, ram: GuestRam, write: Callable[[int, bytes], None]) -> None:
        self.write = write
        self.read = ram.read
        self.view = ram.view
        self.pieces = ram.pieces
        self.is_ram = ram.is_ram


class Changeable(Part):
    """Base of `Machine`. Raises SnapshotError for a change to what can't be changed any more."""

    state: State
    ram: GuestRam
    outside: Outside
    regs: Registers
    memory: PhysicalMemory
    _recording: Recording | None

    def wire_changes(self) -> None:
        self.regs = Registers(self.state, lambda name, value: self.change("register", f"{name} {value:x}"))
        self.memory = PhysicalMemory(self.ram, self._write)
        self._machine.hooks.answer = lambda rax: self.change("hypercall", f"{rax:x}")
        for source, receive in (
            ("memory", self._memory_changes),
            ("register", self._register_changes),
            ("gdb register", self._gdb_register_changes),
            ("hypercall", self._hypercall_answered),
            ("port read", self._port_read),
            ("port write", self._port_written),
        ):
            self.outside.source(source, receive)

    def read_virtual(self, address: int, length: int) -> bytes:
        """Memory at a linear address under the present page tables."""
        return read_virtual(self.state, self.ram, address, length)

    def write_virtual(self, address: int, data: bytes) -> None:
        write_virtual(self.state, self.ram, address, data, self._write)

    def translate(self, address: int) -> int | None:
        """Linear to physical address; None if not mapped."""
        return translate(self.state, self.ram, address)

    def _write(self, address: int, data: bytes) -> None:
        """Change physical memory."""
        if self._recording is None:
            self.ram.write(address, data)
        elif not self.ram.is_ram(address, len(data)):
            raise OutOfRange(f"{len(data)} bytes at {address:#x} are not guest memory")
        else:
            self.change("memory", f"{address:x} {bytes(data).hex()}")

    def change(self, source: str, data: str) -> object:
        """Let what a debugger does reach the guest now; gives what that gives."""
        if self._recording is None:
            return self.outside.sources[source](data)
        machine = self._machine
        machine.prepare()
        if machine.loop.is_here and not machine.hooks.between:
            raise SnapshotError("a hook within an instruction can't change what a history is kept of")
        results: list[object] = []
        failure: list[Exception] = []

        def deliver() -> None:
            try:
                if machine.history is not None:
                    machine.history.change_course()
                results.append(self.outside.deliver(source, data))
            except Exception as error:  # it is the caller's, whose thread this may not be
                failure.append(error)

        machine.loop.exclusive(deliver)
        if failure:
            raise failure[0]
        return results[0]

    # ---- what it does, now or in a replay ----------------------------------------------------------------------

    def _memory_changes(self, text: str) -> None:
        address, _, data = text.partition(" ")
        self.ram.write(int(address, 16), bytes.fromhex(data))

    def _register_changes(self, text: str) -> None:
        name, value = text.split()
        self.regs.put(name, int(value, 16))

    def _port_read(self, text: str) -> int:
        """Which may change a device."""
        port, size = text.split()
        return self._machine.host.port_read(int(port, 16) & 0xFFFF, _SIZES[size])

    def _port_written(self, text: str) -> None:
        port, size, value = text.split()
        self._machine.host.port_write(int(port, 16) & 0xFFFF, _SIZES[size], int(value, 16) & M64)

    def _hypercall_answered(self, rax: str) -> None:
        """At RIP is a VMCALL, which no interrupt shall come before."""
        s = self.state
        s[GPR + RAX] = int(rax, 16) & M64
        s[HYPERCALL_ANSWERED] = s[SHADOW] = s[ICOUNT] + 1

    def _gdb_register_changes(self, text: str) -> None:
        """`architecture name value`, as gdb's target description for the architecture means it."""
        from pyemu.gdbserver.description import describe

        architecture, name, value = text.split()
        machine = self._machine
        description = describe(self.state, architecture, lambda _: machine.host.get_tpr())
        register = description.registers[description.number(name)]
        if register.set is None:
            raise ValueError(f"register {name} can't be written")
        register.set(self.state, int(value, 16))
        if register.remaps and machine.accelerator is not None:
            machine.accelerator.memory_changed()
