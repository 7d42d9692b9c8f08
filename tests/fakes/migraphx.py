"""MIGraphX's Python module, as far as linne calls it, over the reference evaluator of the package onnx.

AMDMIGraphX@f729a52f, src/py/migraphx_py.cpp: names, their order and defaults, and RuntimeError for what goes wrong.
"""

from __future__ import annotations

import numpy as np


class shape:
    def __init__(self, lens):
        self._lens = list(lens)

    def lens(self):
        return self._lens


class target:
    def __init__(self, name):
        self.name = name


class argument:
    """What calibration is given; results are of the same type there, and are buffers."""

    def __init__(self, buffer):
        self.view = memoryview(buffer)


class program:
    def __init__(self, fake, content, batch):
        import onnx

        self.fake = fake
        self.content = content
        try:
            self.model = onnx.load_model_from_string(content)
        except Exception as error:
            raise RuntimeError("src/onnx/onnx_parser.cpp:285: parse_from: Failed reading onnx file.") from error
        self.batch = batch
        self.compiled_for = None

    def get_parameter_shapes(self):
        found = {}
        for item in self.model.graph.input:
            sizes = [d.dim_value if d.HasField("dim_value") else self.batch for d in item.type.tensor_type.shape.dim]
            found[item.name] = shape(sizes)
        return found

    def compile(self, t, offload_copy=True, fast_math=True, exhaustive_tune=False):
        self.fake.calls.append(("compile", t.name, offload_copy, fast_math, exhaustive_tune))
        if t.name == "gpu" and not self.fake.has_gpu:
            raise RuntimeError("src/targets/gpu/device_name.cpp:37: get_device_id: No device")
        if any(node.op_type == "Einsum" for node in self.model.graph.node):
            raise RuntimeError("src/targets/lowering.cpp:1: apply: No kernel for einsum")
        self.compiled_for = t.name

    def run(self, params):
        from onnx.reference import ReferenceEvaluator

        if self.compiled_for is None:
            raise RuntimeError("src/program.cpp:400: eval: Program is not compiled")
        taken = {name: np.asarray(memoryview(buffer)) for name, buffer in params.items()}
        for name, wanted in self.get_parameter_shapes().items():
            if taken[name].dtype != np.float32 or list(taken[name].shape) != wanted.lens():
                raise RuntimeError(f"src/program.cpp:437: generic_eval: Incorrect shape for parameter: {name}")
        self.fake.calls.append(("run", *(array.shape[0] for array in taken.values())))
        return [memoryview(np.ascontiguousarray(output)) for output in ReferenceEvaluator(self.model).run(None, taken)]


class FakeMigraphx:
    """The module; `calls` lists what it was asked for."""

    def __init__(self, *, has_gpu=False):
        self.has_gpu = has_gpu
        self.calls = []
        self.argument = argument

    def get_target(self, name):
        if name not in ("ref", "gpu"):
            raise RuntimeError(f"src/dynamic_loader.cpp:48: check_load_error: libmigraphx_{name}.so")
        return target(name)

    def parse_onnx_buffer(self, filename, default_dim_value=0, map_input_dims=None):
        assert isinstance(filename, bytes)
        self.calls.append(("parse", default_dim_value))
        return program(self, filename, default_dim_value)

    def quantize_fp16(self, prog, ins_names=("all",)):
        assert prog.compiled_for is None
        self.calls.append(("fp16",))

    def quantize_int8(self, prog, t, calibration=(), ins_names=("dot", "convolution")):
        assert prog.compiled_for is None
        shapes = prog.get_parameter_shapes()
        for item in calibration:
            assert all(list(value.view.shape) == shapes[name].lens() for name, value in item.items())
        self.calls.append(("int8", t.name, [np.asarray(v.view) for item in calibration for v in item.values()]))

    def save(self, p, filename, format="msgpack"):  # noqa: A002 - its own name
        with open(filename, "wb") as file:
            file.write(p.batch.to_bytes(1, "little") + p.content)

    def load(self, filename, format="msgpack"):  # noqa: A002 - its own name
        with open(filename, "rb") as file:
            batch, content = file.read(1), file.read()
        loaded = program(self, content, batch[0])
        loaded.compiled_for = "ref"
        return loaded
