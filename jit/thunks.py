"""Thunks: the only places where translated code meets C-convention code.

    thunk.enter(state, code)                C convention: runs translated code until it returns
    thunk.exec(state, tmp, record, resume)  runs an instruction's handler; on with the block if it is NEXT
    thunk.unlinked(state, tmp, slot, -)     a chain slot without a target: tell the loop which, with RIP set
    thunk.proceed(state, ...)               RIP is set: on with the block there, unless an event waits or it isn't known
    thunk.leave(state, ...)                 back to the loop, RIP is set

ICOUNT has been charged for the whole block at its start; exec shows a handler the exact count, and takes back what a
block that ends early has not executed.
"""

from __future__ import annotations

from pyemu.cpu.decode import record as rc
from pyemu.cpu.flags import IF
from pyemu.cpu.state import (
    EXIT_REQUEST,
    FLAGS,
    HALTED,
    HIGH_HALF,
    ICOUNT,
    IRQ_PENDING,
    MODE,
    NMI_PENDING,
    PENDING_DEBUG,
    RIP,
)
from pyemu.jit import layout as ly
from pyemu.jit.layout import JUMPED, NEXT

# What the loop looks at between blocks, besides interrupts if they are enabled. It takes the interrupt shadow into
# account too, but that only holds back what waits; and each block checks the budget.
EVENTS = (EXIT_REQUEST, NMI_PENDING, HALTED, PENDING_DEBUG)
IF_SHIFT = IF.bit_length() - 1


def _word(name: str, index: int, base: str = "%s") -> str:
    return f"  %{name} = getelementptr i64, ptr {base}, i64 {index}\n"


