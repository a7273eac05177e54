"""Compile any kernel for any GPU, without a GPU.

from tilebook import compile_only
artefact = compile_only.compile(kernel, x, out, x.numel(), BLOCK=1024)
print(artefact.evidence.line())
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from triton.backends.compiler import GPUTarget

from tilebook import _ship, _worker
from tilebook.compile_only import binaries
from tilebook.compile_only.evidence import Evidence, Notice, read_amd, read_nvidia

__all__ = ["Artefact", "Evidence", "Notice", "compile", "excerpt", "table", "target_of"]


@dataclass(frozen=True, eq=False)
class Artefact:
    """A kernel compiled for one target.

    Args:
        name: the kernel's Python name.
        target: the architecture, such as "sm_90" or "gfx942".
        asm: each stage of the compiler as text, and "cubin" or "hsaco" as bytes.
        metadata: Triton's own: num_warps, num_stages, shared bytes and more.
    """

    name: str
    target: str
    asm: Mapping[str, str | bytes] = field(repr=False)
    metadata: Mapping[str, Any] = field(repr=False)

    @property
    def ttir(self) -> str:
        """Triton IR: tiles without layouts. AttributeError for Gluon kernels."""
        return self._stage("ttir")

    @property
    def ttgir(self) -> str:
        """TritonGPU IR: tiles with the layout of each value over the threads."""
        return self._stage("ttgir")

    @property
    def llir(self) -> str:
        """LLVM IR: the program of one thread."""
        return self._stage("llir")

    @property
    def ptx(self) -> str:
        """NVIDIA's virtual assembly. AttributeError for AMD targets."""
        return self._stage("ptx")

    @property
    def amdgcn(self) -> str:
        """AMD's assembly. AttributeError for NVIDIA targets."""
        return self._stage("amdgcn")

    @functools.cached_property
    def sass(self) -> str:
        """NVIDIA's machine code, disassembled. AttributeError for AMD targets."""
        return binaries.sass(self._stage("cubin"))

    @functools.cached_property
    def evidence(self) -> Evidence:
        """What the machine code shows: registers, spills, load widths and more."""
        shared = self.metadata["shared"]
        if "amdgcn" in self.asm:
            return read_amd(self.target, self.amdgcn, shared)
        cubin = self._stage("cubin")
        return read_nvidia(self.target, self.ptx, cubin, self._ptxas_log, shared)

    @functools.cached_property
    def _ptxas_log(self) -> str:
        return _ptxas_log(_ship.dumps((self.ptx, dict(self.metadata))))

    def _stage(self, name: str) -> Any:
        try:
            return self.asm[name]
        except KeyError:
            have = ", ".join(self.asm)
            raise AttributeError(
                f"{self.name} compiled for {self.target} has no {name}, only {have}"
            ) from None


def compile(
    kernel: Any, /, *args: Any, target: str | GPUTarget = "sm_90", **meta: Any
) -> Artefact:
    """Compile a kernel as a launch with these arguments would, and don't launch it.

    Args:
        kernel: decorated with @triton.jit or @gluon.jit; @triton.heuristics are
            applied, an autotuned kernel needs the configuration's values in `meta`.
        args: as for a launch: tensors of any device (device "meta" takes no memory),
            tensor descriptors, numbers.
        target: "sm_80", "sm_90", "sm_100", "sm_120", "gfx942" or another that this
            Triton can compile for.
        meta: as for a launch: constexprs and options such as num_warps.

    Returns:
        The compiled kernel at each stage.

    Raises:
        TypeError: `kernel` is no jitted function, or arguments are missing.
        ValueError: `target` is unknown.
        triton.CompilationError: the kernel is wrong; Triton's message says where.
        tilebook._worker.WorkerError: the compiler crashed.
    """
    gpu = target_of(target)
    kernel, meta = _ship.unwrap(kernel, args, meta)
    request = _ship.dumps((kernel, args, meta, (gpu.backend, gpu.arch, gpu.warp_size)))
    asm, metadata = _worker.call(
        "compiled", "tilebook.compile_only.binaries:compile_request", request
    )
    name = gpu.arch if gpu.backend == "hip" else f"sm_{gpu.arch}"
    return Artefact(_ship.kernel_name(kernel), name, asm, metadata)


@functools.lru_cache(maxsize=256)
def _ptxas_log(request: bytes) -> str:
    return _worker.call(
        "compiled", "tilebook.compile_only.binaries:ptxas_request", request
    )


def target_of(name: str | GPUTarget) -> GPUTarget:
    """Return Triton's description of a GPU architecture.

    Args:
        name: "sm_90" (or "sm_90a"), "gfx942", or a GPUTarget, which is returned.

    Returns:
        The target.

    Raises:
        ValueError: the name has neither form.
    """
    if isinstance(name, GPUTarget):
        return name
    if match := re.fullmatch(r"sm_(\d{2,3})[af]?", name):
        return GPUTarget("cuda", int(match[1]), 32)
    if re.fullmatch(r"gfx[0-9a-f]{3,4}", name):
        # gfx9 (CDNA) runs 64 threads a warp, the RDNA families 32.
        return GPUTarget("hip", name, 64 if re.fullmatch(r"gfx9..", name) else 32)
    raise ValueError(
        f"target must be like 'sm_90' (NVIDIA) or 'gfx942' (AMD), got {name!r}"
    )


def excerpt(
    text: str, pattern: str, before: int = 0, after: int = 0, limit: int | None = None
) -> str:
    """Return the lines of a listing that match, with some around them.

    Args:
        text: any stage of an artefact.
        pattern: regular expression, searched for in each line.
        before: lines shown before each match.
        after: lines shown after each match.
        limit: at most this many matches; all by default.

    Returns:
        The lines, their common indentation removed; "..." stands for lines left out.

    Raises:
        ValueError: nothing matches.
    """
    lines = text.splitlines()
    hits = [i for i, line in enumerate(lines) if re.search(pattern, line)][:limit]
    if not hits:
        raise ValueError(f"no line matches {pattern!r}")
    shown = sorted(
        {
            i
            for hit in hits
            for i in range(max(0, hit - before), min(len(lines), hit + after + 1))
        }
    )
    kept = [lines[i].expandtabs().rstrip() for i in shown]
    margin = min(len(line) - len(line.lstrip()) for line in kept if line)
    out = []
    for last, i, line in zip([shown[0], *shown], shown, kept, strict=False):
        if i - last > 1:
            out.append("...")
        out.append(line[margin:])
    return "\n".join(out)


def table(artefacts: Mapping[str, Artefact] | Iterable[Artefact]) -> pd.DataFrame:
    """Put the evidence of several compiled kernels side by side.

    Args:
        artefacts: by row label, or just the artefacts, labelled by kernel and target.

    Returns:
        One row per artefact, one column per entry of Evidence.as_row().
    """
    if not isinstance(artefacts, Mapping):
        artefacts = {f"{a.name} {a.target}": a for a in artefacts}
    rows = {label: a.evidence.as_row() for label, a in artefacts.items()}
    return pd.DataFrame.from_dict(rows, orient="index")
