"""A stand-in for Triton's C++ library, enough for its interpreter (NumPy only).

Triton's interpreter is Python, but imports the compiler's library, which no browser can
load. What it takes from it is little: loads, stores and atomics by address, a fused
multiply-add, the names of options, and the type of an argument. All of that is here.
What only the compiler uses exists by name, and says when it is called that it is none.

`install` puts the stand-in where Triton looks for its library; that has to happen
before Triton is imported.
"""

import enum
import os
import sys
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np

from tilebook.browser.memory import Binary, Memory

PLACE = "triton._C"
LIBRARY = f"{PLACE}.libtriton"
memory = Memory()
"""What kernels may touch at the moment."""

# Name -> members, as the compiler's library has them.
OPTIONS = {
    "ATOMIC_OP": "ADD FADD AND OR XOR XCHG MAX MIN UMIN UMAX",
    "CACHE_MODIFIER": "NONE CA CG WB CS WT CV",
    "DESCRIPTOR_REDUCE_KIND": "NONE ADD MIN MAX INC DEC AND OR XOR",
    "EVICTION_POLICY": "NORMAL EVICT_FIRST EVICT_LAST",
    "INPUT_PRECISION": "TF32 TF32x3 IEEE BF16x3 BF16x6",
    "MEM_SEMANTIC": "ACQUIRE_RELEASE ACQUIRE RELEASE RELAXED",
    "MEM_SYNC_SCOPE": "GPU CTA SYSTEM",
    "PADDING_OPTION": "PAD_ZERO PAD_NAN",
    "PROPAGATE_NAN": "NONE ALL",
    "ROUNDING_MODE": "RTZ RTNE RS",
    "ScaleDotElemTypeTY": "E4M3 E5M2 E2M3 E3M2 E2M1 BF16 FP16",
}
# Parts of the library that only the compiler uses.
COMPILING = ("amd", "gluon_ir", "gsan_testing", "linear_layout", "llvm", "nvidia")
COMPILING += ("passes", "proton")
TYPES = {
    "bool": "u1",
    "int8": "i8",
    "int16": "i16",
    "int32": "i32",
    "int64": "i64",
    "uint8": "u8",
    "uint16": "u16",
    "uint32": "u32",
    "uint64": "u64",
    "float16": "fp16",
    "bfloat16": "bf16",
    "float32": "fp32",
    "float64": "fp64",
    "float8_e4m3fn": "fp8e4nv",
    "float8_e5m2": "fp8e5",
}


class Absent:
    """What a browser lacks: it can be named, as in a type hint, but not made."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError(
            f"{type(self).__name__} belongs to Triton's compiler, which isn't here"
        )


class Part(ModuleType):
    """A part of the library. Whatever it hasn't is `Absent`."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"{self.__name__} has no {name}")
        made = type(name, (Absent,), {"__module__": self.__name__})
        setattr(self, name, made)
        return made


# Loads, stores and atomics


def _lanes(pointers: np.ndarray, mask: Any) -> np.ndarray:
    return np.broadcast_to(np.asarray(mask, dtype=bool), pointers.shape)


def load(
    pointers: np.ndarray, mask: np.ndarray, other: np.ndarray, dtype: Any
) -> np.ndarray:
    """Read a tile.

    Args:
        pointers: uint64, any shape.
        mask: bool; lanes that are off take what `other` has.
        other: of the same shape.
        dtype: of the elements.
    """
    on = _lanes(pointers, mask)
    result = np.array(np.broadcast_to(other, pointers.shape), dtype=dtype)
    result[on] = memory.gather(pointers[on], result.dtype, "load")
    return result


def store(pointers: np.ndarray, value: np.ndarray, mask: np.ndarray) -> None:
    """Write a tile, where the mask is on."""
    on = _lanes(pointers, mask)
    memory.scatter(pointers[on], np.broadcast_to(value, pointers.shape)[on], "store")


def _unsigned(op: np.ufunc) -> Binary:
    def combine(old: np.ndarray, new: np.ndarray) -> np.ndarray:
        kind = f"u{old.dtype.itemsize}"
        return op(old.view(kind), np.ascontiguousarray(new).view(kind)).view(old.dtype)

    return combine


COMBINE: dict[str, Binary] = {
    "ADD": np.add,
    "FADD": np.add,
    "AND": np.bitwise_and,
    "OR": np.bitwise_or,
    "XOR": np.bitwise_xor,
    "XCHG": lambda old, new: new,
    "MAX": np.maximum,
    "MIN": np.minimum,
    "UMAX": _unsigned(np.maximum),
    "UMIN": _unsigned(np.minimum),
}


def atomic_rmw(
    op: enum.Enum, pointers: np.ndarray, value: np.ndarray, mask: np.ndarray, sem: Any
) -> np.ndarray:
    """Combine memory with a tile, lane after lane; return what each lane found."""
    on = _lanes(pointers, mask)
    result = np.zeros(pointers.shape, dtype=value.dtype)
    brought = np.broadcast_to(value, pointers.shape)[on]
    with np.errstate(all="ignore"):
        found = memory.change(pointers[on], brought, COMBINE[op.name], "atomic")
    result[on] = found
    return result


