"""Important passes, each at a kernel that gives it something to do."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from triton.tools.tensor_descriptor import TensorDescriptor

from tilebook.compiler import pipeline, triggers
from tilebook.compiler.pipeline import Step, operations


class Demonstration(NamedTuple):
    """A pass, and what it does to a kernel."""

    flag: str
    """The pass."""
    kernel: Any
    """Of `triggers`."""
    args: tuple[Any, ...]
    """That it is compiled for."""
    meta: Mapping[str, Any]
    """Its constants."""
    target: str
    """For which."""
    claim: str
    """What the pass does there."""
    holds: Callable[[Step], bool]
    """Whether it did."""
    pattern: str
    """Lines worth showing."""

    def steps(self) -> tuple[Step, ...]:
        """Compile the kernel and keep what every pass left."""
        return pipeline.trace(self.kernel, *self.args, target=self.target, **self.meta)

    def step(self) -> Step:
        """What the pass was given, and what it left."""
        return pipeline.named(self.steps(), self.flag)

    def difference(self) -> str:
        """The lines that it took away and put in, those worth showing."""
        found = pipeline.difference(self.steps(), self.flag, self.pattern)
        found = re.sub(r"^([+-]) +", r"\1 ", found, flags=re.M)
        found = re.sub(r"!ttg?\.|, #smem|, mutable|\{async_task_id[^}]*\} ", "", found)
        return "\n".join(_cut(line) for line in found.splitlines())


def _cut(line: str, width: int = 110) -> str:
    return line if len(line) <= width else line[: width - 2].rstrip() + " …"


def _matrix(dtype: torch.dtype = torch.float16) -> torch.Tensor:
    return torch.empty((4096, 4096), dtype=dtype, device="meta")


def _described() -> TensorDescriptor:
    return TensorDescriptor.from_tensor(_matrix(), [64, 64])


def _before(step: Step, name: str) -> int:
    return operations(step.before)[name]


def _after(step: Step, name: str) -> int:
    return operations(step.after)[name]


def _lines(module: str, pattern: str) -> list[str]:
    return [line for line in module.splitlines() if re.search(pattern, line)]


def _in_loop(module: str, name: str) -> int:
    """Count an operation inside the loops of a module."""
    found = re.findall(r"^( *)(?:\S+ = )?scf\.for.*?\n(.*?)^\1\}", module, re.M | re.S)
    return sum(operations(body)[name] for _, body in found)


def _widest(module: str) -> int:
    """The most neighbours that a thread holds in any blocked layout."""
    sizes = re.findall(r"sizePerThread = \[([\d, ]+)\]", module)
    return max(int(x) for size in sizes for x in size.split(","))


def _partitions(module: str) -> list[str]:
    """What each group of warps with a region of its own does, whatever its number."""
    _, *parts = re.split(r"^ *partition\d+\(", module, flags=re.M)
    bodies = (part.partition("ttg.warp_return")[0] for part in parts)
    return [re.sub(r"array<i32: \d>|%arg\d+", "", body) for body in bodies]


def _exponential(module: str) -> str:
    (line,) = _lines(module, r"math\.exp")
    return line.partition(" : ")[2]


HALF, SINGLE = _matrix(), _matrix(torch.float32)
DESCRIBED = (_described(), _described(), _described(), 512)
PRODUCT = (HALF, HALF, SINGLE, 512, 4096)
TILE = {"SIDE": 64}
TILED = {"SIDE": 64, "PRECISION": "tf32"}

DEMONSTRATIONS = (
    Demonstration(
        "triton-combine", triggers.combine_kernel, (HALF, HALF, SINGLE), TILE, "sm_90",
        "the sum behind the product is gone: the product starts from its other term",
        lambda s: (_before(s, "arith.addf"), _after(s, "arith.addf")) == (1, 0),
        r"tt\.dot|addf|tt\.load.*f32",
    ),
    Demonstration(
        "triton-reorder-broadcast", triggers.broadcast_kernel, (SINGLE, SINGLE), TILE,
        "sm_90",
        "the exponential of 64 by 64 becomes one of 64 by 1, stretched afterwards",
        lambda s: (_exponential(s.before), _exponential(s.after))
        == ("tensor<64x64xf32>", "tensor<64x1xf32>"),
        r"math\.exp|tt\.broadcast",
    ),
    Demonstration(
        "triton-licm", triggers.invariant_kernel, (SINGLE, SINGLE, SINGLE, 64),
        {"BLOCK": 512}, "sm_90",
        "of two loads in the loop one stands before it, under the condition that the "
        "loop runs at all",
        lambda s: (_in_loop(s.before, "tt.load"), _in_loop(s.after, "tt.load"))
        == (2, 1) and _after(s, "tt.load") == 2,
        r"tt\.load|scf\.for",
    ),
    Demonstration(
        "triton-loop-unroll", triggers.unroll_kernel, (SINGLE, SINGLE, 64),
        {"BLOCK": 512}, "sm_90",
        "one load in the loop becomes four, and a second loop has what is left over",
        lambda s: (_before(s, "tt.load"), _after(s, "tt.load")) == (1, 5)
        and _after(s, "scf.for") == 2,
        r"scf\.for|tt\.load",
    ),
    Demonstration(
        "tritongpu-coalesce", triggers.transpose_kernel, (HALF, HALF, 4096), TILE,
        "sm_90",
        "load and store get layouts of eight neighbours, the one along rows, the other "
        "along columns, with conversions both ways",
        lambda s: (_widest(s.before), _widest(s.after)) == (1, 8)
        and _after(s, "ttg.convert_layout") == _before(s, "ttg.convert_layout") + 4,
        r"#ttg\.blocked|tt\.load|tt\.store",
    ),
    Demonstration(
        "tritongpu-remove-layout-conversions", triggers.transpose_kernel,
        (HALF, HALF, 4096), TILE, "sm_90",
        "of all conversions one is left: the transpose",
        lambda s: _before(s, "ttg.convert_layout") >= 10
        and _after(s, "ttg.convert_layout") == 1,
        r"convert_layout",
    ),
    Demonstration(
        "tritongpu-optimize-thread-locality", triggers.locality_kernel,
        (SINGLE, SINGLE, 64), {"ROWS": 16, "BLOCK": 128}, "sm_90",
        "the loop sums four neighbours, which are one thread's, and a second sum over "
        "all threads stands behind it; the old one goes with what nobody uses",
        lambda s: (_in_loop(s.before, "tt.reduce"), _before(s, "tt.reduce")) == (1, 1)
        and (_in_loop(s.after, "tt.reduce"), _after(s, "tt.reduce")) == (2, 3)
        and bool(_lines(s.after, r"\}\) : \(tensor<16x32x4xf32")),
        r"tt\.reduce\"|reshape|scf\.for|\}\) :",
    ),
    Demonstration(
        "tritongpu-F32DotTC", triggers.product_kernel,
        (SINGLE, SINGLE, SINGLE, 512, 4096), {"SIDE": 32, "PRECISION": "tf32x3"},
        "sm_80",
        "a product becomes three, of what TF32 holds and of what it left over",
        lambda s: (_before(s, "tt.dot"), _after(s, "tt.dot")) == (1, 3),
        r"tt\.dot|subf",
    ),
    Demonstration(
        "tritongpu-accelerate-matmul", triggers.product_kernel, PRODUCT, TILED, "sm_90",
        "the product becomes the warp group's, its operands go to shared memory",
        lambda s: (_after(s, "tt.dot"), _after(s, "ttng.warp_group_dot")) == (0, 1)
        and _after(s, "ttg.local_alloc") == 2,
        r"dot |local_alloc|nvidia_mma",
    ),
    Demonstration(
        "tritongpu-reduce-data-duplication", triggers.combine_kernel,
        (HALF, HALF, SINGLE), TILE, "sm_80",
        "two conversions to an operand's layout become a way through shared memory",
        lambda s: _before(s, "ttg.convert_layout") - _after(s, "ttg.convert_layout")
        == _after(s, "ttg.local_alloc") == _after(s, "ttg.local_load") == 2,
        r"convert_layout|local_",
    ),
    Demonstration(
        "tritongpu-assign-latencies", triggers.product_kernel, PRODUCT, TILED, "sm_80",
        "each load of the loop has a note how many rounds ahead it has to be",
        lambda s: len(_lines(s.after, r"tt\.load .*tt\.latency = \d")) == 2
        and not _lines(s.before, r"tt\.latency"),
        r"tt\.load",
    ),
    Demonstration(
        "tritongpu-schedule-loops", triggers.product_kernel, PRODUCT, TILED, "sm_80",
        "loads are of stage 0, the product is of the last one",
        lambda s: len(_lines(s.after, r"tt\.load .*loop\.stage = 0")) == 2
        and len(_lines(s.after, r"tt\.dot .*loop\.stage = 2")) == 1,
        r"tt\.load|tt\.dot",
    ),
    Demonstration(
        "tritongpu-pipeline", triggers.product_kernel, PRODUCT, TILED, "sm_80",
        "loads become copies to shared memory, with two rounds of them before the loop",
        lambda s: (_before(s, "tt.load"), _after(s, "tt.load")) == (2, 0)
        and _after(s, "ttg.async_copy_global_to_local") == 6
        and _in_loop(s.after, "ttg.async_copy_global_to_local") == 2,
        r"tt\.load|async_copy|async_wait|scf\.for|local_alloc",
    ),
    Demonstration(
        "triton-nvidia-tma-lowering", triggers.specialised_kernel, DESCRIBED, TILE,
        "sm_90",
        "a descriptor's store becomes a tile in shared memory, a fence and a bulk copy",
        lambda s: _before(s, "tt.descriptor_store") > 0
        and _after(s, "tt.descriptor_store") == 0
        and _after(s, "ttng.async_tma_copy_local_to_global")
        == _before(s, "tt.descriptor_store"),
        r"descriptor_store|async_tma_copy_local|fence|store_wait|local_alloc %",
    ),
    Demonstration(
        "triton-nvidia-gpu-fence-insertion", triggers.fence_kernel,
        (HALF, HALF, SINGLE), TILE, "sm_90",
        "before a product of what threads wrote to shared memory there is a fence",
        lambda s: (_before(s, "ttng.fence_async_shared"),
                   _after(s, "ttng.fence_async_shared")) == (0, 1),
        r"fence",
    ),
    Demonstration(
        "nvgpu-warp-specialization", triggers.specialised_kernel, DESCRIBED, TILE,
        "sm_90",
        "the loop is there three times: for warps that load, and for two groups that "
        "multiply, here both the whole tile",
        lambda s: (_before(s, "scf.for"), "ttg.warp_specialize" in s.before)
        == (1, False) and "ttg.warp_specialize" in s.after
        and (_after(s, "scf.for"), _after(s, "ttng.warp_group_dot")) == (3, 2)
        and len(_partitions(s.after)) == 2
        and len(set(_partitions(s.after))) == 1
        and operations(_partitions(s.after)[0])["ttng.warp_group_dot"] == 1,
        r"warp_specialize|partition\d|scf\.for|descriptor_load|dot |async_tma_copy_gl",
    ),
    Demonstration(
        "convert-scf-to-cf", triggers.unroll_kernel, (SINGLE, SINGLE, 64),
        {"BLOCK": 512}, "sm_90",
        "two loops become blocks, with a comparison and two branches each",
        lambda s: (_before(s, "scf.for"), _after(s, "scf.for")) == (2, 0)
        and (_after(s, "cf.br"), _after(s, "cf.cond_br")) == (4, 2),
        r"scf\.for|cf\.|\^bb",
    ),
    Demonstration(
        "allocate-shared-memory-nv", triggers.transpose_kernel, (HALF, HALF, 4096),
        TILE, "sm_90",
        "the conversion has a place in shared memory, 8 KiB at 0",
        lambda s: "ttg.shared = 8192" in s.after
        and bool(_lines(s.after, r"convert_layout .*allocation\.offset = 0")),
        r"convert_layout|ttg\.shared",
    ),
)  # fmt: skip
