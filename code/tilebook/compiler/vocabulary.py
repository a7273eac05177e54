"""Which operations a kernel brings into the chapter, and what some of them are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from tilebook.compile_only import Artefact
from tilebook.compiler import pipeline, stages

EXPLAINED: Mapping[str, Mapping[str, str]] = {
    "softmax": {
        "arith.extf": "float16 to float32",
        "tt.reduce": "a reduction, one operation with a small function inside",
        "math.exp": "the exponential",
        "arith.divf": "the quotient",
        "arith.truncf": "float32 to float16",
        "shfl.sync.bfly.b32": "lanes exchange what they have, five steps for 32",
        "st.shared.b32": "a warp hands its result to the others",
        "bar.sync": "all warps wait for one another",
        "ld.shared.b32": "the results of all warps",
        "ex2.approx.f32": "2 to the x, with x times log2(e) before it",
        "div.full.f32": "a quotient, to within two units in the last place",
        "HADD2.F32": "float16 to float32, as a sum with nothing",
        "SHFL.BFLY": "the exchange between lanes",
        "STS": "to shared memory",
        "LDS": "from shared memory",
        "MUFU.EX2": "2 to the x",
        "FSETP.GT.AND": "whether the divisor is too large to be inverted",
        "MUFU.RCP": "the reciprocal of the divisor",
    },
    "product": {
        "ttg.local_alloc": "a buffer of shared memory",
        "ttg.memdesc_index": "a slot of the buffer",
        "ttg.async_copy_global_to_local": "a copy under way while threads go on",
        "scf.for": "the loop",
        "ttg.async_wait": "wait for copies",
        "ttng.warp_group_dot": "a product by four warps, operands in shared memory",
        "ttg.convert_layout": "from the sums' layout to the store's",
        "cp.async.cg.shared.global": "the copy, 16 bytes a thread",
        "cp.async.wait_group": "the wait",
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16": "the product",
        "wgmma.wait_group.sync.aligned": "wait for products",
        "LDGSTS.E.BYPASS.128": "the copy, past the registers",
        "HGMMA.64x128x16.F32": "the product: 64 by 128, 16 terms",
        "STS.128": "sums to shared memory, to change layout",
        "LDSM.16.M88.4": "and from there",
    },
}
"""What words are that come up in a kernel first; others are much like known ones."""


def words(artefact: Artefact, stage: str) -> Counter[str]:
    """Count a stage's operations.

    Args:
        artefact: a compiled kernel.
        stage: one of `stages.STAGES`, but not "llir", which has PTX's words in strings.

    Returns:
        By name: "tt.load", "shfl.sync.bfly.b32", "LDG.E.128" and so on.
    """
    code = stages.lines(artefact, stage)
    if stage in ("ttir", "ttgir"):
        return pipeline.operations("\n".join(code))
    pattern = {
        "ptx": r"^\s*(?:@!?%p\d+ )?([a-z]\w*(?:\.\w+|::\w+)*)",
        "sass": r"^(?:@!?U?P\w+ )?([A-Z][\w.]*)",
    }[stage]
    return Counter(re.findall(pattern, "\n".join(code), re.M))


def news(artefact: Artefact, known: Sequence[Artefact], stage: str) -> list[str]:
    """Return operations of a stage that other kernels don't have.

    Args:
        artefact: a compiled kernel.
        known: the others.
        stage: one of `stages.STAGES`.

    Returns:
        Their names, in order of appearance.
    """
    have = {word for each in known for word in words(each, stage)}
    return [word for word in words(artefact, stage) if word not in have]


def table(name: str) -> pd.DataFrame:
    """List new operations of a kernel that the page explains.

    Args:
        name: a key of `EXPLAINED`.

    Returns:
        A row for each that the installed Triton makes: its stage, its name, what it is.
    """
    rows = [
        {"stage": stage, "new": word, "is": EXPLAINED[name][word]}
        for stage in ("ttgir", "ptx", "sass")
        for word in fresh(name, stage)
        if word in EXPLAINED[name]
    ]
    return pd.DataFrame(rows)


def fresh(name: str, stage: str) -> list[str]:
    """Return the operations of "softmax" or "product" that come up there first."""
    kernels = [stages.small(), stages.row(), stages.product()]
    number = {"softmax": 1, "product": 2}[name]
    return news(kernels[number], kernels[:number], stage)
