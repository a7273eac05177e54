"""NVIDIA's math library for interpreted kernels: `libdevice.tanh` and its like.

As shipped, `triton.language.extra.libdevice` does nothing at all when interpreted.
Here its functions go the compiler's way as far as the call by symbol, which NumPy
then answers in float64, rounded to the type asked for.
"""

import functools
import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter as upstream

from tilebook.interpreter.handles import pack, values_of
from tilebook.interpreter.patches import replace


def _round_half_away(x: np.ndarray) -> np.ndarray:
    return np.copysign(np.floor(np.abs(x) + 0.5), x)


def _elementwise(scalar: Callable[[float], float]) -> Callable:
    return np.vectorize(scalar, otypes=[np.float64])


# By the names of the symbols, without their prefix "__nv_" and suffix "f".
_FUNCTIONS: dict[str, Callable] = {
    "acos": np.arccos,
    "acosh": np.arccosh,
    "asin": np.arcsin,
    "asinh": np.arcsinh,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "atanh": np.arctanh,
    "cbrt": np.cbrt,
    "ceil": np.ceil,
    "copysign": np.copysign,
    "cos": np.cos,
    "cosh": np.cosh,
    "cospi": lambda x: np.cos(np.pi * x),
    "erf": _elementwise(math.erf),
    "erfc": _elementwise(math.erfc),
    "exp": np.exp,
    "exp10": lambda x: np.power(10.0, x),
    "exp2": np.exp2,
    "expm1": np.expm1,
    "fabs": np.fabs,
    "fast_cos": np.cos,
    "fast_exp": np.exp,
    "fast_fdivide": np.divide,
    "fast_log": np.log,
    "fast_log10": np.log10,
    "fast_log2": np.log2,
    "fast_pow": np.power,
    "fast_sin": np.sin,
    "fast_tan": np.tan,
    "fdim": lambda x, y: np.fmax(x - y, 0),
    "fdividef": np.divide,
    "finite": np.isfinite,
    "floor": np.floor,
    "fma": lambda x, y, z: x * y + z,
    "fmax": np.fmax,
    "fmin": np.fmin,
    "fmod": np.fmod,
    "hypot": np.hypot,
    "isfinited": np.isfinite,
    "isinf": np.isinf,
    "isnan": np.isnan,
    "lgamma": _elementwise(math.lgamma),
    "log": np.log,
    "log10": np.log10,
    "log1p": np.log1p,
    "log2": np.log2,
    "nearbyint": np.rint,
    "nextafter": np.nextafter,
    "pow": np.power,
    "remainder": lambda x, y: x - y * np.rint(x / y),
    "rint": np.rint,
    "round": _round_half_away,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "signbit": np.signbit,
    "sin": np.sin,
    "sinh": np.sinh,
    "sinpi": lambda x: np.sin(np.pi * x),
    "sqrt": np.sqrt,
    "tan": np.tan,
    "tanh": np.tanh,
    "tgamma": _elementwise(math.gamma),
    "trunc": np.trunc,
}


def install() -> None:
    """Give both of Triton's libdevice modules working functions."""
    path = "triton.language.extra"
    library = importlib.import_module(f"{path}.cuda.libdevice")
    stubs = importlib.import_module(f"{path}.libdevice")
    for name, function in list(vars(library).items()):
        if tl.core.is_builtin(function):
            bound = functools.partial(_call, function)
            for module in (library, stubs):
                replace(module, name, lambda _, bound=bound: bound)


def _call(function: Callable, *args: Any, **kwargs: Any) -> Any:
    return function(*args, **kwargs, _semantic=upstream.interpreter_semantic)


def extern_elementwise(original: Callable) -> Callable:
    """Make the builder's call of an external function, known by its symbol."""

    def create_extern_elementwise(
        self: Any,
        library: str,
        path: str,
        symbol: str,
        arguments: list[Any],
        result: Any,
        pure: bool,
    ) -> Any:
        name = symbol.removeprefix("__nv_")
        function = _FUNCTIONS.get(name) or _FUNCTIONS.get(name.removesuffix("f"))
        kind = result.scalar
        if function is None:
            raise NotImplementedError(f"{symbol} has no counterpart when interpreting")
        values = [values_of(argument).astype(np.float64) for argument in arguments]
        return pack(function(*values), kind)

    return create_extern_elementwise