def text() -> str:
    """The thunks as LLVM IR."""
    length_byte = rc.PACKED * 8 + rc.LENGTH // 8
    index_byte = rc.PACKED * 8 + rc.INDEX // 8
    count_byte = rc.PACKED * 8 + ly.COUNT_SHIFT // 8
    waiting = f"""
{_word("irq.at", IRQ_PENDING)}  %irq = load atomic i64, ptr %irq.at monotonic, align 8
{_word("flags.at", FLAGS)}  %flags = load i64, ptr %flags.at
  %flags.if = lshr i64 %flags, {IF_SHIFT}
  %enabled = trunc i64 %flags.if to i1
  %waiting.0 = select i1 %enabled, i64 %irq, i64 0
"""
    for k, index in enumerate(EVENTS):
        waiting += _word(f"event.{k}", index)
        waiting += f"  %is.{k} = load atomic i64, ptr %event.{k} monotonic, align 8\n"
        waiting += f"  %waiting.{k + 1} = or i64 %waiting.{k}, %is.{k}\n"
    return f"""
define void @thunk.enter(ptr %s, i64 %code) nounwind {{
  %f = inttoptr i64 %code to ptr
  call preserve_nonecc void %f(ptr %s, i64 0, i64 0, i64 0)
  ret void
}}
define preserve_nonecc void @thunk.leave(ptr %s, i64 %tmp, i64 %a, i64 %b) nounwind {{
  ret void
}}
define preserve_nonecc void @thunk.unlinked(ptr %s, i64 %tmp, i64 %a, i64 %b) nounwind {{
{_word("exit", ly.EXIT_SLOT)}  store i64 %a, ptr %exit
  %slot = inttoptr i64 %a to ptr
{_word("target", ly.S_RIP, "%slot")}  %rip = load i64, ptr %target
{_word("where", RIP)}  store i64 %rip, ptr %where
  ret void
}}
define preserve_nonecc void @thunk.proceed(ptr %s, i64 %tmp, i64 %a, i64 %b) nounwind {{
{waiting}  %event = icmp ne i64 %waiting.{len(EVENTS)}, 0
{_word("rip.at", RIP)}  %rip = load i64, ptr %rip.at
  %top = ashr i64 %rip, 47
  %signs = add i64 %top, 1
  %wide = icmp ugt i64 %signs, 1
  %stop.here = or i1 %event, %wide
  br i1 %stop.here, label %leave, label %look
look:
{_word("mode.at", MODE)}  %mode = load i64, ptr %mode.at
{_word("cache.at", ly.JUMP_CACHE)}  %cache = load ptr, ptr %cache.at
  %folded = shl i64 %mode, {ly.JUMP_CACHE_MODE_SHIFT}
  %tag = xor i64 %rip, %folded
  %high = lshr i64 %rip, {ly.JUMP_CACHE_BITS}
  %mixed = xor i64 %rip, %high
  %index = and i64 %mixed, {ly.JUMP_CACHE_SIZE - 1}
{_word("high.at", HIGH_HALF)}  %from = load i64, ptr %high.at
  %is.high = icmp uge i64 %rip, %from
  %high.half = zext i1 %is.high to i64
  %half = shl i64 %high.half, {ly.JUMP_CACHE_BITS}
  %place = or i64 %index, %half
  %entry = getelementptr {{ i64, ptr }}, ptr %cache, i64 %place
  %known = load i64, ptr %entry
  %hit = icmp eq i64 %known, %tag
  br i1 %hit, label %found, label %leave
found:
  %code.at = getelementptr i8, ptr %entry, i64 8
  %code = load ptr, ptr %code.at
  musttail call preserve_nonecc void %code(ptr %s, i64 0, i64 0, i64 0)
  ret void
leave:
  ret void
}}
define preserve_nonecc void @thunk.exec(ptr %s, i64 %tmp, i64 %a, i64 %b) nounwind {{
  %record = inttoptr i64 %a to ptr
  %index.at = getelementptr i8, ptr %record, i64 {index_byte}
  %index.8 = load i8, ptr %index.at
  %index = zext i8 %index.8 to i64
  %count.at = getelementptr i8, ptr %record, i64 {count_byte}
  %count.8 = load i8, ptr %count.at
  %count = zext i8 %count.8 to i64
  %undone = sub i64 %count, %index
{_word("icount", ICOUNT)}  %charged = load i64, ptr %icount
  %exact = sub i64 %charged, %undone
  store i64 %exact, ptr %icount
{_word("current", ly.CURRENT_RECORD)}  store i64 %a, ptr %current
{_word("killed", ly.KILLED)}  store i64 0, ptr %killed
{_word("stat", ly.STAT_HANDLER_CALLS)}  %calls = load i64, ptr %stat
  %more = add i64 %calls, 1
  store i64 %more, ptr %stat
  %handler = load ptr, ptr %record
  %status = call i64 %handler(ptr %s, ptr %record)
  %after = load i64, ptr %icount
  switch i64 %status, label %fault [ i64 {NEXT}, label %next
                                     i64 {JUMPED}, label %jumped ]
next:
  %dirty = load i64, ptr %killed
{_word("request.at", EXIT_REQUEST)}  %request = load atomic i64, ptr %request.at monotonic, align 8
  %leave = or i64 %dirty, %request
  %clean = icmp eq i64 %leave, 0
  br i1 %clean, label %resume, label %stop
resume:
  %again = add i64 %after, %undone
  store i64 %again, ptr %icount
  %code = inttoptr i64 %b to ptr
  musttail call preserve_nonecc void %code(ptr %s, i64 %tmp, i64 %a, i64 %b)
  ret void
stop:
{_word("rip.next", rc.R_RIP, "%record")}  %rip.now = load i64, ptr %rip.next
  %length.at = getelementptr i8, ptr %record, i64 {length_byte}
  %length.8 = load i8, ptr %length.at
  %length = zext i8 %length.8 to i64
  %following = add i64 %rip.now, %length
{_word("where", RIP)}  store i64 %following, ptr %where
  br label %jumped
jumped:
  %one = add i64 %after, 1
  store i64 %one, ptr %icount
  musttail call preserve_nonecc void @thunk.proceed(ptr %s, i64 0, i64 0, i64 0)
  ret void
fault:
{_word("rip.at", rc.R_RIP, "%record")}  %rip = load i64, ptr %rip.at
{_word("where.fault", RIP)}  store i64 %rip, ptr %where.fault
  ret void
}}
"""
