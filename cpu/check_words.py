"""Which check failed, in words: for every place where mechanism raises an exception, why it does.

By function and the condition that stands there (as `ast.unparse` writes it); an empty condition is that of a raise
without an `if`. Braces are filled from the function's variables and the names in `explain_fault`. A test compares this
with the mechanism's source, so that a new check gets its words.
"""

from __future__ import annotations

_NULL = "selector & 65532 == 0"
_ABSENT = "not attr & ds.P"
_CPL0 = "s[CPL] != 0"
_UMIP = "CR4.UMIP keeps user programs from reading system registers, and CPL is {cpl}"

WORDS: dict[str, dict[str, str]] = {
    # ---- paging and addresses ------------------------------------------------------------------------------------
    "walk_long": {
        "not e & P": "the level-{level} entry at {where:#x} is not present: {e:#x}",
        "e & reserved": "the level-{level} entry at {where:#x} has reserved bits set: {e:#x} & {reserved:#x}",
        "e & PS": "the level-{level} entry at {where:#x} claims a page so large that there is none: {e:#x}",
        "level > 1 and e & (1 << 3 + 9 * level) - 1 & 18446744073709543424": "the large page's entry at {where:#x} has address bits below the page's size set: {e:#x}",
    },
    "walk_32": {
        "not e & P": "the entry at {where:#x} is not present: {e:#x}",
        "e & 2097152": "the large page's entry at {where:#x} has bit 21, which is reserved, set: {e:#x}",
    },
    "walk": {
        "not mode.is_canonical(s, linear)": "the linear address {linear:#x} is not canonical",
        "not pdpte & P": "the page-directory-pointer entry for {linear:#x} is not present: {pdpte:#x}",
    },
    "finish": {"not allowed(s, rights, access, mmu)": "the page is mapped, but its rights do not allow the access"},
    "check_alignment": {"": "the address is not aligned, and CR0.AM and RFLAGS.AC ask for that at CPL 3"},
    "both_pages": {"s[EFER] & paging.EFER_LMA": "the operand runs out of the canonical addresses"},
    "undefined": {"": "these bytes are no instruction of this processor, or not in this mode and with these prefixes"},
    "no_byte": {"s[FETCH_FAULT] == 0": "the instruction runs over 15 bytes, or over the end of its code segment"},
    "decode": {"mode64 == 0 and rip + n - 1 > s[SEG_LIMIT + CS]": "the instruction runs over the limit of CS"},
    # ---- segments ------------------------------------------------------------------------------------------------
    "linear": {
        "good == 0 or not in_limit(s[SEG_LIMIT + segment], attr, offset, size)": "{size} bytes at offset {offset:#x} are not in the segment ({segment_name}: limit {segment_limit:#x}, rights {attr:#x}), or its type forbids the access",
    },
    "element_linear": {"at >> 32": "the element at offset {at:#x} lies beyond what a segment can be"},
    "frame_linear": {
        "not in_limit(limit, attr, offset, size)": "the new stack frame at offset {offset:#x} is outside the stack segment's limit {limit:#x}",
        "not mode.is_canonical(s, offset)": "the new stack frame would be at {offset:#x}, which is not canonical",
    },
    "load_data": {
        "not attr & ds.S or attr & TYPE_CODE_READABLE == ds.CODE": "the descriptor of {selector:#x} is neither data nor readable code (rights {attr:#x})",
        _ABSENT: "the descriptor of {selector:#x} is not present",
        "selector & ds.RPL > dpl or s[CPL] > dpl": "the segment's DPL {dpl} is below CPL {cpl} or the selector's RPL",
    },
    "fetch_stack": {
        "selector & ds.RPL != cpl or ds.dpl_of(attr) != cpl or (not ds.is_writable_data(attr))": "the stack selector {selector:#x} is not of writable data with RPL and DPL equal to {cpl} (rights {attr:#x})",
        _ABSENT: "the stack segment {selector:#x} is not present",
        "not ds.long_mode(s) or not ds.attr_of(code) & ds.L or cpl == 3 or (selector & ds.RPL != cpl)": "the stack selector to return to is null, which is allowed only for 64-bit code below CPL 3 with a matching RPL",
    },
    "load_stack": {
        "not s[MODE] & mode.CODE64 or cpl == 3 or selector & ds.RPL != cpl": "SS would be null, which is allowed only in 64-bit mode below CPL 3 with a matching RPL",
    },
    "check_code_size": {
        "ds.long_mode(s) and attr & (ds.L | ds.DB) == ds.L | ds.DB": "the code segment {selector:#x} has both L and D set",
    },
    "check_target": {"": "the target {offset:#x} is not in the code segment (not canonical, or beyond the limit)"},
    # ---- descriptors ---------------------------------------------------------------------------------------------
    "fetch": {"not in_table(s, selector, 8)": "selector {selector:#x} lies beyond the limit of its descriptor table (GDT limit {gdt_limit:#x}, LDT limit {ldt_limit:#x})"},
    "fetch_upper": {
        "not in_table(s, selector, 16)": "the 16-byte descriptor of {selector:#x} runs over the end of its table",
        "s[VALUE] >> 40 & 31": "the upper half of the descriptor of {selector:#x} has type bits set, which must be 0",
    },
    "require_protected": {"s[MODE] & (mode.PROTECTED | mode.V86) != mode.PROTECTED": "it is not protected mode"},
    "refuse_user_store": {"s[CPL] != 0 and s[CR4] & mode.CR4_UMIP and s[MODE] & mode.PROTECTED": _UMIP},
    "load_table": {
        _CPL0: "CPL is {cpl}, not 0",
        "wide and (not mode.is_canonical_base(s, s[VALUE]))": "the base address is not canonical",
    },
    "load_ldtr": {
        "selector & TI": "LDTR's selector {selector:#x} is itself of the LDT",
        "attr & (S | TYPE) != LDT": "the descriptor of {selector:#x} is not of an LDT (rights {attr:#x})",
        "not attr & P": "the LDT's descriptor {selector:#x} is not present",
        "not mode.is_canonical_base(s, base)": "the LDT's base {base:#x} is not canonical",
    },
    "check_system": {_CPL0: "CPL is {cpl}, not 0"},
    "ltr": {
        _NULL: "the selector is null",
        "selector & TI": "the selector {selector:#x} is of the LDT",
        "kind != TSS32_AVAILABLE and (kind != TSS16_AVAILABLE or long_mode(s))": "the descriptor of {selector:#x} is not of an available TSS (type {kind:#x})",
        "not attr & P": "the TSS's descriptor {selector:#x} is not present",
        "not mode.is_canonical_base(s, base)": "the TSS's base {base:#x} is not canonical",
    },
    # ---- interrupts and exceptions -------------------------------------------------------------------------------
    "deliver_real": {"vector * 4 + 3 > s[IDT_LIMIT]": "vector {vector:#x} needs an IDT limit of at least {last4:#x}; it is {idt_limit:#x}"},
    "deliver_long": {
        "vector * 16 + 15 > s[IDT_LIMIT]": "vector {vector:#x} needs an IDT limit of at least {last16:#x}; it is {idt_limit:#x}",
        "kind_of_gate != ds.INTERRUPT_GATE32 and kind_of_gate != ds.TRAP_GATE32": "IDT entry {vector:#x} is no 64-bit interrupt or trap gate (type {kind_of_gate:#x})",
        "is_software(kind) and ds.dpl_of(attr) < s[CPL]": "the gate's DPL forbids INT {vector:#x} at CPL {cpl}",
        _ABSENT: "IDT entry {vector:#x} is not present",
        "not mode.is_canonical(s, offset)": "the gate's offset {offset:#x} is not canonical",
        "not mode.is_canonical(s, pointer)": "the stack pointer {pointer:#x} for the handler is not canonical",
    },
    "deliver_protected": {
        "vector * 8 + 7 > s[IDT_LIMIT]": "vector {vector:#x} needs an IDT limit of at least {last8:#x}; it is {idt_limit:#x}",
        "gate_type != ds.TASK_GATE and gate_type & ~8 != ds.INTERRUPT_GATE16 and (gate_type & ~8 != ds.TRAP_GATE16)": "IDT entry {vector:#x} is no interrupt, trap or task gate (type {gate_type:#x})",
        "is_software(kind) and ds.dpl_of(attr) < s[CPL]": "the gate's DPL forbids INT {vector:#x} at CPL {cpl}",
        _ABSENT: "IDT entry {vector:#x} is not present",
        "from_v86 and cpl != 0": "an interrupt in virtual-8086 mode must go to privilege 0, and the gate's code segment has DPL {cpl}",
        "offset > ds.limit_of(d)": "the gate's offset {offset:#x} is beyond its code segment's limit",
        "s[FLAGS] & fl.IOPL != fl.IOPL": "INT in virtual-8086 mode needs IOPL 3",
    },
    "gate_code": {
        _NULL: "the gate's code selector is null",
        "not ds.is_code(attr) or ds.dpl_of(attr) > s[CPL]": "the gate's selector {selector:#x} is of no code segment, or of one less privileged than CPL {cpl}",
        _ABSENT: "the gate's code segment {selector:#x} is not present",
        "ds.long_mode(s) and attr & (ds.L | ds.DB) != ds.L": "the gate's code segment {selector:#x} is not one of 64-bit code",
    },
    # ---- IRET, RET and returns -----------------------------------------------------------------------------------
    "iret_real": {
        "virtual and (size != 2 or s[CR4] & mode.CR4_VME == 0)": "IRET in virtual-8086 mode needs IOPL 3, or VME and a 16-bit operand",
        "offset > s[SEG_LIMIT + CS]": "the return address {offset:#x} is beyond the limit of CS",
    },
    "iret_to_v86": {"offset > 65535": "the return address {offset:#x} is beyond 64 KiB"},
    "iret_protected": {"ds.long_mode(s)": "NT is set, and there are no nested tasks in long mode"},
    "fetch_code": {
        _NULL: "the code selector to return to is null",
        "not ds.is_code(attr) or rpl < s[CPL]": "the selector {selector:#x} is of no code segment, or to a more privileged level than CPL {cpl}",
        _ABSENT: "the code segment {selector:#x} is not present",
        "dpl > rpl": "the conforming code segment's DPL {dpl} is above the selector's RPL {rpl}",
        "dpl != rpl": "the code segment's DPL {dpl} is not the selector's RPL {rpl}",
    },
    # ---- far transfers -------------------------------------------------------------------------------------------
    "fetch_target": {_NULL: "the selector of the far transfer is null"},
    "check_code": {
        _ABSENT: "the code segment {selector:#x} is not present",
        "dpl > s[CPL]": "the conforming code segment's DPL {dpl} is above CPL {cpl}",
        "selector & ds.RPL > s[CPL] or dpl != s[CPL]": "the code segment's DPL {dpl} is not CPL {cpl}, or the selector's RPL is above it",
    },
    "fetch_gate_code": {
        "not ds.is_code(attr) or dpl > s[CPL]": "the call gate's selector is of no code segment, or of one with DPL above CPL {cpl}",
        "jump and (not ds.is_conforming(attr)) and (dpl != s[CPL])": "a jump through a gate can't change the privilege (DPL {dpl}, CPL {cpl})",
        "ds.long_mode(s) and attr & (ds.L | ds.DB) != ds.L": "the call gate's code segment is not one of 64-bit code",
        _ABSENT: "the call gate's code segment is not present",
    },
    "check_gate": {
        "dpl < s[CPL] or dpl < selector & ds.RPL": "the gate's DPL {dpl} is below CPL {cpl} or the selector's RPL",
        _ABSENT: "the gate {selector:#x} is not present",
    },
    "to_task": {
        "ds.long_mode(s)": "there are no task switches in long mode",
        "kind != ds.TSS16_AVAILABLE and kind != ds.TSS32_AVAILABLE": "the descriptor is not of an available TSS (type {kind:#x})",
    },
    "far_jump": {"offset > s[SEG_LIMIT + CS]": "the target {offset:#x} is beyond the limit of CS"},
    "call_real": {"offset > s[SEG_LIMIT + CS]": "the target {offset:#x} is beyond the limit of CS"},
    "call_inner_long": {
        "not mode.is_canonical(s, offset)": "the call gate's offset {offset:#x} is not canonical",
        "not mode.is_canonical(s, pointer)": "the inner stack pointer {pointer:#x} is not canonical",
    },
    "far_return": {"offset > s[SEG_LIMIT + CS]": "the return address {offset:#x} is beyond the limit of CS"},
    # ---- tasks ---------------------------------------------------------------------------------------------------
    "read_tss": {"offset + size - 1 > s[TR_LIMIT] or s[TR_ATTR] & ds.UNUSABLE": "{size} bytes at offset {offset:#x} of the TSS are needed, and TR has limit {tr_limit:#x} (or holds no TSS)"},
    "inner_stack": {_NULL: "the TSS's stack selector for the inner level is null"},
    "check_tss": {
        "selector & ds.TI or selector & 65532 == 0": "the TSS's selector {selector:#x} is null or of the LDT",
        _ABSENT: "the TSS {selector:#x} is not present",
        "ds.limit_of(s[VALUE]) < (LIMIT32 if attr & 8 else LIMIT16)": "the TSS {selector:#x} is too short",
        "kind != ds.TSS32_BUSY and kind != ds.TSS16_BUSY": "the TSS {selector:#x} to return to is not busy (type {kind:#x})",
        "kind != ds.TSS32_AVAILABLE and kind != ds.TSS16_AVAILABLE": "the TSS {selector:#x} is not available (type {kind:#x})",
    },
    "probe_state": {"last > s[TR_LIMIT] or s[TR_ATTR] & ds.UNUSABLE": "the present TSS is too short for the task's state (limit {tr_limit:#x})"},
    "read_pdptes": {"e & 1 and e & PDPTE_RESERVED": "a page-directory-pointer entry of the new task has reserved bits set: {e:#x}"},
    "load_code": {
        _NULL: "the new task's CS is null",
        "not ds.is_code(attr)": "the new task's CS {selector:#x} is no code segment",
        _ABSENT: "the new task's code segment {selector:#x} is not present",
        "ds.dpl_of(attr) > rpl": "the new task's conforming code segment has a DPL above its RPL {rpl}",
        "ds.dpl_of(attr) != rpl": "the new task's code segment has a DPL other than its RPL {rpl}",
    },
    "load_segments": {_NULL: "the new task's SS is null"},
    "switch_task": {"s[RIP] > s[SEG_LIMIT + CS]": "the new task's EIP {rip:#x} is beyond the limit of its CS"},
    "load_flags": {"s[CR4] & CR4_VME == 0 or image & fl.TF or (image & fl.IF and s[FLAGS] & fl.VIP)": "the flags can't be loaded in virtual-8086 mode: no VME, TF would be set, or IF with VIP pending"},
    "redirected": {
        "s[TR_LIMIT] < SMALLEST_LIMIT": "the TSS is too short for the interrupt redirection bitmap (limit {tr_limit:#x})",
        "at > s[TR_LIMIT]": "the interrupt redirection bitmap lies beyond the TSS's limit {tr_limit:#x}",
    },
    # ---- system calls --------------------------------------------------------------------------------------------
    "hypercall": {"": "there is no hypervisor, and no hook has answered"},
    "syscall": {"not s[EFER] & mode.EFER_SCE or not s[MODE] & mode.PROTECTED": "EFER.SCE is off, or it is not protected mode"},
    "sysret": {
        "not s[EFER] & mode.EFER_SCE or not s[MODE] & mode.PROTECTED": "EFER.SCE is off, or it is not protected mode",
        _CPL0: "CPL is {cpl}, not 0",
        "size == 8 and (not mode.is_canonical(s, rip))": "RCX, the address to return to, is not canonical",
    },
    "sysenter": {"not s[MODE] & mode.PROTECTED or s[SYSENTER_CS] & 65532 == 0": "IA32_SYSENTER_CS is null, or it is not protected mode"},
    "sysexit": {
        "not s[MODE] & mode.PROTECTED or s[SYSENTER_CS] & 65532 == 0 or s[CPL] != 0": "IA32_SYSENTER_CS is null, CPL is {cpl} rather than 0, or it is not protected mode",
        "not mode.is_canonical(s, rip) or not mode.is_canonical(s, rsp)": "RDX or RCX, the address and stack to return to, is not canonical",
    },
    "swapgs": {
        "not s[MODE] & mode.CODE64": "it is not 64-bit mode",
        _CPL0: "CPL is {cpl}, not 0",
    },
    # ---- ports ---------------------------------------------------------------------------------------------------
    "check_port": {
        "kind != TSS_AVAILABLE and kind != TSS_BUSY or s[TR_LIMIT] < BITMAP_OFFSET + 1": "CPL {cpl} is above IOPL, and TR holds no TSS with an I/O permission bitmap",
        "at + 1 > s[TR_LIMIT]": "CPL {cpl} is above IOPL, and the I/O permission bitmap ends before port {port:#x}",
        "s[VALUE] >> (port & 7) & (1 << size) - 1": "CPL {cpl} is above IOPL, and the I/O permission bitmap forbids port {port:#x}",
    },
    # ---- control, debug and model-specific registers -------------------------------------------------------------
    "privileged": {"": "CPL is {cpl}, not 0"},
    "read_cr": {"else of number == 8": "there is no CR{number}"},
    "write_cr": {"number != 8": "there is no CR{number}", "value > 15": "CR8 has only four bits: {value:#x}"},
    "load_pdptes": {"entry & 1 and entry & PDPTE_RESERVED": "a page-directory-pointer entry has reserved bits set: {entry:#x}"},
    "write_cr0": {
        "value >> 32": "the upper half of CR0 must be 0: {value:#x}",
        "new & CR0_PG and new & CR0_PE == 0": "CR0.PG needs CR0.PE",
        "new & CR0_NW and new & CR0_CD == 0": "CR0.NW needs CR0.CD",
        "s[CR4] & CR4_PAE == 0 or long_code": "long mode (EFER.LME) needs CR4.PAE and a CS without L when paging goes on",
        "efer & EFER_LMA and (long_code or s[CR4] & CR4_PCIDE)": "paging can't go off in 64-bit mode or with CR4.PCIDE",
    },
    "write_cr3": {"new & ~physical.PHYSICAL_MASK": "CR3 has bits above the physical address width set: {new:#x}"},
    "write_cr4": {
        "value & ~s[CR4_ALLOWED]": "CR4 has reserved bits set: {value:#x}",
        "value & CR4_PAE == 0 or (old ^ value) & mode.CR4_LA57": "CR4.PAE can't go off, nor CR4.LA57 change, in long mode",
        "value & CR4_PCIDE and old & CR4_PCIDE == 0 and s[CR3] & CR3_PCID": "CR4.PCIDE can't go on while CR3 has a PCID",
        "value & CR4_PCIDE": "CR4.PCIDE needs long mode",
    },
    "smsw": {"s[CPL] and s[CR4] & CR4_UMIP": _UMIP},
    "check_dr": {
        "number > 7": "there is no DR{number}",
        "(number == 4 or number == 5) and s[CR4] & CR4_DE": "DR{number} is not DR{number}'s alias with CR4.DE",
        "s[DR + 7] & DR7_GD": "DR7.GD guards the debug registers",
    },
    "write_dr": {"value >> 32": "the upper half of DR6 and DR7 must be 0: {value:#x}"},
    "xgetbv": {
        "s[CR4] & CR4_OSXSAVE == 0": "CR4.OSXSAVE is off",
        "index > has_feature(s, XGETBV1)": "there is no such extended control register",
    },
    "xsetbv": {
        "s[CR4] & CR4_OSXSAVE == 0": "CR4.OSXSAVE is off",
        "s[GPR + RCX] & M32 or value & XCR0_X87 == 0 or value & ~s[XCR0_ALLOWED]": "ecx is not 0, bit 0 of XCR0 is clear, or a reserved one is set: {value:#x}",
        "value & XCR0_AVX and value & XCR0_SSE == 0": "XCR0.AVX needs XCR0.SSE",
        "value & XCR0_AVX512 and (value & XCR0_AVX512 != XCR0_AVX512 or value & XCR0_AVX == 0)": "the three parts of AVX-512's state go together, and need AVX's",
    },
    "rdpkru": {"s[CR4] & mode.CR4_PKE == 0": "CR4.PKE is off", "s[GPR + RCX] & M32": "ecx is not 0"},
    "wrpkru": {
        "s[CR4] & mode.CR4_PKE == 0": "CR4.PKE is off",
        "(s[GPR + RCX] | s[GPR + RDX]) & M32": "ecx or edx is not 0",
    },
    "invpcid": {
        "kind > INVPCID_ALL or pcid > CR3_PCID": "there is no type {kind:#x} of INVPCID, or the PCID {pcid:#x} is too large",
        "kind <= INVPCID_CONTEXT and pcid and (s[CR4] & CR4_PCIDE == 0)": "a PCID other than 0 needs CR4.PCIDE",
        "mode.is_canonical_base(s, address) == 0": "the address {address:#x} is not canonical",
    },
    "rdtsc": {"s[CPL] and s[CR4] & CR4_TSD": "CR4.TSD keeps user programs from the time-stamp counter"},
    "rdpmc": {"": "there are no performance counters"},
    "rdmsr": {"call_service(s, READ_MSR, index, 0)": "there is no model-specific register {index:#x}"},
    "wrmsr": {"call_service(s, WRITE_MSR, index, value)": "there is no model-specific register {index:#x}, or it can't be {value:#x}"},
    "set_ac": {_CPL0: "CPL is {cpl}, not 0"},
    # ---- state in memory -----------------------------------------------------------------------------------------
    "available": {
        "s[CR0] & (CR0_EM | CR0_TS)": "CR0.EM or CR0.TS is set",
        "": "the area at {linear:#x} is neither aligned to 16 bytes nor canonical",
        "mode.is_canonical(s, linear) and mode.is_canonical(s, linear + LEGACY_SIZE - 1 & M64)": "the area at {linear:#x} is not aligned to 16 bytes",
    },
    "xsave_available": {
        "s[CR4] & CR4_OSXSAVE == 0": "CR4.OSXSAVE is off",
        "s[CR0] & CR0_TS": "CR0.TS is set",
        "linear & 63": "the area at {linear:#x} is not aligned to 64 bytes",
    },
    "kernel_only": {"s[CR4] & CR4_OSXSAVE == 0": "CR4.OSXSAVE is off"},
    "restore": {"only_compacted and s[VALUE + 1] & COMPACTED == 0": "XRSTORS takes only areas in the compacted format"},
    "check_mxcsr": {"s[VALUE] & ~MXCSR_MASK": "MXCSR in memory has reserved bits set"},
    "check_header": {"reserved": "the header of the XSAVE area has reserved bits set"},
    # ---- debug exceptions ----------------------------------------------------------------------------------------
    "answered": {"": "the hypercall is one of a hypervisor that isn't there: nobody has answered it"},
    "at_breakpoint": {"": "an instruction breakpoint in DR0-DR3 is there (DR6 bits {hit:#x})"},
    "completed": {"": "a trap followed the instruction: single step, data breakpoint or task switch (DR6 bits {hit:#x})"},
    "waiting": {"": "a debug trap was waiting (DR6 bits {hit:#x})"},
}  # fmt: skip
