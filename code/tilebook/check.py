"""Argument checks: the error messages of every public function come from here.

A wrong type or dtype is a `TypeError`; a wrong rank, shape, layout, device or value
is a `ValueError`. Each message names the argument, what came and what is allowed.
Nothing here reads a tensor's values, so fake tensors and `torch.compile` pass.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from tilebook import device as _device

Dtypes = torch.dtype | Iterable[torch.dtype]


def tensor(
    x: object,
    name: str,
    *,
    dtype: Dtypes | None = None,
    ndim: int | Iterable[int] | None = None,
    shape: Sequence[int | str | None] | None = None,
    device: torch.device | str | None = None,
    contiguous: bool = False,
) -> torch.Tensor:
    """Check that an argument is a tensor of the stated kind, and return it.

    Args:
        x: the argument.
        name: what the caller calls it.
        dtype: the one dtype or the several dtypes allowed.
        ndim: the rank or ranks allowed.
        shape: the sizes wanted; `None` or a letter such as "n" stands for any size.
        device: the device wanted; "cuda" accepts any index.
        contiguous: whether the tensor must be contiguous.

    Returns:
        The same tensor.

    Raises:
        TypeError: not a tensor, or of another dtype.
        ValueError: another rank, shape, device or layout.
    """
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {_describe(x)}")
    if dtype is not None:
        allowed = (dtype,) if isinstance(dtype, torch.dtype) else tuple(dtype)
        if x.dtype not in allowed:
            raise TypeError(
                f"{name} must be {_either(_dtype(d) for d in allowed)}, "
                f"got {_dtype(x.dtype)}"
            )
    # A nested tensor has neither a rank to compare nor a shape.
    if x.layout is not torch.strided or x.is_nested:
        raise ValueError(f"{name} must be dense and strided, got {_layout(x)}")
    if ndim is not None:
        ranks = (ndim,) if isinstance(ndim, int) else tuple(ndim)
        if x.ndim not in ranks:
            raise ValueError(
                f"{name} must have {_either(ranks)} dimension"
                f"{'' if ranks == (1,) else 's'}, got {x.ndim} (shape {_shape(x)})"
            )
    if shape is not None and not _fits(x.shape, shape):
        wanted = ", ".join("*" if n is None else str(n) for n in shape)
        comma = "," if len(shape) == 1 else ""
        raise ValueError(f"{name} must have shape ({wanted}{comma}), got {_shape(x)}")
    if device is not None:
        wanted_device = torch.device(device)
        same = x.device.type == wanted_device.type
        if not same or wanted_device.index not in (None, x.device.index):
            raise ValueError(f"{name} must be on {wanted_device}, got {x.device}")
    # Whoever traces for torch.compile can't ask, and resolves such views itself.
    if contiguous and not torch.compiler.is_compiling() and (x.is_neg() or x.is_conj()):
        raise ValueError(
            f"{name} must hold its values, got a lazily negated or conjugated view: "
            f"call {name}.resolve_neg() or .resolve_conj()"
        )
    if contiguous and not x.is_contiguous():
        raise ValueError(
            f"{name} must be contiguous, got strides {tuple(x.stride())} "
            f"for shape {_shape(x)}"
        )
    return x


def same_shape(**tensors: torch.Tensor) -> None:
    """Check that all tensors, given by name, have one shape.

    Raises:
        ValueError: naming the first two that differ.
    """
    _same("shape", {name: tuple(t.shape) for name, t in tensors.items()}, str)


def same_dtype(**tensors: torch.Tensor) -> None:
    """Check that all tensors, given by name, have one dtype.

    Raises:
        TypeError: naming the first two that differ.
    """
    dtypes = {name: t.dtype for name, t in tensors.items()}
    _same("dtype", dtypes, _dtype, error=TypeError)


def same_device(**tensors: torch.Tensor) -> None:
    """Check that all tensors, given by name, are on one device.

    Raises:
        ValueError: naming the first two that differ.
    """
    _same("device", {name: t.device for name, t in tensors.items()}, str)


def positive_int(x: object, name: str) -> int:
    """Check that an argument is an integer of at least one, and return it.

    Raises:
        TypeError: not an integer (a bool is none).
        ValueError: zero or negative.
    """
    if isinstance(x, bool) or not isinstance(x, (int, torch.SymInt)):
        raise TypeError(f"{name} must be an int, got {_describe(x)}")
    if x < 1:
        raise ValueError(f"{name} must be at least 1, got {x}")
    return x


def natural_number(x: object, name: str) -> int:
    """Check that an argument is an integer of at least zero, and return it.

    Raises:
        TypeError: not an integer (a bool is none).
        ValueError: negative.
    """
    if isinstance(x, bool) or not isinstance(x, (int, torch.SymInt)):
        raise TypeError(f"{name} must be an int, got {_describe(x)}")
    if x < 0:
        raise ValueError(f"{name} must be at least 0, got {x}")
    return x


def power_of_two(x: object, name: str, most: int) -> int:
    """Check that an argument is a power of two up to a limit, and return it.

    Raises:
        TypeError: not an integer (a bool is none).
        ValueError: no power of two, or above the limit.
    """
    if positive_int(x, name) & (x - 1) or x > most:
        raise ValueError(f"{name} must be a power of two up to {most}, got {x}")
    return x


def number(x: object, name: str) -> float:
    """Check that an argument is a number, and return it as a float.

    Raises:
        TypeError: neither an int nor a float (a bool is none).
        ValueError: an int that no float holds.
    """
    if isinstance(x, bool) or not isinstance(x, (int, float)):
        raise TypeError(f"{name} must be a number, got {_describe(x)}")
    try:
        return float(x)
    except OverflowError:
        raise ValueError(f"{name} must fit into a float, got {x}") from None


def one_of(x: object, name: str, allowed: Iterable[object]) -> object:
    """Check that an argument is one of the allowed values, and return it.

    Raises:
        ValueError: it is none of them; the message lists them all.
    """
    values = tuple(allowed)
    if not any(type(x) is type(v) and x == v for v in values):
        raise ValueError(f"{name} must be {_either(map(repr, values))}, got {x!r}")
    return x


def runs_here(x: torch.Tensor, name: str, *, current: bool = False) -> torch.Tensor:
    """Check that a kernel launched in this process can reach a tensor, and return it.

    Args:
        x: a tensor that a kernel is about to get, on any device.
        name: what the caller calls it.
        current: whether it must be on the current GPU, for callers that launch there.

    Returns:
        The same tensor.

    Raises:
        TypeError: not a tensor.
        ValueError: a CPU tensor where kernels are compiled for a GPU, a GPU tensor
            where they are interpreted, any tensor where they can't run at all, or one
            on another GPU than the current.
    """
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {_describe(x)}")
    wanted = _device.launch_device_type()
    if wanted is None:
        raise ValueError(
            f"{name} is on {x.device}, but no kernel can run here: there is no GPU "
            "and TRITON_INTERPRET=0 keeps the interpreter off"
        )
    if x.device.type != wanted:
        kernels = "compiled for the GPU" if wanted == "cuda" else "interpreted"
        raise ValueError(
            f"{name} must be on {wanted}, because kernels are {kernels} in this "
            f"process, got {x.device}"
        )
    if current and x.is_cuda and x.device.index != torch.cuda.current_device():
        raise ValueError(
            f"{name} is on {x.device}, but kernels are launched on the current device, "
            f"cuda:{torch.cuda.current_device()}: enter torch.cuda.device(...)"
        )
    return x


def _same(
    what: str,
    values: Mapping[str, Any],
    show: Any,
    error: type[Exception] = ValueError,
) -> None:
    items = list(values.items())
    for name, value in items[1:]:
        first, wanted = items[0]
        if value != wanted:
            raise error(
                f"{name} must have the {what} of {first}, {show(wanted)}, "
                f"got {show(value)}"
            )


def _fits(sizes: Sequence[int], wanted: Sequence[int | str | None]) -> bool:
    if len(sizes) != len(wanted):
        return False
    letters: dict[str, int] = {}
    for size, want in zip(sizes, wanted, strict=True):
        if isinstance(want, str):
            want = letters.setdefault(want, size)
        if want is not None and size != want:
            return False
    return True


def _either(values: Iterable[object]) -> str:
    texts = [str(v) for v in values]
    if len(texts) <= 1:
        return "".join(texts)
    return ", ".join(texts[:-1]) + " or " + texts[-1]


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shape(x: torch.Tensor) -> str:
    return str(tuple(x.shape))


def _layout(x: torch.Tensor) -> str:
    return "a nested tensor" if x.is_nested else f"layout {x.layout}"


def _describe(x: object) -> str:
    if x is None:
        return "None"
    kind = type(x)
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f"{module}{kind.__qualname__}"
