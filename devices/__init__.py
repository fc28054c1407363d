"""Everything behind an I/O port, an MMIO window or a PCI function."""
