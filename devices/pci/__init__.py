"""Conventional PCI: configuration space and its access mechanisms, the base class of functions, the chipsets' own
functions."""

from pyemu.devices.pci.access import ConfigPorts, EcamWindow
from pyemu.devices.pci.bus import PciBus
from pyemu.devices.pci.function import Bar, PciFunction, PciState

__all__ = ["Bar", "ConfigPorts", "EcamWindow", "PciBus", "PciFunction", "PciState"]
