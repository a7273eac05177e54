"""How `parallel-programs` varies what a GPU has on its way at one time."""

import functools
from typing import Any

import torch
import triton

from tilebook import device
from tilebook.measure import Bench, Provider, Row
from tilebook.parallel import launch, strided, whole

N = 2**28
PER_SM = (1, 2, 4, 8, 16, 32)
STAGES = (1, 4)
CAPS = (None, 40, 48, 56, 64, 72, 80, 96, 128)


def _compare(bench: Bench, shape: dict[str, int], providers: dict) -> list[Row]:
    return bench.compare(
        extra={"sms": device.current().sms or 1},
        shape={"n": N} | shape,
        dtype=torch.float32,
        providers=providers,
        make_inputs=lambda: [
            torch.randn(N, device=device.torch_device()) for _ in range(2)
        ],
        reference=torch.add,
        bytes=12 * N,
        along=0,
        regimes=("cold",),
    )


def strides(bench: Bench) -> None:
    """Time grid-stride loops by the number of programs on each multiprocessor.

    Args:
        bench: gets a row per number and depth of the pipeline: `shape` has "per_sm"
            and "stages", `extra` the "sms".
    """
    sms = device.current().sms or 1
    for per_sm in PER_SM:
        for stages in STAGES:
            fn = functools.partial(strided.add, programs=per_sm * sms, stages=stages)
            _compare(
                bench,
                {"per_sm": per_sm, "stages": stages},
                {"strided": Provider(fn, ours=True)},
            )


def caps(bench: Bench) -> None:
    """Time whole tiles by the number of threads that live on a multiprocessor.

    Args:
        bench: gets rows of "whole", whose `shape` has the "threads", and one of
            "descriptors", for tiles moved through tensor descriptors.
    """
    by_threads = {resident(cap): cap for cap in CAPS}
    providers = {
        str(threads): Provider(functools.partial(_whole, cap), ours=True, out=True)
        for threads, cap in by_threads.items()
    }
    providers["descriptors"] = Provider(_described, ours=True, out=True)
    for row in _compare(bench, {}, providers):
        if row["impl"] != "descriptors":
            row["shape"]["threads"] = int(row["impl"])
            row["impl"] = "whole"


def resident(maxnreg: int | None) -> int:
    """How many threads of whole tiles live on a multiprocessor at a time.

    Args:
        maxnreg: registers of a thread at most; None for no cap.

    Returns:
        A multiple of the threads of one program.
    """
    here = device.current()
    x = torch.zeros(1, device=device.torch_device())
    made = _capped(maxnreg, x, x, out=torch.empty_like(x))
    threads = whole.NUM_WARPS * (here.warp_size or 32)
    # Registers are dealt out to a thread by eights.
    each = triton.cdiv(getattr(made, "n_regs", maxnreg or 32), 8) * 8
    fit = (here.registers_per_sm or 2**16) // (each * threads)
    return min(fit * threads, here.threads_per_sm or 2048)


def _capped(
    maxnreg: int | None, x: torch.Tensor, y: torch.Tensor, *, out: torch.Tensor
) -> Any:
    """Launch whole tiles under a cap; return what was launched."""
    config = whole.config_for(x.element_size(), 0)
    if maxnreg:
        config = config._replace(tail=whole.TAIL, maxnreg=maxnreg)
    return whole.launch_as(config, whole.add_kernel, x, y, out)


def _whole(
    maxnreg: int | None, x: torch.Tensor, y: torch.Tensor, *, out: torch.Tensor
) -> None:
    _capped(maxnreg, x, y, out=out)


def _described(x: torch.Tensor, y: torch.Tensor, *, out: torch.Tensor) -> None:
    descriptors = launch.describe_vectors(x, y, out)
    tiles = (triton.cdiv(N, launch.BLOCK),)
    launch.descriptor_kernel[tiles](*descriptors, BLOCK=launch.BLOCK)
