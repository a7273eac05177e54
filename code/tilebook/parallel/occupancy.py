"""How `parallel-programs` varies what a GPU has on its way at one time."""

import functools

import torch
import triton

from tilebook import device
from tilebook.measure import Bench, Provider
from tilebook.parallel import launch, strided, whole

N = 2**28
PER_SM = (1, 2, 4, 8, 16, 32)
STAGES = (1, 4)


def _compare(bench: Bench, shape: dict[str, int], providers: dict) -> None:
    bench.compare(
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
    """Time whole tiles with all the threads that fit, and with three quarters of them.

    Args:
        bench: gets the rows "all threads" and "three quarters", and "descriptors" for
            tiles that are moved through tensor descriptors; `shape` has "block".
    """
    large = whole.config_for(4, whole.LARGE, capped=True)
    configs = {
        "all threads": large._replace(tail=256, maxnreg=None),
        "three quarters": large,
    }

    def launched(
        config: whole.Config, x: torch.Tensor, y: torch.Tensor, *, out: torch.Tensor
    ) -> None:
        cap = {"maxnreg": config.maxnreg} if config.maxnreg else {}
        whole.add_kernel[(triton.cdiv(N, config.block),)](
            x,
            y,
            out,
            N,
            BLOCK=config.block,
            TAIL=config.tail,
            num_warps=config.num_warps,
            **cap,
        )

    providers = {
        name: Provider(functools.partial(launched, config), ours=True, out=True)
        for name, config in configs.items()
    }
    providers["descriptors"] = Provider(_described, ours=True, out=True)
    _compare(bench, {"block": large.block}, providers)


def _described(x: torch.Tensor, y: torch.Tensor, *, out: torch.Tensor) -> None:
    descriptors = launch.describe_vectors(x, y, out)
    tiles = (triton.cdiv(N, launch.BLOCK),)
    launch.descriptor_kernel[tiles](*descriptors, BLOCK=launch.BLOCK)
