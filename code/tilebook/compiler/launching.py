"""From TTIR to machine code for any GPU, and to a launch on one that is here."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import triton
from triton._C.libtriton import ir
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tilebook import _ship, _worker
from tilebook.compile_only import Artefact, target_of
from tilebook.compiler import text
from tilebook.compiler.build import lower
from tilebook.compiler.ssa import Function
from tilebook.compiler.syntax import Program
from tilebook.compiler.types import (
    Pointer,
    Scalar,
    Type,
    bf16,
    element,
    f16,
    f32,
    fits,
    i1,
    i32,
    i64,
)

DTYPES: Mapping[torch.dtype, Scalar] = {
    torch.int32: i32,
    torch.int64: i64,
    torch.float16: f16,
    torch.bfloat16: bf16,
    torch.float32: f32,
}
"""The types of tensors whose addresses a program can be given."""


class TextSource(ASTSource):
    """A source for `triton.compile` that is TTIR already.

    Triton takes a file of TTIR too, but then leaves out what it does to its own: here
    its passes run on ours.

    Args:
        name: the function's.
        source: the module as text.
        signature: by parameter, the type in Triton's words.
    """

    def __init__(self, name: str, source: str, signature: Mapping[str, str]) -> None:
        function = SimpleNamespace(
            __name__=name, arg_names=list(signature), launch_metadata=None
        )
        super().__init__(function, dict(signature))
        self.source = source

    def hash(self) -> str:
        """Return what tells this source from others."""
        return hashlib.sha256(self.source.encode()).hexdigest()

    def make_ir(self, *given: Any) -> Any:
        """Parse and verify the text; RuntimeError if it isn't TTIR."""
        return self.read(given[-1])

    def read(self, context: Any) -> Any:
        """Parse and verify the text in a context that knows Triton's dialects."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{self.name}.ttir"
            path.write_text(self.source, encoding="utf-8")
            module = ir.parse_mlir_module(str(path), context)
        module.context = context
        return module


def signature(function: Function) -> dict[str, str]:
    """Return the parameters' types in Triton's words, such as `*fp16` and `i32`."""
    return {value.name: _triton(value.type) for value in function.parameters}


def _triton(kind: Type) -> str:
    name = (element(kind).element if isinstance(kind, Pointer) else kind).name
    word = name.replace("f", "fp") if name in ("f16", "f32") else name
    return f"*{word}" if isinstance(kind, Pointer) else word


def compile(
    function: Function, target: str | GPUTarget = "sm_90", **options: Any
) -> Artefact:
    """Compile a lowered program for a GPU that need not be there.

    Args:
        function: made by `build.lower`.
        target: "sm_80", "sm_90", "gfx942" or another that this Triton compiles for.
        options: of the compiler, such as num_warps.

    Returns:
        Every stage; `asm["source"]` is ours after Triton has read it.

    Raises:
        ValueError: the target is unknown.
        RuntimeError: Triton can't read or compile the text; it prints why.
    """
    gpu = target_of(target)
    request = _ship.dumps(
        (
            function.name,
            text.ttir(function),
            signature(function),
            (gpu.backend, gpu.arch, gpu.warp_size),
            options,
        )
    )
    asm, metadata = _worker.call(
        "compiled", "tilebook.compiler.launching:compile_request", request
    )
    name = gpu.arch if gpu.backend == "hip" else f"sm_{gpu.arch}"
    return Artefact(function.name, name, asm, metadata)


def compile_request(request: bytes) -> tuple[dict[str, str | bytes], dict[str, Any]]:
    """Compile what `compile` packed; runs in the worker.

    Args:
        request: name, text, signature, target and options, packed by `_ship.dumps`.

    Returns:
        The text of every stage, and Triton's metadata.
    """
    name, source, kinds, target, options = _ship.loads(request)
    compiled = triton.compile(
        TextSource(name, source, kinds), target=GPUTarget(*target), options=options
    )
    metadata = compiled.metadata._asdict()
    metadata["target"] = target  # a GPUTarget as plain values
    return dict(compiled.asm), metadata


def verified(function: Function) -> str:
    """Return a lowered program's text as Triton reads it and prints it again.

    Args:
        function: made by `build.lower`.

    Returns:
        TTIR, in Triton's spelling.

    Raises:
        RuntimeError: Triton can't read the text, or its verifier refuses it.
    """
    request = _ship.dumps((function.name, text.ttir(function), signature(function)))
    return _worker.call(
        "compiled", "tilebook.compiler.launching:verify_request", request
    )


def verify_request(request: bytes) -> str:
    """Read what `verified` packed; runs in the worker.

    Args:
        request: name, text and signature, packed by `_ship.dumps`.

    Returns:
        The module as Triton prints it.
    """
    context = ir.context()
    ir.load_dialects(context)
    module = TextSource(*_ship.loads(request)).read(context)
    if not module.verify():
        raise RuntimeError("Triton's verifier refuses the module")
    return module.str()


def launch(
    program: Program,
    grid: tuple[int, ...],
    *arguments: torch.Tensor | bool | int | float,
    num_warps: int = 4,
    num_stages: int = 3,
    **constants: bool | int | float,
) -> None:
    """Run a program on the current GPU.

    Args:
        program: made by @program.
        grid: how many programs along each of up to three axes.
        arguments: tensors and numbers for the parameters that are no constants, in
            order.
        num_warps: warps of a program.
        num_stages: rounds of a loop whose loads are under way at once.
        constants: the other parameters, by name.

    Raises:
        TypeError: too few arguments or too many, or of a type that has no counterpart.
        ValueError: the grid has no side, or more than three, or tensors are elsewhere.
        CompileError: the program is wrong for these types.
    """
    names = [name for name in program.parameters if name not in constants]
    if len(names) != len(arguments):
        raise TypeError(
            f"{program.name} takes {', '.join(names)} beside its constants, "
            f"got {len(arguments)} arguments"
        )
    if not 1 <= len(grid) <= 3:
        raise ValueError(f"grid must have one to three sides, got {grid}")
    kinds = tuple(map(kind_of, names, arguments))
    if 0 in grid:
        return
    gpu = _gpu(names, arguments)
    aligned = tuple(map(_aligned, arguments))
    # As text too: 1, 1.0 and True are equal, 0.0 and -0.0 as well.
    known = tuple((name, x, repr(x)) for name, x in constants.items())
    kernel = _kernel(program, kinds, aligned, known, num_warps, num_stages, gpu)
    kernel[(*grid, 1, 1)[:3]](*arguments)


def _gpu(names: list[str], arguments: tuple) -> int:
    if not torch.cuda.is_available():
        raise ValueError("launch needs a GPU: evaluate() runs programs without one")
    here = torch.cuda.current_device()
    for name, x in zip(names, arguments, strict=True):
        if isinstance(x, torch.Tensor) and x.device != torch.device("cuda", here):
            raise ValueError(f"{name} must be on cuda:{here}, got {x.device}")
    return here


def kind_of(name: str, x: object) -> Type:
    """Return the type that an argument of a launch has in a program.

    Args:
        name: the parameter's, for the message.
        x: a tensor, or a number.

    Returns:
        A pointer to the tensor's type, or i1, i32, i64 or f32.

    Raises:
        TypeError: there is no such type.
    """
    if isinstance(x, torch.Tensor) and x.dtype in DTYPES:
        return Pointer(DTYPES[x.dtype])
    for python, kind in ((bool, i1), (float, f32)):
        if isinstance(x, python):
            return kind
    if isinstance(x, int) and fits(x, i64):
        return i32 if fits(x, i32) else i64
    what = x.dtype if isinstance(x, torch.Tensor) else type(x).__name__
    raise TypeError(f"{name} can't be passed to a program: {what}")


def _aligned(x: torch.Tensor | bool | int | float) -> bool:
    if isinstance(x, torch.Tensor):
        return x.data_ptr() % 16 == 0
    return isinstance(x, int) and not isinstance(x, bool) and x % 16 == 0


@functools.lru_cache(maxsize=256)
def _kernel(
    program: Program,
    kinds: tuple[Type, ...],
    aligned: tuple[bool, ...],
    constants: tuple[tuple[str, bool | int | float, str], ...],
    num_warps: int,
    num_stages: int,
    gpu: int,
) -> Any:
    # Loaded when it is first launched, for the GPU that is current then.
    known = {name: x for name, x, _ in constants}
    names = [name for name in program.parameters if name not in known]
    multiples = [name for name, yes in zip(names, aligned, strict=True) if yes]
    types = dict(zip(names, kinds, strict=True))
    function = lower(program, known | types, multiples)
    source = TextSource(function.name, text.ttir(function), signature(function))
    options = {"num_warps": num_warps, "num_stages": num_stages}
    return triton.compile(source, options=options)
