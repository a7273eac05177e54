"""Kernels for programs without Python: a C file that carries the machine code.

Triton's own tool for this, `python -m triton.tools.compile`, asks a driver for types
and so needs a GPU. What it writes is this: the binary as bytes, a function that loads
it when it is first called, and one that launches it.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import triton

from tilebook.compile_only import Artefact

TYPES: Mapping[str, str] = {
    "ptr": "CUdeviceptr",
    "i1": "_Bool",
    "i8": "int8_t",
    "i16": "int16_t",
    "i32": "int32_t",
    "i64": "int64_t",
    "f32": "float",
    "f64": "double",
}
"""In C, by the type in TTIR; no types of 16 bits with a fraction, which C lacks."""
_HEAD = """\
#include <cuda.h>
#include <stdint.h>
#include <stddef.h>
"""
_BODY = """\
static CUfunction {name}_loaded;

/* Load the machine code into the current context; {name} does it if you don't. */
CUresult {name}_load(void)
{{
    CUmodule module;
    CUresult said = cuModuleLoadData(&module, {name}_code);
    if (said != CUDA_SUCCESS)
        return said;
    said = cuModuleGetFunction(&{name}_loaded, module, "{name}");
    if (said == CUDA_SUCCESS && {shared} > 48 * 1024)
        said = cuFuncSetAttribute(
            {name}_loaded, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, {shared});
    return said;
}}

/* Of a grid of x by y by z. Multiples of 16 must be: {aligned}. */
CUresult {name}(CUstream stream, unsigned x, unsigned y, unsigned z, {parameters})
{{
    /* Triton's kernels take two pointers more, which this one has no use for. */
    CUdeviceptr scratch = 0, profile = 0;
    void *arguments[] = {{{addresses}, &scratch, &profile}};
    if (x == 0 || y == 0 || z == 0)
        return CUDA_SUCCESS;
    if ({name}_loaded == NULL) {{
        CUresult said = {name}_load();
        if (said != CUDA_SUCCESS)
            return said;
    }}
    return cuLaunchKernel({name}_loaded, x, y, z, {threads}, 1, 1, {shared}, stream,
                          arguments, NULL);
}}
"""


def parameters(artefact: Artefact) -> dict[str, str]:
    """Return what a kernel takes at a launch.

    Args:
        artefact: compiled for NVIDIA.

    Returns:
        By name the type in C, in order.

    Raises:
        ValueError: it takes something that C has no type for.
    """
    (signature,) = re.findall(r"tt\.func public @\w+\((.*)", artefact.ttir)
    found = {}
    for name, kind in re.findall(r"%(\w+): (!tt\.ptr<\w+>|[\w!.]+)", signature):
        short = "ptr" if kind.startswith("!tt.ptr") else kind
        if short not in TYPES:
            raise ValueError(f"C has no type for {name}, which is {kind}")
        found[name] = TYPES[short]
    return found


def aligned(artefact: Artefact) -> list[str]:
    """Return the parameters that were multiples of 16 when a kernel was compiled."""
    pattern = r"%(\w+): [^%]*?tt\.divisibility = 16"
    return re.findall(pattern, artefact.ttir.partition("{\n    ")[0])


def source(artefact: Artefact) -> str:
    """Write a C file with a kernel in it.

    Args:
        artefact: compiled for an NVIDIA GPU; the file runs on that architecture only.

    Returns:
        C, with a function of the kernel's name that launches it.

    Raises:
        ValueError: the kernel needs scratch memory, or takes what C has no type for.
    """
    told = artefact.metadata
    if told["global_scratch_size"] or told.get("profile_scratch_size"):
        raise ValueError(f"{artefact.name} needs scratch memory in global memory")
    takes = parameters(artefact)
    code = artefact.asm["cubin"]
    rows = (code[at : at + 16] for at in range(0, len(code), 16))
    numbers = ",\n    ".join(", ".join(f"0x{x:02x}" for x in row) for row in rows)
    data = (
        "static const unsigned char __attribute__((aligned(16)))\n"
        f"{artefact.name}_code[{len(code)}] = {{\n"
        f"    {numbers}\n}};\n"
    )
    body = _BODY.format(
        name=artefact.name,
        shared=told["shared"],
        aligned=", ".join(aligned(artefact)) or "none",
        threads=32 * told["num_warps"],
        parameters=", ".join(f"{kind} {name}" for name, kind in takes.items()),
        addresses=", ".join(f"&{name}" for name in takes),
    )
    return "\n".join((_HEAD, data, body))


def header() -> Path:
    """Return the folder of the `cuda.h` that comes with Triton."""
    return Path(triton.__file__).parent / "backends" / "nvidia" / "include"


def library(artefact: Artefact, folder: Path, *, link: bool = True) -> Path:
    """Compile a kernel's C file.

    Args:
        artefact: as for `source`.
        folder: where the C file and the result go.
        link: make a library, which needs the driver's; otherwise an object file.

    Returns:
        The result's path.

    Raises:
        RuntimeError: the C compiler refuses it; its words are the message.
    """
    text = folder / f"{artefact.name}.c"
    text.write_text(source(artefact), encoding="utf-8")
    result = text.with_suffix(".so" if link else ".o")
    how = ["-shared", "-lcuda"] if link else ["-c"]
    command = ["cc", "-O2", "-Wall", "-Werror", "-fPIC", f"-I{header()}", str(text)]
    done = subprocess.run(
        [*command, *how, "-o", str(result)], capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    return result
