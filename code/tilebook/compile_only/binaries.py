"""The compiler and the tools behind it: Triton's pipeline, ptxas, nvdisasm."""

from __future__ import annotations

import contextlib
import functools
import io
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import CUDABackend
from triton.compiler import ASTSource, make_backend
from triton.experimental.gluon._runtime import GluonASTSource
from triton.runtime.cache import get_cache_manager
from triton.runtime.jit import create_function_from_signature

from tilebook import _ship

# What ptxas said of a binary lies beside it in Triton's cache.
_SAID = "ptxas.log"


def compile_request(request: bytes) -> tuple[dict[str, str | bytes], dict[str, Any]]:
    """Compile what `compile_only.compile` packed; runs in the worker.

    Args:
        request: kernel, arguments, options and target, packed by `_ship.dumps`.

    Returns:
        The text of every stage, and Triton's metadata.
    """
    kernel, args, meta, target = _ship.loads(request)
    with _heard() as said:
        compiled = _compile(kernel, args, meta, GPUTarget(*target))
    metadata = compiled.metadata._asdict()
    if said:
        get_cache_manager(metadata["hash"]).put("".join(said), _SAID)
    metadata["target"] = target  # a GPUTarget as plain values
    return dict(compiled.asm), metadata


def _compile(kernel: Any, args: tuple, meta: dict, target: GPUTarget) -> Any:
    # As JITFunction.run does it, but for the target rather than the current GPU.
    if kernel.debug:
        meta = {"debug": True, **meta}
    backend = make_backend(target)
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, options = bind(*args, **meta)
    options, signature, constexprs, attrs = kernel._pack_args(
        backend, meta, bound, specialization, options
    )
    source = GluonASTSource if kernel.is_gluon() else ASTSource
    return triton.compile(
        source(kernel, signature, constexprs, attrs),
        target=target,
        options=options.__dict__,
    )


@contextlib.contextmanager
def _heard() -> Iterator[list[str]]:
    """Collect what ptxas says when Triton calls it, which it does for new binaries."""
    make, said = CUDABackend.make_cubin, []

    def make_cubin(*args: Any) -> bytes:
        log = io.StringIO()
        try:
            with triton.knobs.nvidia.scope(), contextlib.redirect_stdout(log):
                triton.knobs.nvidia.dump_ptxas_log = True
                cubin = make(*args)
        except Exception:
            sys.stdout.write(log.getvalue())
            raise
        said.append(log.getvalue())
        return cubin

    CUDABackend.make_cubin = make_cubin
    try:
        yield said
    finally:
        CUDABackend.make_cubin = make


def ptxas_request(request: bytes) -> str:
    """Return what ptxas says of a kernel; runs in the worker.

    It is known where `compile_request` made the binary. Of one that somebody else put
    into Triton's cache, Triton's own step is repeated, so that the flags are the ones
    of a real launch.

    Args:
        request: PTX and Triton's metadata, packed by `_ship.dumps`.

    Returns:
        The output of ptxas -v.
    """
    ptx, metadata = _ship.loads(request)
    cache = get_cache_manager(metadata["hash"])
    if path := cache.get_file(_SAID):
        return Path(path).read_text()
    target = GPUTarget(*metadata["target"])
    backend = make_backend(target)
    # A warp-specialised kernel's warps need be no power of two; ptxas reads them in the
    # PTX.
    known = set(backend.parse_options({}).__dict__) - {"num_warps"}
    options = backend.parse_options({k: v for k, v in metadata.items() if k in known})
    with _heard() as said:
        backend.make_cubin(ptx, dict(metadata), options, target.arch)
    cache.put("".join(said), _SAID)
    return "".join(said)


@functools.lru_cache(maxsize=64)
def sass(cubin: bytes) -> str:
    """Disassemble a cubin with the nvdisasm that comes with Triton.

    Args:
        cubin: an NVIDIA binary.

    Returns:
        The listing: code and labels only.

    Raises:
        RuntimeError: nvdisasm doesn't know the architecture.
    """
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            # The analysis of branches changes no listing of these binaries.
            [triton.knobs.nvidia.nvdisasm.path, "-c", "-ndf", file.name],
            capture_output=True,
            text=True,
        )
    if done.returncode:
        raise RuntimeError(f"nvdisasm failed: {done.stderr.strip()}")
    return done.stdout
