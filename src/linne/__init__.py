"""linne: from labelled images to a trained, evaluated classifier that predicts.

Public names are imported when first used, so that `import linne` takes milliseconds and no framework.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from linne.bundle import Bundle, open_bundle
    from linne.bundle_verbs import evaluate, predict
    from linne.cross_validation import CrossValidation, FoldsReport, cross_validate
    from linne.data import open_source
    from linne.data.source import Source, Split
    from linne.data.sources.arrays import from_arrays
    from linne.data_verbs import check_data, get_data, list_sources, pack_data, show_data, split_data
    from linne.deploy_verbs import export, tune, verify
    from linne.doctor import examine
    from linne.errors import (
        BundleError,
        CheckFailed,
        DeviceError,
        ImageError,
        LinneError,
        RecipeError,
        SourceError,
    )
    from linne.exporting.wish import Exported
    from linne.importing import Imported
    from linne.inference.backends.base import RunOptions
    from linne.inference.predictor import Prediction, Predictor
    from linne.model_verbs import import_weights, list_models, list_weights
    from linne.preprocess import InputSpec
    from linne.profiling import trace_evaluate, trace_predict, trace_train
    from linne.profiling.trace import TraceResult
    from linne.recipe import (
        AugmentConfig,
        CheckpointConfig,
        DataConfig,
        DeviceConfig,
        ModelConfig,
        OptimConfig,
        Recipe,
    )
    from linne.report import EvalReport
    from linne.report_parity import ParityReport
    from linne.report_tuning import TuningReport
    from linne.sweeping import sweep, sweep_status
    from linne.verbs import TrainResult, train

__version__ = "0.1.0"

__all__ = [
    "AugmentConfig",
    "Bundle",
    "BundleError",
    "CheckFailed",
    "CheckpointConfig",
    "CrossValidation",
    "DataConfig",
    "DeviceConfig",
    "DeviceError",
    "EvalReport",
    "Exported",
    "FoldsReport",
    "ImageError",
    "Imported",
    "InputSpec",
    "LinneError",
    "ModelConfig",
    "OptimConfig",
    "ParityReport",
    "Prediction",
    "Predictor",
    "Recipe",
    "RecipeError",
    "RunOptions",
    "Source",
    "SourceError",
    "Split",
    "TraceResult",
    "TrainResult",
    "TuningReport",
    "__version__",
    "check_data",
    "cross_validate",
    "evaluate",
    "examine",
    "export",
    "from_arrays",
    "get_data",
    "import_weights",
    "list_models",
    "list_sources",
    "list_weights",
    "open_bundle",
    "open_source",
    "pack_data",
    "predict",
    "show_data",
    "split_data",
    "sweep",
    "sweep_status",
    "trace_evaluate",
    "trace_predict",
    "trace_train",
    "train",
    "tune",
    "verify",
]

_MODULES = {
    "linne.bundle": ("Bundle", "open_bundle"),
    "linne.bundle_verbs": ("evaluate", "predict"),
    "linne.cross_validation": ("CrossValidation", "FoldsReport", "cross_validate"),
    "linne.data": ("open_source",),
    "linne.data.sources.arrays": ("from_arrays",),
    "linne.data.source": ("Source", "Split"),
    "linne.data_verbs": ("check_data", "get_data", "list_sources", "pack_data", "show_data", "split_data"),
    "linne.deploy_verbs": ("export", "tune", "verify"),
    "linne.doctor": ("examine",),
    "linne.errors": (
        "BundleError",
        "CheckFailed",
        "DeviceError",
        "ImageError",
        "LinneError",
        "RecipeError",
        "SourceError",
    ),
    "linne.exporting.wish": ("Exported",),
    "linne.importing": ("Imported",),
    "linne.inference.backends.base": ("RunOptions",),
    "linne.inference.predictor": ("Prediction", "Predictor"),
    "linne.model_verbs": ("import_weights", "list_models", "list_weights"),
    "linne.preprocess": ("InputSpec",),
    "linne.profiling": ("trace_evaluate", "trace_predict", "trace_train"),
    "linne.profiling.trace": ("TraceResult",),
    "linne.recipe": (
        "AugmentConfig",
        "CheckpointConfig",
        "DataConfig",
        "DeviceConfig",
        "ModelConfig",
        "OptimConfig",
        "Recipe",
    ),
    "linne.report": ("EvalReport",),
    "linne.report_parity": ("ParityReport",),
    "linne.report_tuning": ("TuningReport",),
    "linne.sweeping": ("sweep", "sweep_status"),
    "linne.verbs": ("TrainResult", "train"),
}
"""Where each public name lives; a test holds it equal to `__all__` and to the imports above."""


def __getattr__(name: str) -> Any:
    module = next((module for module, names in _MODULES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module `linne` has no attribute `{name}`")
    from importlib import import_module

    value = getattr(import_module(module), name)
    globals()[name] = value  # the next use costs nothing
    return value


def __dir__() -> list[str]:
    return __all__
