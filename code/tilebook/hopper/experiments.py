"""What the chapter measures: every shape against cuBLAS, the ladder, sums of every
length, who does what when, and what descriptors cost."""

import functools
from collections.abc import Callable

import torch

from tilebook import measure
from tilebook.hopper import (
    automatic,
    conclusions,
    cooperative,
    folded,
    made,
    pingpong,
    pipelined,
    public,
    remainder,
    timeline,
    widths,
)
from tilebook.hopper.launching import Config
from tilebook.matmul import described, ordered, shapes
from tilebook.matmul.experiments import LADDER, against_cublas, rungs_of
from tilebook.matmul.operands import Task
from tilebook.matmul.shapes import Shape
from tilebook.measure import Bench, Row

__all__ = [
    "conclusions",
    "hopper_descriptors",
    "hopper_k_sweep",
    "hopper_ladder",
    "hopper_matmul",
    "hopper_remainder",
    "hopper_timeline",
]

MODULES = ("hopper.public",)
RUNGS: dict[str, Callable[..., torch.Tensor]] = {
    "ordered": ordered.matmul,
    "described": described.matmul,
    "made": made.matmul,
    "automatic": automatic.matmul,
    "pipelined": pipelined.matmul,
    "cooperative": cooperative.matmul,
    "folded": folded.matmul,
    "pingpong": pingpong.matmul,
    "widths": widths.matmul,
}
TERMS = (256, 512, 1024, 2048, 4096, 8192, 16384)
SUMS = tuple(Shape(8192, 8192, k) for k in TERMS)
SUMS_BRIEF = (*SUMS[1:3], SUMS[-1])
LADDER_BRIEF = (LADDER[1], *LADDER[5:])
SCHEDULES: dict[str, Callable[..., torch.Tensor]] = {
    name: RUNGS[name] for name in ("pipelined", "cooperative", "folded", "pingpong")
}
OVER = (
    *(Shape(512, 22016, 4096), Shape(512, 12288, 4096), Shape(512, 10240, 8192)),
    Shape(4096, 10240, 8192),
)
"""Layers whose tiles of 128 by 256 make whole turns and a part of one."""
OVER_BRIEF = OVER[:1]
CUTS: dict[str, Callable[..., torch.Tensor]] = {
    "folded": folded.matmul,
    "widths": widths.matmul,
    "remainder": remainder.matmul,
}
DRAWN = Shape(8192, 8192, 1024)
"""Some sixteen tiles for each program, with sums of sixteen steps."""
DRAWN_AS = {
    "cooperative": Config(128, 256, 64, 4, 2),
    "folded": Config(128, 256, 64, 4, 2),
    "pingpong": Config(128, 128, 64, 4),
}
DRAWN_TURNS = 6
SMALL = Shape(64, 64, 64)


@measure.experiment(
    "hopper-matmul",
    question="How near does matmul come to cuBLAS with Hopper's own kernels?",
    op="matmul",
    modules=MODULES,
)
def hopper_matmul(bench: Bench) -> list[Row]:
    return against_cublas(bench, torch.bfloat16, public.matmul)


@measure.experiment(
    "hopper-ladder",
    question="What is each rung worth?",
    op="matmul",
    modules=MODULES,
)
def hopper_ladder(bench: Bench) -> list[Row]:
    for shape in bench.choose(LADDER, LADDER_BRIEF):
        rungs_of(bench, shape, "NT", RUNGS, public.matmul)
    return bench.rows


@measure.experiment(
    "hopper-k-sweep",
    question="From which length of a sum on does the store of a tile not matter?",
    op="matmul",
    modules=MODULES,
)
def hopper_k_sweep(bench: Bench) -> list[Row]:
    for shape in bench.choose(SUMS, SUMS_BRIEF):
        rungs_of(bench, shape, "NT", SCHEDULES, public.matmul)
    return bench.rows


@measure.experiment(
    "hopper-remainder",
    question="What is it worth to cut what is left over into other tiles?",
    op="matmul",
    modules=MODULES,
)
def hopper_remainder(bench: Bench) -> list[Row]:
    for shape in bench.choose(OVER, OVER_BRIEF):
        rungs_of(bench, shape, "NT", CUTS, public.matmul)
    return bench.rows


@measure.experiment(
    "hopper-timeline",
    question="Who does what when?",
    op="timeline",
    modules=("hopper.timeline",),
)
def hopper_timeline(bench: Bench) -> list[Row]:
    a, b = shapes.operands(DRAWN, "NT", torch.bfloat16)
    task = Task(a, b, a.new_empty(DRAWN.m, DRAWN.n))
    for name, config in DRAWN_AS.items():
        log = timeline.log_for(task, config)
        call = functools.partial(timeline.launch, name, task, config, log)
        timing = bench.time_cold(call)
        found = timeline.measured(name, a, b, config)
        for moment in found:
            if moment.turn < DRAWN_TURNS:
                bench.row(
                    impl=name,
                    op=f"{moment.who}, {moment.event}",
                    ours=True,
                    shape=DRAWN._asdict() | {"turn": moment.turn},
                    dtype=torch.bfloat16,
                    timing=timing,
                    extra={"cycles": moment.cycles},
                )
    return bench.rows


@measure.experiment(
    "hopper-descriptors",
    question="What does a descriptor cost, made here or there?",
    op="matmul",
    modules=MODULES,
)
def hopper_descriptors(bench: Bench) -> list[Row]:
    a, b = shapes.operands(SMALL, "NT", torch.bfloat16)
    task = Task(a, b, a.new_empty(SMALL.m, SMALL.n))
    kinds = {
        "pointers": ordered,
        "host descriptors": described,
        "the kernel's descriptors": made,
        "Gluon, host descriptors": folded,
    }
    # To choose a configuration takes the host longer than to describe three matrices.
    launches = {
        name: functools.partial(rung.launch, task, rung.config_for(task))
        for name, rung in kinds.items()
    }
    for regime, take in (("host", bench.time_host), ("cold", bench.time_cold)):
        timers = {
            name: functools.partial(take, launch) for name, launch in launches.items()
        }
        for name, timing in bench.interleaved(timers).items():
            bench.row(
                impl=name,
                ours=True,
                shape=SMALL._asdict(),
                dtype=torch.bfloat16,
                regime=regime,
                timing=timing,
            )
    return bench.rows
