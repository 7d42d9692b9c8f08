"""A driver of NVIDIA's and the module tensorrt, as far as linne calls them, over the reference evaluator of onnx.

Nothing here has run on a GPU. The module is as strict as the recorded surface of the real one
(`fixtures/tensorrt/surface-VERSION.json`, read in the wheels of NVIDIA): what a class there does not have raises
AttributeError here, a value that cannot be set there cannot be set here, and enums have the recorded numbers.
Addresses are those of this process's memory, and what is put on a stream runs when it is waited for.
"""

from __future__ import annotations

import ctypes
import enum
import json
import pickle
import re
import types
from pathlib import Path

import numpy as np

from linne.graphs.tensorrt_cuda import LIBRARY

FOLDER = Path(__file__).parents[1] / "fixtures" / "tensorrt"
VERSIONS = ("10.16", "11.4")


def surface(version):
    """Return what was recorded of the module in a version."""
    return json.loads((FOLDER / f"surface-{version}.json").read_text("ascii"))


C_TYPES = {
    "unsigned int": ctypes.c_uint,
    "int": ctypes.c_int,
    "size_t": ctypes.c_size_t,
    "unsigned long long": ctypes.c_ulonglong,
    "CUdeviceptr": ctypes.c_ulonglong,
    **dict.fromkeys(("CUdevice", "CUdevice_attribute", "CUresult", "CUstreamCaptureMode"), ctypes.c_int),
    **dict.fromkeys(("CUcontext", "CUstream", "CUgraph", "CUgraphExec", "void *", "char *"), ctypes.c_void_p),
    "char **": ctypes.POINTER(ctypes.c_char_p),
}
"""What the types of cuda.h are; a `*` behind another one is a pointer to it."""


def prototypes():
    """Return the types that cuda.h gives the arguments of each function."""
    found = {}
    for name, text in json.loads((FOLDER / "cuda-h.json").read_text("ascii")).items():
        kinds = [re.sub(r"\bconst\b|\w+$", "", argument).strip() for argument in text.split(",")]
        found[name] = [_c_type(" ".join(kind.split())) for kind in kinds]
    return found


def _c_type(text):
    return C_TYPES[text] if text in C_TYPES else ctypes.POINTER(C_TYPES[text.removesuffix("*").strip()])


