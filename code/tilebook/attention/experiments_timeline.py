"""When each group of `overlapped` weighs, and when it waits for a product."""

import functools

import torch

from tilebook import measure
from tilebook.attention import (
    cases,
    clocked,
    conclusions_timeline,
    launching,
    overlapped,
    timeline,
)
from tilebook.attention.cases import Case
from tilebook.attention.launching import Config
from tilebook.measure import Bench, Row

__all__ = ["attention_timeline", "conclusions_timeline"]

CASES = {
    Case(64, 4096, False): Config(64, 2, 128, 3),
    Case(128, 4096, False): Config(64, 2, 128, 2),
}
"""What is drawn, and how it is launched."""
PROGRAMS = 64
"""Of which shares are medians."""
FIRST, LAST = 8, 13
"""Blocks that are drawn."""
TIMES = ("overlapped", "clocked")


def clocks(bench: Bench, case: Case, config: Config) -> None:
    """Add rows of times, of shares, and of a typical program's clocks.

    Args:
        bench: gets them.
        case: what is computed.
        config: how.
    """
    task = launching.task_of(*cases.operands(case), False, None, None)
    log = clocked.log_for(task, config)
    calls = (
        functools.partial(overlapped.launch, task, config),
        functools.partial(clocked.launch, task, config, log),
    )
    timers = {
        name: functools.partial(bench.time_cold, call)
        for name, call in zip(TIMES, calls, strict=True)
    }
    timings = bench.interleaved(timers)
    told = {"ours": True, "dtype": torch.bfloat16}
    for name, timing in timings.items():
        bench.row(impl=name, op="time", shape=case.shape, timing=timing, **told)
    log = timeline.measured(task, config)
    program, middle = timeline.typical(log, min(PROGRAMS, len(log)))
    told |= {"impl": "clocked", "timing": timings["clocked"]}
    bench.row(op="shares", shape=case.shape, extra=middle._asdict(), **told)
    blocks = timeline.read(log, program)
    for block in timeline.kept(blocks, FIRST, LAST):
        bench.row(
            op=block.who,
            shape=case.shape | {"block": block.block},
            extra={name: getattr(block, name) for name in clocked.EVENT},
            **told,
        )


@measure.experiment(
    "attention-timeline",
    question="Which group weighs while the other one's products are under way?",
    op="timeline",
    modules=("attention.timeline", "attention.clocked", "attention.overlapped"),
    needs="wgmma",
)
def attention_timeline(bench: Bench) -> list[Row]:
    for case, config in CASES.items():
        clocks(bench, case, config)
    return bench.rows