def atomic_cas(
    pointers: np.ndarray, compared: np.ndarray, value: np.ndarray, sem: Any
) -> np.ndarray:
    """Write where memory is what it is compared with; return what each lane found."""
    flat = pointers.reshape(-1)
    pairs = np.empty(flat.shape, dtype=[("old", value.dtype), ("new", value.dtype)])
    pairs["old"] = np.broadcast_to(compared, pointers.shape).reshape(-1)
    pairs["new"] = np.broadcast_to(value, pointers.shape).reshape(-1)
    found = np.empty(flat.shape, dtype=value.dtype)
    # One lane at a time: a lane may find what the one before it wrote.
    for at in range(flat.size):
        here = flat[at : at + 1]
        found[at : at + 1] = memory.gather(here, value.dtype, "atomic")
        if found[at] == pairs["old"][at]:
            memory.scatter(here, pairs["new"][at : at + 1], "atomic")
    return found.reshape(pointers.shape)


# Arithmetic


def fma_fp32(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return a b + c in float32, rounded once."""
    # The product of two float32 is exact in float64. Their sum isn't, and rounding it
    # twice could go wrong where the first lands on a tie: so it is rounded to odd.
    with np.errstate(all="ignore"):
        product = a.astype(np.float64) * b.astype(np.float64)
        addend = c.astype(np.float64)
        total = product + addend
        part = total - product
        lost = (product - (total - part)) + (addend - part)
    bits = total.view(np.int64)
    inexact = np.isfinite(total) & np.isfinite(lost) & (lost != 0) & (bits & 1 == 0)
    away = (lost > 0) == (total > 0)
    odd = np.where(inexact, bits + np.where(away, 1, -1), bits)
    with np.errstate(all="ignore"):
        return odd.view(np.float64).astype(np.float32)


def _fused(a: float, b: float, c: float) -> float:
    if not np.isfinite([a, b, c]).all():
        return a * b + c
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    # A zero has no sign as a fraction.
    return float(exact) if exact else a * b + c


def fma_fp64(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Return a b + c in float64, rounded once; exact arithmetic, so it is slow."""
    lanes = zip(*(x.reshape(-1).tolist() for x in (a, b, c)), strict=True)
    return np.array([_fused(*lane) for lane in lanes]).reshape(a.shape)


# Arguments and settings


def getenv(name: str, default: str | None = None) -> str | None:
    """Return a setting."""
    return os.environ.get(name, default)


def getenv_bool(name: str, default: bool = False) -> bool:
    """Return a setting that is on or off."""
    value = os.environ.get(name)
    return (
        default if value is None else value.lower() in ("1", "on", "true", "y", "yes")
    )


def get_cache_invalidating_env_vars() -> dict[str, str]:
    """Return the settings that change compiled code: there is none."""
    return {}


def native_specialize_impl(
    backend: Any, value: Any, is_const: bool, specialize: bool, align: bool
) -> tuple[str, None]:
    """Return how Triton calls an argument's type; nothing is specialized here.

    Args:
        backend: unused.
        value: a number, None, or what has a `data_ptr`.
        is_const: whether the pointer is to memory that stays as it is.
        specialize: unused.
        align: unused.

    Raises:
        TypeError: no kernel takes such an argument.
    """
    if value is None:
        return "constexpr", None
    if hasattr(value, "data_ptr"):
        name = str(value.dtype).removeprefix("torch.")
        return f"*{'k' if is_const else ''}{TYPES[name]}", None
    if isinstance(value, bool):
        return "u1", None
    if isinstance(value, int):
        small = -(2**31) <= value < 2**31
        return ("i32" if small else "u64" if value >= 2**63 else "i64"), None
    if isinstance(value, float):
        return "fp32", None
    raise TypeError(f"a kernel takes no {type(value).__name__}")


def _modules() -> dict[str, ModuleType]:
    """Make the library and its parts, by their full names."""
    library, ir = Part(LIBRARY), Part(f"{LIBRARY}.ir")
    for name, members in OPTIONS.items():
        setattr(ir, name, enum.Enum(name, members))
    interpreter = Part(f"{LIBRARY}.interpreter")
    interpreter.MEM_SEMANTIC = enum.Enum("MEM_SEMANTIC", OPTIONS["MEM_SEMANTIC"])
    interpreter.RMW_OP = enum.Enum("RMW_OP", OPTIONS["ATOMIC_OP"])
    for fn in (load, store, atomic_rmw, atomic_cas, fma_fp32, fma_fp64):
        setattr(interpreter, fn.__name__, fn)
    for fn in (
        getenv,
        getenv_bool,
        get_cache_invalidating_env_vars,
        native_specialize_impl,
    ):
        setattr(library, fn.__name__, fn)
    parts = {"ir": ir, "interpreter": interpreter}
    parts |= {name: Part(f"{LIBRARY}.{name}") for name in COMPILING}
    for name, part in parts.items():
        setattr(library, name, part)
    place = Part(PLACE)
    place.libtriton = library
    made = (place, library, *parts.values())
    return {module.__name__: module for module in made}


def install() -> None:
    """Let Triton find the stand-in in place of its library.

    Raises:
        RuntimeError: Triton is imported already, with the library it came with.
    """
    if LIBRARY in sys.modules:
        if isinstance(sys.modules[LIBRARY], Part):
            return
        raise RuntimeError("Triton has its own library already")
    for module in _modules().values():
        module.__path__ = []
        sys.modules[module.__name__] = module
