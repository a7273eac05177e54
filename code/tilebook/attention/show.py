"""What the chapter's cells print: compiled kernels, counts, and the order of a loop."""

import re
from collections.abc import Callable
from types import ModuleType

import pandas as pd
import torch

from tilebook import compile_only, microscope
from tilebook.attention import (
    causal,
    cooperative,
    described,
    evidence,
    exercises,
    folded,
    launching,
    onepass,
    overlapped,
    selftest,
    solutions,
)
from tilebook.compile_only import Artefact
from tilebook.matmul.evidence import launches

FIRST: dict[str, ModuleType] = {"onepass": onepass, "causal": causal}
ON_HOPPER: dict[str, ModuleType] = {
    "described": described,
    "cooperative": cooperative,
    "overlapped": overlapped,
    "folded": folded,
}
FEATURES = (64, 128, 256)
LENGTH = 4096
"""Positions of what is compiled and counted."""
STEPS = {
    r"mbarrier\.try_wait": "wait for a tile",
    r"mbarrier\.arrive": "give a place back",
    r"wgmma\.mma_async": "wgmma",
    r"wgmma\.wait_group\S* 0": "wait for all products",
    r"wgmma\.wait_group\S* [1-9]": "wait for all products but the last",
    r"ex2\.approx": "powers",
}
"""In PTX, what a loop does, in the words of the page."""
MASKS = {
    "full": (None, None),
    "causal": (None, 0),
    "causal, window of 1,024": (1024, 0),
    "window of 512 on both sides": (512, 512),
}
"""Keys before a query's own and after it that it sees."""


def artefacts(d: int = 128) -> dict[str, Artefact]:
    """Compile every rung of one kernel, causal but for `onepass`.

    Args:
        d: features.

    Returns:
        By rung, its kernel.
    """
    task = evidence.task_for(d, length=LENGTH, right=0)
    found = {
        name: _compiled(lambda wrap, rung=rung: rung.launch(task._replace(wrap=wrap)))
        for name, rung in FIRST.items()
    }
    found["forward"] = evidence.compiled("forward", task)
    return found | {name: on_hopper(rung, d) for name, rung in ON_HOPPER.items()}


def on_hopper(rung: ModuleType, d: int = 128) -> Artefact:
    """Compile a rung that needs a Hopper, causal.

    Args:
        rung: of `ON_HOPPER`.
        d: features.
    """
    given = evidence.task_for(d, length=LENGTH)
    task = launching.Task(*given[:6], None, 0)
    return _compiled(lambda wrap: rung.launch(task._replace(wrap=wrap)))


def _compiled(launch: Callable) -> Artefact:
    (found,) = launches(launch)
    return compile_only.compile(found.kernel, *found.args, target="sm_90", **found.meta)


def lines(d: int = 128) -> str:
    """The evidence lines of every rung's kernels.

    Args:
        d: features.
    """
    return "\n".join(
        f"{name:13}{each.evidence.line()}" for name, each in artefacts(d).items()
    )


def order(rung: ModuleType) -> str:
    """What a group of warps does for a block of keys, in the order of its PTX.

    Args:
        rung: "cooperative" or a later one.

    Returns:
        A line for each step, with how many instructions in a row it has.
    """
    parts = re.split(r"^\$L__BB\S+:.*$", on_hopper(rung).ptx, flags=re.M)
    # Weights of a block, and by what its sums shrink: elsewhere there are no more.
    most = max(part.count("ex2.approx") for part in parts)
    loop = next(part for part in parts if part.count("ex2.approx") == most)
    steps: list[list] = []
    for line in loop.splitlines():
        for pattern, name in STEPS.items():
            if re.search(pattern, line):
                if not steps or steps[-1][1] != name:
                    steps.append([0, name])
                steps[-1][0] += 1
    return "\n".join(f"{count:3} {name}" for count, name in steps)


def work() -> pd.DataFrame:
    """Clocks of an H100's multiprocessor for a tile of 64 queries and 128 keys.

    Returns:
        By features: of both products and of the powers.
    """
    scores = 64 * 128
    rows = {
        d: {
            "products": 4 * d * scores / selftest.OPERATIONS,
            "powers": scores / selftest.POWERS,
        }
        for d in FEATURES
    }
    table = pd.DataFrame.from_dict(rows, orient="index").astype(int)
    return table.rename_axis("features")


def seen() -> pd.DataFrame:
    """Count the blocks that tiles of 128 queries go through, 64 keys each.

    Returns:
        By mask: without one, with one, and left out.
    """
    tall, wide = exercises.TALL, exercises.WIDE
    rows = {}
    for name, (left, right) in MASKS.items():
        told = (
            LENGTH if left is None else left, LENGTH if right is None else right
        )  # fmt: skip
        found = [
            solutions.spans(m0, tall, wide, LENGTH, LENGTH, *told)
            for m0 in range(0, LENGTH, tall)
        ]
        plain, masked = (sum(each) for each in zip(*found, strict=True))
        every = LENGTH // tall * (LENGTH // wide)
        rows[name] = {
            "without a mask": plain, "with one": masked,
            "left out": every - plain - masked,
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index")


def trace() -> pd.DataFrame:
    """Run the kernel of one pass on a few queries and note what it computes.

    Returns:
        Its values from the tile to the result, with their shapes and types.
    """
    q, k, v = (torch.zeros(1, 1, 32, 16, dtype=torch.bfloat16) for _ in range(3))
    task = evidence.Task(q, k, v, torch.empty_like(q), torch.empty(1, 1, 32), 0.25)
    small = onepass.Config(16, 32)
    (each,) = launches(lambda wrap: onepass.launch(task._replace(wrap=wrap), small))
    look = microscope.look(each.kernel, each.grid, *each.args, **each.meta)
    table = look.shape_table()
    names = ("q", "k", "s", "highest", "p", "shrink", "v", "acc")
    shown = table[table["name"].isin(names)]
    return shown[["name", "shape", "dtype", "code"]].set_index("name")


def elsewhere() -> str:
    """The general kernel's evidence lines for four targets."""
    found = []
    for target in ("sm_80", "sm_90", "sm_100", "gfx942"):
        described = target in ("sm_90", "sm_100")
        task = evidence.task_for(128, length=LENGTH, right=0, described=described)
        found.append(evidence.compiled("forward", task, target=target).evidence.line())
    return "\n".join(found)
