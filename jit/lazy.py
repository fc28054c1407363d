"""Handlers that are compiled on first use: those of rows that few guests execute (`Row.lazy`). Mechanism code.

In the table of handlers such a form has `run_lazy`, which asks Python for the form's own handler, remembers it in the
record, and runs it. The guest can't tell: state and count are the same as if the handler had been there.
Not here: compiling and loading (loaded.py, build.py).
"""

from __future__ import annotations

from pyemu.cpu.decode import record as rc
from pyemu.cpu.primitives import call_service, service
from pyemu.cpu.state import State
from pyemu.jit import layout as ly
from pyemu.jit import loaded
from pyemu.jit.native import call_handler, peek64, poke64


def load_handler(s: State, form: int, _: int) -> int:
    """The host address of a form's handler, which is in the table from now on."""
    return loaded.native().load(form)


LOAD_HANDLER = service(load_handler)


def run_lazy(s: State, record: int) -> int:
    """A handler: gets the form's real one, unless another record of the form has got it already, and runs it."""
    form = peek64(record + 8 * rc.PACKED) & 0xFFFF
    handler = peek64(s[ly.HANDLERS] + 8 * form)
    if handler == peek64(record):
        handler = call_service(s, LOAD_HANDLER, form, 0)
        if handler == 0:
            return ly.FAULT  # there is an error for the user, and nothing has been executed
    poke64(record, handler)
    return call_handler(s, handler, record)
