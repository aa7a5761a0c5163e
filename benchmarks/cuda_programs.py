"""Programs lowered for CUDA on a machine without a GPU, and what in them costs time there, read from their text."""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp

from benchmarks.ceilings import matmul_precision
from benchmarks.counting import Work, work_of
from quantjax.extractors import attention

CUDNN = 91000  # the version to lower for where there is none
LARGEST_HEAD = 128  # that cuDNN's attention takes on every GPU
FUSED_ATTENTION = "__cudnn$fmhaSoftmax"
PROBLEMS = ("host_transfers", "float64", "transposing_convolutions")

_CALL = re.compile(r"custom_call @(?:\"([^\"]+)\"|([\w$.]+))|custom_call_target=\"([^\"]+)\"")
_FEED = re.compile(r"\b(infeed|outfeed|send|recv)(?:-done)?(?:\"?\(| %)")
_HOST = re.compile(r"callback|MoveToHost|MoveToDevice|annotate_device_placement")
_DOUBLE = re.compile(r"[x<]f64>|\b(?:f64|c128)\[")
_CONVOLUTION = re.compile(r"stablehlo\.convolution\((%[\w#]+).*?dim_numbers = \[([^]]*)\]x\[([^]]*)\]->\[([^]]*)\]")
_TRANSPOSE = re.compile(r"(%[\w#]+) = stablehlo\.transpose ")


class Program(NamedTuple):
    """A function as CUDA would get it; nothing was run."""

    exported: jax.export.Exported
    text: str  # StableHLO
    work: Work


def cuda_program(function: Callable[..., Any], shapes: Sequence[Any], precision: str = "float32") -> Program:
    """Lower function(*shapes) for CUDA. Raises ValueError when it calls back into Python."""
    run = jax.jit(function)
    with jax.default_matmul_precision(matmul_precision(precision)), _as_on_a_gpu():
        traced = run.trace(*shapes).jaxpr.jaxpr
        if calls := host_calls(traced):
            raise ValueError(f"{', '.join(calls)} would stop the device for Python in every call")
        allowed = [jax.export.DisabledSafetyCheck.custom_call(FUSED_ATTENTION)]
        allowed.append(jax.export.DisabledSafetyCheck.platform())  # `lower_here` reads it without a GPU
        exported = jax.export.export(run, platforms=["cuda"], disabled_checks=allowed)(*shapes)
    return Program(exported, exported.mlir_module(), work_of(traced, "cuda"))


def lower_here(program: Program, shapes: Sequence[Any], donated: tuple[int, ...] = ()) -> jax.stages.Lowered:
    """The CUDA form of the program for this machine's CPU, to be compiled and read: its memory, and what XLA made."""
    _name_attention()
    return jax.jit(program.exported.call, donate_argnums=donated).lower(*shapes)


def findings(*texts: str) -> dict[str, list[str]]:
    """What no text of a program should hold, by kind (PROBLEMS); empty lists where all is well."""
    readers = (host_transfers, doubles, transposing_convolutions)
    return {kind: [f for text in texts for f in read(text)] for kind, read in zip(PROBLEMS, readers, strict=True)}


def host_calls(jaxpr: Any) -> list[str]:
    """Primitives of a traced function that call back into Python."""
    found = set[str]()
    for equation in jaxpr.eqns:
        found |= {equation.primitive.name} if "callback" in equation.primitive.name else set()
        for value in equation.params.values():
            parts = value if isinstance(value, tuple | list) else (value,)
            inner = [getattr(part, "jaxpr", part) for part in parts]
            found |= {name for part in inner if hasattr(part, "eqns") for name in host_calls(part)}
    return sorted(found)


def kernels(text: str) -> list[str]:
    """Names of the library calls in a StableHLO or HLO text."""
    return sorted({name for match in _CALL.finditer(text) for name in match.groups() if name})


def host_transfers(text: str) -> list[str]:
    """What moves data between device and host while the program runs: feeds, sends, calls back into Python."""
    found = {match.group(1) for match in _FEED.finditer(text)}
    return sorted(found | {name for name in kernels(text) if _HOST.search(name)})


def doubles(text: str) -> list[str]:
    """Lines that compute in float64 or complex128, which accelerators do at a fraction of their speed."""
    return [line.strip() for line in text.splitlines() if _DOUBLE.search(line)]


def transposing_convolutions(text: str) -> list[str]:
    """Convolutions of a StableHLO text whose maps must be transposed before or after the kernel.

    Kernels for matrix units read and write maps whose channels lie side by side. So a convolution counts where the
    innermost axis of an operand or of the result is a spatial one (a digit in its dimension numbers), or where what it
    reads is a transpose that the program itself asks for.
    """
    found, transposed = [], set[str]()
    for line in text.splitlines():
        if "func.func" in line:
            transposed = set()  # names of values start anew in every function
        if match := _TRANSPOSE.search(line):
            transposed.add(match.group(1))
        if match := _CONVOLUTION.search(line):
            source, *axes = match.groups()
            if source in transposed or any(labels.split(", ")[-1].isdigit() for labels in axes):
                found.append(line.strip())
    return found


@contextlib.contextmanager
def _as_on_a_gpu() -> Iterator[None]:
    """Trace what a machine with a GPU would: elsewhere attention takes no kernel of cuDNN's, and JAX asks for cuDNN."""
    from jax._src.cudnn import fused_attention_stablehlo as of_jax

    version = of_jax.cuda_versions or SimpleNamespace(cudnn_get_version=lambda: CUDNN)
    with mock.patch.object(of_jax, "cuda_versions", version), mock.patch.object(attention, "attention_kernel", _kernel):
        yield


def _kernel(dtype: Any, platform: str, size: int = 64) -> str:
    fused = platform == "cuda" and jnp.dtype(dtype).itemsize == 2 and size % 8 == 0 and size <= LARGEST_HEAD
    return "cudnn" if fused else "xla"


@cache
def _name_attention() -> None:
    """Let XLA's CPU compiler know cuDNN's attention by name, so that it places its arrays; it is never called."""
    wrap = ctypes.pythonapi.PyCapsule_New
    wrap.restype, wrap.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    address = ctypes.cast(ctypes.pythonapi.Py_GetVersion, ctypes.c_void_p)  # any function
    capsule = wrap(address, b"xla._CUSTOM_CALL_TARGET", None)
    jax.ffi.register_ffi_target(FUSED_ATTENTION, capsule, platform="cpu", api_version=0)
