"""What the case's steps show of themselves without a GPU."""

import pandas as pd
import torch

from tilebook import compile_only
from tilebook.memory import flight
from tilebook.tools import case, sass
from tilebook.tools.tracer import trace


def steps(target: str = "sm_90") -> pd.DataFrame:
    """Ask of each step what costs no GPU.

    Args:
        target: the GPU it is compiled for.

    Returns:
        A row for each step: bytes that a thread spills, sectors that a request for x
        takes and would take at least, instructions for each number, and KiB that an SM
        has on their way when all of its threads have asked for x.
    """
    x, scale, out = case.operands(64, 2 * case.GROUP, torch.device("cpu"))
    rows = []
    for step in case.STEPS.values():
        grid, args, meta = step.arguments(x, scale, out)
        made = compile_only.compile(step.kernel, *args, target=target, **meta)
        traced = trace(step.kernel)[grid](*args, **meta).compiled(target).warps
        seen = traced[traced["argument"] == "x_ptr"].iloc[0]
        numbers = step.rows * step.columns / (32 * step.num_warps)
        code = sass.read(made)
        live = flight.threads(made.evidence.registers, step.num_warps)
        # Scales come with x, and are few.
        bytes_of_x = min(sass.in_flight(code), 4 * numbers)
        rows.append(
            {
                "step": step.name,
                "spilled": sass.spilled(code),
                "sectors": seen["sectors"],
                "least": seen["least"],
                "instructions": len(code) / numbers,
                "KiB in flight": live * bytes_of_x / 1024,
                "tool": step.tool,
            }
        )
    return pd.DataFrame(rows).set_index("step")
