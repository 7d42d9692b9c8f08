"""ONNX Runtime's sessions, opened so that who runs a graph, and how much of it, is known."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from linne.errors import DeviceError, LinneError
from linne.graphs.plugins import devices_of
from linne.graphs.providers import CPU, Target, load_libraries

ERRORS_ONLY = 3
"""ONNX Runtime's level of what it writes to stderr; what goes wrong is raised as well."""


def session_options(runtime: Any, target: Target, require_accelerator: bool, num_threads: int) -> Any:
    """Return what ONNX Runtime is told of a session on the target, whatever the graph."""
    provider = target.provider
    options = runtime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    options.use_deterministic_compute = True
    options.enable_mem_pattern = provider.memory_pattern
    options.inter_op_num_threads = 1
    # A provider with threads of its own would have to share the cores with ONNX Runtime's.
    options.intra_op_num_threads = num_threads if provider.threads is None else 1
    if provider.name != CPU:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if require_accelerator:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if target.plugin is not None:
        options.add_provider_for_devices(devices_of(runtime, target.plugin)[:1], {})
    return options


def open_checked(runtime: Any, graph: bytes | Path, name: str, target: Target, options: Any, num_threads: int) -> Any:
    """Return the session, after seeing that the provider asked for is the first of those that run it.

    Raises:
        LinneError: the graph cannot be read, or has operators that are not known.
        DeviceError: the provider does not start, or is not the one that runs it.
    """
    provider = target.provider
    providers: list[Any] | None = None
    if target.plugin is None:
        told = dict(target.options)
        if provider.threads is not None:
            told[provider.threads] = str(num_threads)
        # The CPU's is not listed: ONNX Runtime adds it by itself, unless it is told to leave nothing to the CPU.
        providers = [(provider.name, told), *((name, _of_index(told, target)) for name in provider.beside)]
        load_libraries(provider.name, runtime)
    given = str(graph) if isinstance(graph, Path) else graph
    try:
        session: Any = runtime.InferenceSession(given, options, providers=providers, enable_fallback=False)
    except Exception as error:  # its own kinds, one for each status
        reason, version = _said(error), runtime.__version__
        if provider.name == CPU:
            raise LinneError(f"`{name}` cannot be opened by ONNX Runtime {version}: {reason}") from error
        raise DeviceError(
            f"`--device {target.device}`: ONNX Runtime {version} cannot open `{name}` with {provider.name}: {reason}",
            hint="`linne doctor` tries each provider and says what is missing",
        ) from error
    runs = session.get_providers()
    if not runs or runs[0] != provider.name:
        raise DeviceError(
            f"`--device {target.device}`: ONNX Runtime would run `{name}` with {', '.join(runs) or 'nothing'}, "
            f"not with {provider.name}",
            hint="what that provider needs is not here: `linne doctor` says what is missing",
        )
    return session


def _of_index(told: Mapping[str, str], target: Target) -> dict[str, str]:
    """Return the option with which a provider beside the target's is on the same device."""
    option, _ = target.provider.index or ("", "")
    return {option: told[option]} if option in told else {}


def share_of(session: Any, name: str, target: Target) -> tuple[str, tuple[str, ...]]:
    """Return how many of the graph's nodes the target runs, in words, and a note where the CPU runs others.

    Raises:
        DeviceError: it runs none of them.
    """
    if target.provider.name == CPU:
        return "", ()
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return " (this version does not tell for which nodes)", ()
    counts: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] += len(part.get_nodes())
    own, cpu, every = counts[target.provider.name], counts[CPU], counts.total()
    if own == 0:
        raise DeviceError(f"{target.provider.name} runs none of the {every} nodes of `{name}`; all would be the CPU's")
    note = f"{cpu} of {every} nodes of `{name}` run on the CPU, which {target.provider.name} leaves to it"
    return f" ({own} of {every} nodes)", (note,) if cpu else ()


def _said(error: Exception) -> str:
    """Return what ONNX Runtime says in an error's first line, without the place in its source."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return re.sub(r"^/\S+:\d+ [^)]*\) ", "", line)[:300]
