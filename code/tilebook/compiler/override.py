"""Kernels with one stage edited by hand: what would the machine do if the compiler did?

Triton takes a file in the place of a stage's result (`ir_override`, which is an option
of every launch) and goes on from there. It tells kernels apart by the file's name, not
by what is in it; so a file's name here is made of its text.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import triton

from tilebook import check, compile_only
from tilebook.compile_only import Artefact
from tilebook.compiler import twins

EDITABLE = ("ttir", "ttgir", "llir", "ptx", "amdgcn")
BLOCK = 1024
WIDTHS = (1, 2, 4, 8)
"""Neighbours that a thread of the sum may hold."""


def written(text: str, stage: str, folder: Path | None = None) -> str:
    """Put a stage's text where Triton can read it.

    Args:
        text: the edited stage.
        stage: one of `EDITABLE`.
        folder: where; by default one of this user's for temporary files.

    Returns:
        The file's path, for `ir_override`.

    Raises:
        ValueError: there is no such stage, or it is not text.
    """
    check.one_of(stage, "stage", EDITABLE)
    if folder is None:
        folder = Path(tempfile.gettempdir()) / f"tilebook-override-{os.getuid()}"
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(text.encode()).hexdigest()[:24]
    path = folder / f"{name}.{stage}"
    # Whoever reads it at the same time sees all of it or nothing.
    with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
        file.write(text)
    Path(file.name).replace(path)
    return str(path)


def edited(
    kernel: Any,
    *args: Any,
    stage: str,
    edit: Callable[[str], str],
    target: str = "sm_90",
    **meta: Any,
) -> tuple[Artefact, str]:
    """Compile a kernel with a stage edited.

    Args:
        kernel: decorated with @triton.jit.
        args: as for `compile_only.compile`.
        stage: one of `EDITABLE`.
        edit: makes the new text of the old one.
        target: as for `compile_only.compile`.
        meta: constexprs and options.

    Returns:
        The artefact, and the file's path: launched with `ir_override=path` and the same
        arguments, the kernel is this one.

    Raises:
        ValueError: there is no such stage, or the edit changed nothing.
    """
    check.one_of(stage, "stage", EDITABLE)
    text = getattr(compile_only.compile(kernel, *args, target=target, **meta), stage)
    after = edit(text)
    if after == text:
        raise ValueError("edit must change the text")
    path = written(after, stage)
    meta["ir_override"] = path
    return compile_only.compile(kernel, *args, target=target, **meta), path


def narrowed(width: int) -> Callable[[str], str]:
    """Return an edit of TTGIR after which a thread holds fewer neighbours.

    Args:
        width: one of `WIDTHS`.

    Returns:
        A function of the text.
    """
    return lambda text: text.replace(
        "sizePerThread = [8]", f"sizePerThread = [{width}]"
    )


def uncached(text: str) -> str:
    """Edit PTX so that loads leave no line in the L1 cache."""
    return text.replace("ld.global.v4", "ld.global.L1::no_allocate.v4")


def add(
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    path: str | None = None,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Add two vectors, by the kernel as it is compiled or with a stage replaced.

    Args:
        x: float16, contiguous, of a multiple of 16 elements at a multiple of 16 bytes.
        y: the same.
        path: a file that `edited` or `written` made for these; None for none.
        out: where the sum goes; a new vector by default.

    Returns:
        The sum.

    Raises:
        TypeError: not float16.
        ValueError: the vectors' sizes differ, or they are not of that kind.
    """
    out = torch.empty_like(x) if out is None else out
    for name, given in (("x", x), ("y", y), ("out", out)):
        check.tensor(given, name)
        if given.dtype != torch.float16:
            raise TypeError(f"{name} must be float16, got {given.dtype}")
        whole = given.is_contiguous() and given.data_ptr() % 16 == 0
        if given.shape != x.shape or not whole or given.numel() % 16:
            raise ValueError(f"{name} must be a multiple of 16 elements, aligned")
    n = x.numel()
    if n:
        more = {"ir_override": path} if path else {}
        grid = (triton.cdiv(n, BLOCK),)
        twins.add_kernel[grid](x, y, out, n, BLOCK=BLOCK, **more)
    return out