class FakeDriver:
    """libcuda, called as C through the prototypes of cuda.h.

    `calls` lists what was done, `held` counts what is not given back. GPUs, contexts, streams and
    recordings are numbers.
    """

    def __init__(self, *, name="NVIDIA H200", capability=(9, 0), cuda=13000, count=1, status=0, memory=1 << 30):
        self.name, self.capability, self.cuda, self.count, self.status = name, capability, cuda, count, status
        self.calls, self.memory, self.stack = [], memory, []
        self.blocks, self.streams, self.graphs, self.contexts = {}, {}, {}, 0
        self.capturing = None

    def as_library(self):
        """Return what `ctypes.CDLL` gives."""
        functions = {
            name: ctypes.CFUNCTYPE(ctypes.c_int, *kinds)(getattr(self, name)) for name, kinds in prototypes().items()
        }
        return types.SimpleNamespace(**functions)

    @property
    def held(self):
        return len(self.blocks) + len(self.streams) + len(self.graphs) + self.contexts + len(self.stack)

    def cuInit(self, flags):
        return self.status

    def cuGetErrorName(self, status, text):
        names = {2: b"CUDA_ERROR_OUT_OF_MEMORY", 803: b"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"}
        text[0] = names.get(status)
        return 0 if status in names else 1

    def cuDriverGetVersion(self, version):
        version[0] = self.cuda
        return 0

    def cuDeviceGetCount(self, count):
        count[0] = self.count
        return 0

    def cuDeviceGet(self, device, number):
        device[0] = number
        return 0

    def cuDeviceGetName(self, name, size, device):
        text = self.name.encode()[: size - 1] + b"\0"
        ctypes.memmove(name, text, len(text))
        return 0

    def cuDeviceGetAttribute(self, value, attribute, device):
        value[0] = self.capability[{75: 0, 76: 1}[attribute]]
        return 0

    def cuDevicePrimaryCtxRetain(self, context, device):
        self.contexts += 1
        context[0] = 0xC0
        return 0

    def cuDevicePrimaryCtxRelease_v2(self, device):
        self.contexts -= 1
        return 0

    def cuCtxPushCurrent_v2(self, context):
        assert context == 0xC0
        self.stack.append(context)
        return 0

    def cuCtxPopCurrent_v2(self, context):
        context[0] = self.stack.pop()
        return 0

    def cuMemAlloc_v2(self, address, size):
        assert self.stack
        assert size > 0
        if size > self.memory:
            return 2
        block = ctypes.create_string_buffer(size)
        address[0] = ctypes.addressof(block)
        self.blocks[ctypes.addressof(block)] = block
        self.calls.append(("allocate", size))
        return 0

    def cuMemFree_v2(self, address):
        del self.blocks[address]
        return 0

    def put(self, stream, work):
        """Put `work` on a stream, or into what is recorded."""
        (self.streams[stream] if self.capturing is None else self.capturing).append(work)
        return 0

    def cuMemcpyHtoDAsync_v2(self, address, host, size, stream):
        return self.put(stream, lambda: ctypes.memmove(address, host, size))

    def cuMemcpyDtoHAsync_v2(self, host, address, size, stream):
        return self.put(stream, lambda: ctypes.memmove(host, address, size))

    def cuStreamCreate(self, stream, flags):
        assert flags == 1
        stream[0] = 0x51
        self.streams[0x51] = []
        return 0

    def cuStreamSynchronize(self, stream):
        assert self.capturing is None, "nothing may be waited for while it is recorded"
        while self.streams[stream]:
            self.streams[stream].pop(0)()
        return 0

    def cuStreamDestroy_v2(self, stream):
        del self.streams[stream]
        return 0

    def cuStreamBeginCapture_v2(self, stream, mode):
        assert not self.streams[stream], "TensorRT asks that a first run is over"
        self.capturing = []
        return 0

    def cuStreamEndCapture(self, stream, graph):
        graph[0] = 0x900 + len(self.calls)
        self.graphs[graph[0]] = self.capturing
        self.capturing = None
        self.calls.append(("record",))
        return 0

    def cuGraphInstantiateWithFlags(self, ready, graph, flags):
        ready[0] = graph + 0x100000
        self.graphs[ready[0]] = self.graphs[graph]
        return 0

    def cuGraphLaunch(self, ready, stream):
        self.calls.append(("launch",))
        self.streams[stream].extend(self.graphs[ready])
        return 0

    def cuGraphDestroy(self, graph):
        del self.graphs[graph]
        return 0

    cuGraphExecDestroy = cuGraphDestroy


def put_driver(monkeypatch, driver):
    """Let the loader find `driver`, or nothing, where it looks for that of NVIDIA's; returns it."""
    load = ctypes.CDLL

    def found(name, *rest, **more):
        if name != LIBRARY:
            return load(name, *rest, **more)
        if driver is None:
            raise OSError(f"{name}: cannot open shared object file: No such file or directory")
        return driver.as_library()

    monkeypatch.setattr(ctypes, "CDLL", found)
    return driver


class Plan:
    """IHostMemory, of which the bytes are taken."""

    def __init__(self, content):
        self._content = content

    @property
    def nbytes(self):
        return len(self._content)

    def __bytes__(self):
        return self._content


class FakeTensorrt:
    """The module, of one recorded version. `calls` lists what builders were told; a plan is a pickle of the graph."""

    def __init__(self, driver, version="11.4"):
        self._driver, self._surface, self.calls = driver, surface(version), []
        self.__version__ = self._surface["version"]
        for name, members in self._surface["enums"].items():
            setattr(self, name.rpartition(".")[2], enum.IntEnum(name.rpartition(".")[2], members))
        severity = self.__dict__.pop("Severity")
        for kind in _classes(self, severity):
            setattr(self, kind.__name__, self._strict(kind))

    def _strict(self, kind):
        """Return `kind`, which may have and be set no more than was recorded of it."""
        recorded = self._surface["classes"][kind.__name__]
        public = {name for name in vars(kind) if not name.startswith("_")}
        assert public <= set(recorded), f"{kind.__name__} has no {public - set(recorded)}"

        def set_value(self, name, value):
            if not name.startswith("_") and recorded.get(name) != "property":
                raise AttributeError(f"{kind.__name__}.{name} cannot be set")
            object.__setattr__(self, name, value)

        if kind.__name__ != "ILogger":  # linne's own inherits from it
            kind.__setattr__ = set_value
        return kind


