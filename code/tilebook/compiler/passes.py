"""What the passes do, and whether one can change a result's bits.

`DOES` knows every pass over tiles that Triton 3.6 to 3.9 runs for sm_80, sm_90, sm_100
and gfx942, as read in what they leave (`pipeline.trace`) and in Triton's documentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd

from tilebook.compiler.pipeline import Step


class Known(NamedTuple):
    """What is known of a pass."""

    does: str
    """In a few words."""
    bits: str = ""
    """Why a result may differ by a rounding after it; nothing if it can't."""


ORDER = "sums along an axis follow the layout"
"""Why passes that choose layouts may change bits."""

DOES: dict[str, Known] = {
    # Of MLIR itself.
    "inline": Known("puts helper functions where they are called"),
    "canonicalize": Known("works out constants, drops what does nothing"),
    "cse": Known("computes what is there twice once"),
    "sccp": Known("follows constants through branches"),
    "symbol-dce": Known("drops functions that nobody calls"),
    "convert-scf-to-cf": Known("makes loops into blocks and branches"),
    "convert-index-to-llvm": Known("makes indices into integers"),
    # Tiles without layouts.
    "triton-rewrite-tensor-pointer": Known("makes block pointers into pointers"),
    "triton-rewrite-tensor-descriptor-to-pointer": Known(
        "makes descriptors into pointers where there is no copy engine"
    ),
    "triton-combine": Known(
        "melts small patterns into one operation",
        "a sum that follows a product becomes where the product starts",
    ),
    "triton-reorder-broadcast": Known("computes first and stretches then"),
    "triton-loop-unroll": Known("writes a loop out where `tl.range` asks for it"),
    "triton-licm": Known("takes out of loops what they don't change, loads too"),
    "triton-loop-aware-cse": Known("computes twins among what a loop carries once"),
    # Layouts.
    "convert-triton-to-tritongpu": Known("gives every tile a first, blocked layout"),
    "tritongpu-coalesce": Known(
        "gives loads and stores layouts with wide accesses", ORDER
    ),
    "tritongpu-F32DotTC": Known(
        "makes a product in float32 into three of TF32 or BF16 if asked to",
        "that is what was asked for",
    ),
    "triton-nvidia-gpu-plan-cta": Known("splits tiles among a cluster's programs"),
    "triton-nvidia-gpu-optimize-cta-locality": Known(
        "has a cluster's programs need less of one another"
    ),
    "triton-nvidia-gpu-assign-cga-layouts": Known(
        "splits tiles among a cluster's programs"
    ),
    "tritongpu-remove-layout-conversions": Known(
        "carries layouts on until few conversions are left", ORDER
    ),
    "tritongpu-optimize-thread-locality": Known(
        "has each thread add up its own through a loop, and all once behind it",
        "a sum's order is another",
    ),
    "tritongpu-accelerate-matmul": Known(
        "gives products to tensor cores and their layouts",
        "the instruction decides on order, roundings and TF32",
    ),
    "tritonamdgpu-accelerate-matmul": Known(
        "gives products to matrix cores and their layouts",
        "the instruction decides on order and roundings",
    ),
    "tritongpu-optimize-dot-operands": Known(
        "has tensor cores read operands from shared memory, turned if need be"
    ),
    "tritonamdgpu-optimize-dot-operands": Known(
        "has matrix cores read operands from shared memory, turned if need be"
    ),
    "triton-nvidia-optimize-descriptor-encoding": Known(
        "gives descriptors the layout that their tiles have in shared memory"
    ),
    "tritonamdgpu-optimize-descriptor-encoding": Known(
        "gives descriptors the layout that their tiles have in shared memory"
    ),
    "tritonamdgpu-optimize-epilogue": Known(
        "stores sums in the layout in which they are"
    ),
    "tritongpu-reduce-data-duplication": Known(
        "takes operands of products by way of shared memory"
    ),
    # Loops.
    "tritongpu-fuse-nested-loops": Known("makes a loop in a loop one, if asked to"),
    "tritongpu-combine-tensor-select-and-if": Known(
        "moves choices between tiles into branches on the same condition"
    ),
    "tritongpu-assign-latencies": Known("notes how many rounds ahead a load has to be"),
    "tritongpu-schedule-loops": Known("gives each operation of a loop its stage"),
    "tritonamdgpu-schedule-loops": Known("gives each operation of a loop its stage"),
    "tritongpu-pipeline": Known("has loads of later rounds under way during this one"),
    "tritonamdgpu-pipeline": Known("has loads of later rounds under way during this"),
    "tritongpu-prefetch": Known("loads the next part of an operand during this one's"),
    "tritongpu-coalesce-async-copy": Known("widens copies to shared memory"),
    "tritongpu-reorder-instructions": Known("moves operations to where fewer live"),
    "tritonamdgpu-reorder-instructions": Known("moves operations to where fewer live"),
    "tritonamdgpu-block-pingpong": Known("has two groups of warps take turns"),
    "tritonamdgpu-fold-true-cmpi": Known("drops comparisons that are always true"),
    "tritonamdgpu-convert-buffer-ops": Known(
        "loads by a base and an offset of 32 bits where that is enough"
    ),
    "tritonamdgpu-convert-tensor-ops": Known("writes descriptors' loads as copies"),
    "tritonamdgpu-update-async-wait-count": Known("counts what is waited for anew"),
    "convert-warp-pipeline": Known("puts the barriers between stages of warps"),
    "optimize-amd-lds-usage": Known("splits what needs too much shared memory"),
    # Warps with different tasks.
    "nvgpu-warp-specialization": Known("shares a loop among groups of warps"),
    "tritongpu-automatic-warp-specialization": Known(
        "shares a loop among groups of warps, by the passes that follow"
    ),
    "tritongpu-partition-scheduling": Known("decides which group does what"),
    "tritongpu-partition-loops": Known("gives each group a loop of its own"),
    "tritongpu-optimize-partition-warps": Known("gives groups no more warps than used"),
    "tritongpu-allocate-warp-groups": Known("numbers the warps of the groups"),
    "tritongpu-normalize-ws-while-loops": Known("brings while loops into one form"),
    "nvws-insert-aref": Known("hands tiles from group to group"),
    "nvws-insert-tmem-aref": Known("hands sums from group to group"),
    "nvws-hoist-tmem-store": Known("writes sums' first values before the loop"),
    "nvws-assign-stage-phase": Known("counts each buffer's rounds"),
    "nvws-lower-aref": Known("makes handing over into barriers"),
    "nvws-lower-warp-group": Known("makes groups into regions of one operation"),
    # Tensor memory, of Blackwell.
    "tritongpu-optimize-accumulator-init": Known(
        "starts sums at nothing rather than at zeros"
    ),
    "tritongpu-hoist-tmem-alloc": Known("reserves sums' memory before the loop"),
    "tritongpu-promote-lhs-to-tmem": Known("puts left operands into tensor memory"),
    "triton-nvidia-gpu-remove-tmem-tokens": Known("drops what only ordered accesses"),
    "triton-nvidia-optimize-tmem-layouts": Known(
        "picks layouts that load widely", ORDER
    ),
    "triton-nvidia-interleave-tmem": Known("moves loads of sums to their uses"),
    "triton-nvidia-tmem-load-reduce": Known(
        "finds the largest while loading, by one instruction"
    ),
    "triton-nvidia-gpu-tmem-barrier-insertion": Known("orders accesses to sums"),
    "triton-nvidia-gpu-tmem-wait-insertion": Known("waits for loads of sums"),
    # Down to the machine.
    "triton-nvidia-tma-lowering": Known("makes descriptors' loads into bulk copies"),
    "triton-nvidia-gpu-fence-insertion": Known(
        "makes threads' writes seen by tensor cores and copy engine"
    ),
    "triton-nvidia-gpu-proxy-fence-insertion": Known(
        "makes threads' writes seen by the copy engine"
    ),
    "triton-nvidia-mma-lowering": Known("adds the barriers that products signal"),
    "triton-nvidia-check-matmul-two-cta": Known("checks that products agree on pairs"),
    "triton-nvidia-gpu-lower-clc": Known("asks the hardware for the next tile"),
    "triton-nvidia-gpu-hoist-mbarrier-lifecycle": Known(
        "makes barriers once, not in each round"
    ),
    "triton-nvidia-gpu-cluster-barrier-mbar-allocator": Known(
        "reserves barriers of clusters"
    ),
    "initialize-ws-cluster-barriers": Known("starts barriers of clusters"),
    "gluon-inline": Known("puts helper functions where they are called"),
    "allocate-shared-memory-nv": Known("gives each buffer a place in shared memory"),
    "allocate-amdgpu-shared-memory": Known(
        "gives each buffer a place in shared memory"
    ),
    "triton-tensor-memory-allocation": Known("gives sums a place in tensor memory"),
    "tritongpu-global-scratch-memory-allocation": Known(
        "counts the global memory that a program needs for itself"
    ),
    "triton-nvidia-gpu-membar": Known("puts barriers where shared memory is reused"),
    "triton-amdgpu-membar": Known("puts barriers where shared memory is reused"),
}
"""By flag."""


def table(steps: Sequence[Step], everything: bool = False) -> pd.DataFrame:
    """List the passes that a kernel went through, with what they are for.

    Args:
        steps: from `pipeline.trace`.
        everything: those that changed nothing, too.

    Returns:
        A row for each, numbered as they ran.
    """
    rows = {
        number: {
            "towards": step.stage,
            "pass": step.flag,
            "does": DOES[step.flag].does,
            "may change bits": DOES[step.flag].bits,
        }
        for number, step in enumerate(steps, 1)
        if everything or step.changed
    }
    return pd.DataFrame.from_dict(rows, orient="index")
