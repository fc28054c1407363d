"""FXSAVE, FXRSTOR, XSAVE, XSAVEOPT, XSAVEC and XRSTOR of the x87 and SSE state (mechanism).

    fxsave(s, linear, rex_w)   fxrstor(s, linear, rex_w)
    xsave(s, linear, rex_w)    xsaveopt   xsavec   xrstor      the mask is EDX:EAX

`linear` is the checked linear address of the area (512 bytes, for XSAVE forms 576), `rex_w` nonzero for the 64-bit forms.
They raise #UD, #NM, #GP (alignment, reserved bits) and memory faults themselves and then return nonzero.
"""