def _classes(fake, severity):
    class ILogger:
        Severity = severity

        def __init__(self):
            self._ready = True

    class ITensor:
        def __init__(self, name, shape):
            self._name, self._shape = name, shape

        @property
        def name(self):
            return self._name

        @property
        def shape(self):
            return list(self._shape)  # Dims there, which is iterated as well

    class INetworkDefinition:
        def __init__(self):
            self._model, self._marked = None, []

        @property
        def num_inputs(self):
            return len(self._model.graph.input)

        @property
        def num_outputs(self):
            return len(self._marked)

        def _tensor(self, item):
            sizes = item.type.tensor_type.shape.dim
            return ITensor(item.name, [size.dim_value if size.HasField("dim_value") else -1 for size in sizes])

        def get_input(self, index):
            return self._tensor(self._model.graph.input[index])

        def get_output(self, index):
            return self._tensor(next(o for o in self._model.graph.output if o.name == self._marked[index]))

        def unmark_output(self, tensor):
            self._marked.remove(tensor.name)

    class IOptimizationProfile:
        def __init__(self):
            self._shapes = {}

        def set_shape(self, input, min, opt, max):  # noqa: A002 - its own names
            self._shapes[input] = (min, opt, max)

    class ITimingCache:
        def __init__(self, content):
            self._content = content

        def serialize(self):
            return Plan(self._content)

    class IBuilderConfig:
        def __init__(self):
            object.__setattr__(self, "builder_optimization_level", 3)
            self._cleared, self._profiles, self._cache = [], [], None

        def create_timing_cache(self, serialized_timing_cache):
            content = bytes(serialized_timing_cache)
            return None if content[:4] == b"torn" else ITimingCache(content)

        def set_timing_cache(self, cache, ignore_mismatch):
            of = cache._content.partition(b"|")[0].decode()
            if of not in ("", fake._driver.name) and not ignore_mismatch:
                return False
            self._cache = cache
            fake.calls.append(("timings", cache._content))
            return True

        def get_timing_cache(self):
            return self._cache

        def clear_flag(self, flag):
            self._cleared.append(fake.BuilderFlag(flag).name)

        def add_optimization_profile(self, profile):
            self._profiles.append(profile)
            return len(self._profiles) - 1

    class ParserError:
        def __init__(self, text):
            self._text = text

        def desc(self):
            return self._text

    class OnnxParser:
        def __init__(self, network, logger):
            self._network, self._errors = network, []

        def parse(self, model, path=None):
            import onnx

            assert isinstance(model, bytes)
            self._network._model = onnx.load_model_from_string(model)
            for problem in _not_read(self._network._model):
                self._errors.append(ParserError(problem))
            self._network._marked = [item.name for item in self._network._model.graph.output]
            return not self._errors

        @property
        def num_errors(self):
            return len(self._errors)

        def get_error(self, index):
            return self._errors[index]

    class Builder:
        def __init__(self, logger):
            assert isinstance(logger, ILogger)
            assert logger._ready
            if not fake._driver.stack:  # no GPU is current; without a driver it is the same
                logger.log(severity.ERROR, "CUDA initialization failure with error: 35")
                raise TypeError("pybind11::init(): factory function returned nullptr")
            self._logger = logger

        def create_network(self, flags=0):
            strong = 1 << int(fake.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
            fake.calls.append(("strongly typed", bool(flags & strong)))
            return INetworkDefinition()

        def create_builder_config(self):
            return IBuilderConfig()

        def create_optimization_profile(self):
            return IOptimizationProfile()

        def build_serialized_network(self, network, config):
            if any(node.op_type == "Einsum" for node in network._model.graph.node):
                self._logger.log(severity.WARNING, "slow")
                self._logger.log(severity.ERROR, "Error Code 10: could not find any implementation for node")
                return None
            shapes = {name: sizes for each in config._profiles for name, sizes in each._shapes.items()}
            if any(size == -1 for size in network.get_input(0).shape):
                assert shapes, "a network with an open size needs a profile"
            level = config.builder_optimization_level
            fake.calls.append(("build", shapes, level, tuple(config._cleared)))
            if config._cache is not None:
                config._cache._content = f"{fake._driver.name}|timed".encode()
            content = network._model.SerializeToString()
            return Plan(pickle.dumps([fake.__version__, content, shapes, network._marked]))

    class IExecutionContext:
        def __init__(self, engine):
            self._engine, self._shape, self._addresses = engine, None, {}

        def set_input_shape(self, name, shape):
            low, _, high = self._engine._shapes.get(name, (shape, shape, shape))
            self._shape = tuple(shape)
            return all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))

        def set_tensor_address(self, name, memory):
            self._addresses[name] = memory
            return memory in fake._driver.blocks

        def get_tensor_shape(self, name):
            if name == self._engine._taken:
                return list(self._shape)
            return list(self._engine._answer(np.zeros(self._shape, np.float32)).shape)

        def execute_async_v3(self, stream_handle):
            shape, engine, addresses = self._shape, self._engine, dict(self._addresses)

            def work():
                size = int(np.prod(shape))
                given = (ctypes.c_float * size).from_address(addresses[engine._taken])
                answer = engine._answer(np.frombuffer(given, np.float32).reshape(shape).copy())
                answer = np.ascontiguousarray(answer, np.float32)
                ctypes.memmove(addresses[engine._given], answer.ctypes.data, answer.nbytes)

            fake.calls.append(("run", shape[0]))
            return fake._driver.put(stream_handle, work) == 0

    class ICudaEngine:
        def __init__(self, content, shapes, marked):
            import onnx
            from onnx.reference import ReferenceEvaluator

            model = onnx.load_model_from_string(content)
            self._evaluator, self._shapes = ReferenceEvaluator(model), shapes
            self._taken, self._given = model.graph.input[0].name, marked[0]
            sizes = model.graph.input[0].type.tensor_type.shape.dim
            self._sizes = [size.dim_value if size.HasField("dim_value") else -1 for size in sizes]
            self._count = len(model.graph.node)

        def _answer(self, images):
            return np.asarray(self._evaluator.run([self._given], {self._taken: images})[0])

        @property
        def num_io_tensors(self):
            return 2

        @property
        def num_layers(self):
            return self._count

        def get_tensor_name(self, index):
            return (self._taken, self._given)[index]

        def get_tensor_mode(self, name):
            return fake.TensorIOMode.INPUT if name == self._taken else fake.TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name):
            return fake.DataType.FLOAT

        def get_tensor_shape(self, name):
            return self._sizes if name == self._taken else [-1]

        def get_tensor_profile_shape(self, name, profile_index):
            return list(self._shapes[name])

        def create_execution_context(self, strategy=None):
            return IExecutionContext(self)

    class Runtime:
        def __init__(self, logger):
            assert fake._driver.stack
            self._logger = logger

        def deserialize_cuda_engine(self, serialized_engine):
            fake.calls.append(("open",))
            try:
                version, *rest = pickle.loads(serialized_engine)  # noqa: S301 - what a plan is: code
            except Exception:
                self._logger.log(severity.ERROR, "Serialization assertion failed.Magic tag does not match")
                return None
            if version != fake.__version__:
                self._logger.log(severity.ERROR, "Version tag does not match. Current Version: 1, Serialized: 2")
                return None
            return ICudaEngine(*rest)

    return (
        *(
            ILogger,
            ITensor,
            INetworkDefinition,
            IOptimizationProfile,
            ITimingCache,
            IBuilderConfig,
            ParserError,
            OnnxParser,
        ),
        *(Builder, IExecutionContext, ICudaEngine, Runtime),
    )


def _not_read(model):
    """Return what TensorRT's parser refuses of quantised graphs (NVIDIA/TensorRT issues 2774 and 3360)."""
    from onnx import numpy_helper

    stored = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    found = [
        f"No importer registered for\nop: {node.op_type}" for node in model.graph.node if node.op_type == "Unheard"
    ]
    for node in model.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        if len(node.input) > 2 and (stored[node.input[2]].dtype != np.int8 or stored[node.input[2]].any()):
            found.append("Assertion failed: shiftIsAllZeros(zeroPoint): Non-zero zero point is not supported.")
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            found.append(f"{node.name}: only activation types allowed as input to this layer.")
    return found
