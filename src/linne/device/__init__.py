"""Where the work runs: a record of each device, what it can do, and how to pick one.

Only the files below name cuda, xpu, mps, DirectML and their like; everything else takes what it decides from a
`Device`.
"""

from linne.device.capabilities import Capabilities, Fact
from linne.device.kinds import KINDS
from linne.device.record import Device, Mark, describe_versions

__all__ = ["KINDS", "Capabilities", "Device", "Fact", "Mark", "describe_versions"]
