"""What a Keras model is made of, read from its configuration: a list of names that Keras would look up and call.

Keras finds classes and functions by the names in a file. Names of other modules, registered ones, Lambda layers and
layers that read files have all been ways to run code or to read what is not the file's (CVE-2024-3660, CVE-2025-1550,
CVE-2025-8747, CVE-2025-12058, CVE-2026-1462). So Keras is only shown names of a closed list: layers that compute with
numbers and weights, by the module where Keras keeps them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MODELS = ("Functional", "Sequential", "Model")
MODEL_MODULES = (
    "keras",
    "keras.models",
    "keras.src.models.functional",
    "keras.src.models.sequential",
    "keras.src.models.model",
)
_LAYERS = """
    InputLayer Identity Flatten Reshape Permute RepeatVector Masking
    Dense EinsumDense
    Conv1D Conv2D Conv3D Conv1DTranspose Conv2DTranspose Conv3DTranspose SeparableConv1D SeparableConv2D
    DepthwiseConv1D DepthwiseConv2D
    MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D AveragePooling3D
    GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D
    GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D
    AdaptiveAveragePooling2D AdaptiveMaxPooling2D
    ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D Cropping3D UpSampling1D UpSampling2D UpSampling3D
    BatchNormalization LayerNormalization GroupNormalization UnitNormalization RMSNormalization SpectralNormalization
    Activation ReLU LeakyReLU PReLU ELU Softmax
    Add Subtract Multiply Average Maximum Minimum Concatenate Dot
    Attention AdditiveAttention MultiHeadAttention GroupQueryAttention
    SimpleRNN SimpleRNNCell LSTM LSTMCell GRU GRUCell RNN StackedRNNCells Bidirectional TimeDistributed ConvLSTM2D
    Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D AlphaDropout GaussianDropout GaussianNoise
    ActivityRegularization
    Rescaling Normalization Resizing CenterCrop
    RandomFlip RandomRotation RandomZoom RandomTranslation RandomContrast RandomBrightness RandomCrop
"""
LAYERS = frozenset(_LAYERS.split())
_OPERATIONS = """
    Absolute Add Subtract Multiply Divide TrueDivide Negative Square Sqrt Power Maximum Minimum Mean Max Min Sum Clip
    Reshape Transpose Flip Concatenate Stack Squeeze ExpandDims GetItem Pad Matmul Exp Log Tanh
    Relu Relu6 Sigmoid Softmax Silu Gelu Elu HardSigmoid HardSwish LogSoftmax
"""
OPERATIONS = frozenset(_OPERATIONS.split())
"""What a person writes between layers, as in `x / 127.5 - 1`."""
BY_MODULE: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(MODEL_MODULES, frozenset(MODELS)),
    "keras": frozenset((*MODELS, "DTypePolicy", "FloatDTypePolicy")),
    "keras.dtype_policies": frozenset(("DTypePolicy", "FloatDTypePolicy")),
    "keras.layers": LAYERS,
    "keras.src.ops.numpy": OPERATIONS,
    "keras.src.ops.nn": OPERATIONS,
    "keras.src.applications.convnext": frozenset(("LayerScale", "StochasticDepth")),
    "keras.src.applications.inception_resnet_v2": frozenset(("CustomScaleLayer",)),
}
NUMBERS_ONLY = ("keras.initializers", "keras.regularizers", "keras.constraints")
"""Modules all of whose classes make numbers of numbers."""
MARKS = frozenset(("__keras_tensor__", "__tensor__", "__numpy__", "__slice__", "__ellipsis__", "__tuple__"))
"""Under which Keras writes values that are no objects; `__lambda__` and `__typespec__` are not among them."""
COMPILED = "compile_config"
"""Loss, optimiser and metrics, which may be anybody's and are of no use here."""
_CLASS = re.compile(r"[A-Z][A-Za-z0-9]*")
_NO_CHANGE = ("InputLayer", "Identity", "Dropout", "GaussianNoise", "Resizing", "CenterCrop", "ZeroPadding2D")
"""Layers before a Rescaling, beside augmentation, after which pixels still are what they were."""
_MOST_RAW = 3.0
"""Of what 255 becomes: a Rescaling by 1/255 or 1/127.5 is meant for pixels of 0 to 255."""


