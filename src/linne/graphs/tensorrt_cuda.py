"""A GPU of NVIDIA's by its driver's own library: what it is, memory on it, copies, a stream, recorded launches.

`libcuda` comes with the driver, whatever CUDA other packages were made for, so that nothing has to be installed to copy
a batch. Signatures are those of cuda.h of CUDA 12.9 and 13.5; a name with `_v2` is what the header defines the plain
one to be. TensorRT computes in the device's primary context, which is the one that is used here.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_ulonglong, c_void_p
from dataclasses import dataclass
from typing import Any

from linne.errors import DeviceError, LinneError

LIBRARY = "nvcuda.dll" if platform.system() == "Windows" else "libcuda.so.1"
NO_DEVICE = 100
MAJOR, MINOR = 75, 76
"""The attributes of a device that are its compute capability."""
NON_BLOCKING, THREAD_LOCAL = 1, 1
"""A stream that waits for no other; a recording that other threads' calls do not spoil."""

SIGNATURES: Mapping[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuDriverGetVersion": (POINTER(c_int),),
    "cuDeviceGetCount": (POINTER(c_int),),
    "cuDeviceGet": (POINTER(c_int), c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (POINTER(c_int), c_int, c_int),
    "cuDevicePrimaryCtxRetain": (POINTER(c_void_p), c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxPushCurrent_v2": (c_void_p,),
    "cuCtxPopCurrent_v2": (POINTER(c_void_p),),
    "cuMemAlloc_v2": (POINTER(c_uint64), c_size_t),
    "cuMemFree_v2": (c_uint64,),
    "cuMemcpyHtoDAsync_v2": (c_uint64, c_void_p, c_size_t, c_void_p),
    "cuMemcpyDtoHAsync_v2": (c_void_p, c_uint64, c_size_t, c_void_p),
    "cuStreamCreate": (POINTER(c_void_p), c_uint),
    "cuStreamSynchronize": (c_void_p,),
    "cuStreamDestroy_v2": (c_void_p,),
    "cuStreamBeginCapture_v2": (c_void_p, c_int),
    "cuStreamEndCapture": (c_void_p, POINTER(c_void_p)),
    "cuGraphInstantiateWithFlags": (POINTER(c_void_p), c_void_p, c_ulonglong),
    "cuGraphLaunch": (c_void_p, c_void_p),
    "cuGraphDestroy": (c_void_p,),
    "cuGraphExecDestroy": (c_void_p,),
}


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """What an engine depends on of a GPU and its driver."""

    name: str
    capability: tuple[int, int]
    """Its compute capability: (9, 0)."""
    driver_cuda: tuple[int, int]
    """The newest CUDA that the driver knows: (12, 8)."""


def load_driver() -> Any:
    """Return the driver's library, its functions with their signatures.

    Raises:
        OSError: there is none, or it lacks one of them.
    """
    library = ctypes.CDLL(LIBRARY)
    for name, arguments in SIGNATURES.items():
        try:
            function = getattr(library, name)
        except AttributeError as error:
            raise OSError(f"{LIBRARY} has no {name}: the driver is older than CUDA 12") from error
        function.argtypes, function.restype = list(arguments), c_int
    return library


def look_for_gpu(number: int = 0) -> GpuFacts | str:
    """Return what the GPU `number` is, or why there is none that can be used."""
    try:
        library = load_driver()
    except OSError as error:
        return f"there is no driver of NVIDIA's here ({error})"
    status = library.cuInit(0)
    if status == NO_DEVICE:
        return "NVIDIA's driver finds no GPU"
    if status:
        return f"NVIDIA's driver does not start: {_name_of(library, status)}"
    count, version, device, major, minor = (c_int() for _ in range(5))
    check(library, "cuDeviceGetCount", ctypes.byref(count))
    if number >= count.value:
        return f"NVIDIA's driver lists {count.value} GPU{'' if count.value == 1 else 's'}, and number {number} is none"
    check(library, "cuDriverGetVersion", ctypes.byref(version))
    check(library, "cuDeviceGet", ctypes.byref(device), number)
    check(library, "cuDeviceGetAttribute", ctypes.byref(major), MAJOR, device)
    check(library, "cuDeviceGetAttribute", ctypes.byref(minor), MINOR, device)
    name = ctypes.create_string_buffer(256)
    check(library, "cuDeviceGetName", name, len(name), device)
    return GpuFacts(
        name=name.value.decode("utf-8", "replace"),
        capability=(major.value, minor.value),
        driver_cuda=(version.value // 1000, version.value % 1000 // 10),
    )


def check(library: Any, function: str, *arguments: Any) -> None:
    """Call a function of the driver.

    Raises:
        DeviceError: it gives another status than 0.
    """
    status = getattr(library, function)(*arguments)
    if status:
        raise DeviceError(f"NVIDIA's driver refuses {function}: {_name_of(library, status)}")


def _name_of(library: Any, status: int) -> str:
    text = c_char_p()
    known = library.cuGetErrorName(status, ctypes.byref(text)) == 0 and text.value is not None
    return text.value.decode("ascii", "replace") if known and text.value is not None else f"error {status}"


class Gpu:
    """One GPU, in use: a stream, and memory that is freed by `close`. One thread at a time may use it."""

    def __init__(self, number: int = 0) -> None:
        """Take the GPU `number`.

        Raises:
            DeviceError: it cannot be used.
        """
        found = look_for_gpu(number)
        if isinstance(found, str):
            raise DeviceError(f"TensorRT needs a GPU of NVIDIA's, and {found}", hint="`linne doctor` says more")
        self.facts = found
        self._library = load_driver()
        device, context = c_int(), c_void_p()
        self._call("cuDeviceGet", ctypes.byref(device), number)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._device, self._context = device, context
        self._addresses: list[int] = []
        self._stream = c_void_p()
        self.is_open = True
        try:
            with self.current():
                self._call("cuStreamCreate", ctypes.byref(self._stream), NON_BLOCKING)
        except BaseException:
            self.close()
            raise

    @property
    def stream(self) -> int:
        """The stream that everything goes by, as a number."""
        return self._stream.value or 0

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make it the GPU of this thread, for what is inside."""
        self._call("cuCtxPushCurrent_v2", self._context)
        try:
            yield
        except BaseException:
            # After an error of the GPU this fails as well, and is not what went wrong.
            with suppress(LinneError):
                self._call("cuCtxPopCurrent_v2", ctypes.byref(c_void_p()))
            raise
        self._call("cuCtxPopCurrent_v2", ctypes.byref(c_void_p()))

    def allocate(self, size_bytes: int) -> int:
        """Return the address of new memory on it."""
        address = c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), size_bytes)
        self._addresses.append(address.value)
        return address.value

    def copy_in(self, address: int, host: int, size_bytes: int) -> None:
        """Begin to copy from the memory at `host`, which has to last until `wait` returns."""
        self._call("cuMemcpyHtoDAsync_v2", address, host, size_bytes, self._stream)

    def copy_out(self, host: int, address: int, size_bytes: int) -> None:
        """Begin to copy to the memory at `host`; it is there when `wait` returns."""
        self._call("cuMemcpyDtoHAsync_v2", host, address, size_bytes, self._stream)

    def wait(self) -> None:
        """Return when all is done that was begun."""
        self._call("cuStreamSynchronize", self._stream)

    def record(self, enqueue: Callable[[], None]) -> Recording:
        """Return what `enqueue` puts on the stream, to be launched as one; it is not run yet."""
        graph, ready = c_void_p(), c_void_p()
        self._call("cuStreamBeginCapture_v2", self._stream, THREAD_LOCAL)
        try:
            enqueue()
        except BaseException:
            # What went wrong is what `enqueue` says; that recording has to end is no news.
            with suppress(LinneError):
                self._call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
            raise
        self._call("cuStreamEndCapture", self._stream, ctypes.byref(graph))
        try:
            self._call("cuGraphInstantiateWithFlags", ctypes.byref(ready), graph, 0)
        finally:
            self._call("cuGraphDestroy", graph)
        return Recording(ready)

    def launch(self, recording: Recording) -> None:
        """Begin to run what was recorded."""
        self._call("cuGraphLaunch", recording.handle, self._stream)

    def forget(self, recording: Recording) -> None:
        """Free what was recorded."""
        self._call("cuGraphExecDestroy", recording.handle)

    def close(self) -> None:
        """Free its memory and stream. A second call does nothing.

        All is tried. What fails is not said: after an error of the GPU everything does, and the error was raised where
        it came up.
        """
        if not self.is_open:
            return
        self.is_open = False
        with suppress(LinneError), self.current():
            for address in self._addresses:
                with suppress(LinneError):
                    self._call("cuMemFree_v2", address)
            if self._stream:
                with suppress(LinneError):
                    self._call("cuStreamDestroy_v2", self._stream)
        self._addresses.clear()
        with suppress(LinneError):
            self._call("cuDevicePrimaryCtxRelease_v2", self._device)

    def _call(self, function: str, *arguments: Any) -> None:
        check(self._library, function, *arguments)


@dataclass(frozen=True, slots=True)
class Recording:
    """Work of a GPU that is launched as one: what CUDA calls a graph."""

    handle: c_void_p
