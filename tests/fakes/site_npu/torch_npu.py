"""A backend from outside torch with a name of its own, as torch_npu is: one device, simulated.

torch 2.5 and newer import it by its entry point. `FAKE_NPU_FAULT` makes its products wrong by a thousandth.
"""

from __future__ import annotations

import atexit
import json
import os
from pathlib import Path

from fakes import device as simulation


class Npu:
    """What is `torch.npu`."""

    def is_available(self):
        return True

    def is_initialized(self):
        return True

    def device_count(self):
        return 1

    def current_device(self):
        return 0

    def get_device_name(self, index=None):
        return "Simulated NPU"

    def synchronize(self, device=None):
        simulation.TRACE.operators["synchronize"] += 1

    def _is_in_bad_fork(self):
        return False

    def manual_seed_all(self, seed):
        simulation.TRACE.seeds.append(seed)


def _wrong_by_a_thousandth(op, args, kwargs):
    answer = op(*args, **kwargs)
    return answer * 1.001 if op.name() == "aten::addmm" else answer


def _autoload():
    """Do nothing: importing the module is enough. torch calls it."""


rules = simulation.Rules(compute=_wrong_by_a_thousandth) if "FAKE_NPU_FAULT" in os.environ else simulation.Rules()
simulation.install("npu", Npu(), rules)
if "FAKE_DEVICE_TRACE" in os.environ:
    trace = Path(os.environ["FAKE_DEVICE_TRACE"])
    atexit.register(lambda: trace.write_text(json.dumps(simulation.TRACE.to_dict())))