def without_compiled(value: Any) -> Any:
    """Return a configuration, of any depth, without what the model was compiled with."""
    if isinstance(value, dict):
        return {key: without_compiled(item) for key, item in value.items() if key != COMPILED}
    return [without_compiled(item) for item in value] if isinstance(value, list) else value


def not_listed(value: Any) -> Iterator[str]:
    """Yield what Keras would look up for a configuration and is not in the list here, each named for a person."""
    if isinstance(value, list):
        for item in value:
            yield from not_listed(item)
    if not isinstance(value, dict):
        return
    if "class_name" in value and (refused := _refused(value)) is not None:
        yield refused
        return
    for item in value.values():
        yield from not_listed(item)


def _refused(value: Mapping[str, Any]) -> str | None:
    """Return the object that `value` stands for, if it is not in the list."""
    name, module, registered = (value.get(key) for key in ("class_name", "module", "registered_name"))
    if not isinstance(name, str) or not isinstance(module, str | None) or not isinstance(registered, str | None):
        return "a class without a name"
    if name in MARKS and module is None and registered is None:
        return None
    if name == "function":
        return f"the function `{_short(value.get('config'))}`"
    known = module is not None and (
        name in BY_MODULE.get(module, ()) or (module in NUMBERS_ONLY and _CLASS.fullmatch(name) is not None)
    )
    if known and registered in (None, name):
        return None
    place = registered.rpartition(">")[0] if registered is not None and ">" in registered else module
    return f"`{_short(name)}` of `{_short(place)}`" if place else f"the custom class `{_short(name)}`"


def _short(value: Any) -> str:
    return ascii(str(value))[1:-1][:60]


def begins_with_rescaling(model: Mapping[str, Any]) -> bool:
    """Return whether the first thing that a model does to pixels is a Rescaling that is meant for 0 to 255."""
    layer: Mapping[str, Any] | None = _first_change(model)
    if layer is None:
        return False
    if layer.get("class_name") in MODELS:
        return begins_with_rescaling(layer)
    scale = _table(layer.get("config")).get("scale")
    if layer.get("class_name") != "Rescaling" or not isinstance(scale, int | float):
        return False
    return 0 < abs(scale) * 255 <= _MOST_RAW


def _first_change(model: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the first layer that pixels go through and are not left as they are; None where it is not one layer."""
    config = _table(model.get("config"))
    layers = [layer for layer in config.get("layers") or [] if isinstance(layer, dict)]
    if model.get("class_name") == "Sequential":
        return next((layer for layer in layers if not _leaves_pixels(layer)), None)
    inputs = [layer for layer in layers if layer.get("class_name") == "InputLayer"]
    current = inputs[0] if len(inputs) == 1 else None
    for _ in layers:
        if current is None or not _leaves_pixels(current):
            break
        name = current.get("name") or _table(current.get("config")).get("name")
        after = [layer for layer in layers if name in set(_sources(layer.get("inbound_nodes")))]
        current = after[0] if len(after) == 1 else None
    return current


def _leaves_pixels(layer: Mapping[str, Any]) -> bool:
    name = str(layer.get("class_name"))
    if name in MODELS:  # as data augmentation is often written
        return all(_leaves_pixels(_table(inner)) for inner in _table(layer.get("config")).get("layers") or [])
    return name in _NO_CHANGE or name.startswith("Random")


def _sources(nodes: Any) -> Iterator[str]:
    """Yield the names of the layers whose outputs go into a layer, from its `inbound_nodes`, as Keras 3 writes them."""
    if isinstance(nodes, list):
        for node in nodes:
            yield from _sources(node)
    elif isinstance(nodes, dict):
        history = nodes.get("keras_history")
        if isinstance(history, Sequence) and history and isinstance(history[0], str):
            yield history[0]
        for value in nodes.values():
            yield from _sources(value)


def _table(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
