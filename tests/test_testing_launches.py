"""Launches are counted, however a kernel is launched, interpreted and compiled."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl
from triton import knobs

from tilebook import device as here
from tilebook.testing import CheckFailed, Exercise, check
from tilebook.testing.spy import launches

DOUBLE = Exercise(
    name="practice-double",
    statement="Double x.",
    inputs=lambda rng, shape: {"x": rng.standard_normal(shape)},
    reference=lambda x: 2 * x,
    shapes=((64,), (1,), (0,), (200,)),
    only_triton=True,
)


@triton.jit
def double_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)
    tl.store(out_ptr + offs, 2 * x, mask=mask)


tuned_kernel = triton.autotune([triton.Config({"BLOCK": 64})], key=["n"])(double_kernel)
guided_kernel = triton.heuristics({"BLOCK": lambda args: 64})(double_kernel)


def double(x, kernel=double_kernel, **options):
    out = torch.empty_like(x)
    if x.numel():
        kernel[(triton.cdiv(x.numel(), 64),)](x, out, x.numel(), **options)
    return out


def through_numpy(x):
    return torch.from_numpy(2 * x.cpu().numpy()).to(x.device)


def through_a_list(x):
    values = [2 * value for value in x.tolist()]
    return torch.tensor(values, dtype=x.dtype, device=x.device)


def into_an_own_tensor(x):
    out = torch.empty_like(x)
    for at, value in enumerate(x.tolist()):
        out[at] = 2 * value
    return out


def only_small_ones(x):
    return double(x, BLOCK=64) if x.numel() < 100 else through_numpy(x)


def doubled_by_torch_in_a_branch(x):
    return torch.cond(x.numel() > 0, lambda x: x + x, lambda x: x.clone(), (x,))


def test_kernels_count_however_they_are_launched():
    check(DOUBLE, lambda x: double(x, BLOCK=64), quiet=True)
    check(DOUBLE, lambda x: double(x, tuned_kernel), quiet=True)
    check(DOUBLE, lambda x: double(x, guided_kernel), quiet=True)
    with launches() as seen:
        double(torch.ones(3, device=here.torch_device()), BLOCK=64)
        double(torch.ones(3, device=here.torch_device()), BLOCK=64)
        double_kernel.warmup(torch.float32, torch.float32, 3, BLOCK=64, grid=(1,))
    assert seen.count == 2
    double(torch.ones(3, device=here.torch_device()), BLOCK=64)
    assert seen.count == 2


@pytest.mark.parametrize(
    "attempt", [through_numpy, through_a_list, into_an_own_tensor, only_small_ones]
)
def test_python_may_not_compute_in_the_kernels_place(attempt):
    check(dataclasses.replace(DOUBLE, only_triton=False), attempt, quiet=True)
    with pytest.raises(CheckFailed, match="No Triton kernel was launched"):
        check(DOUBLE, attempt, quiet=True)


def test_torch_may_not_compute_inside_a_higher_order_operator():
    with pytest.raises(CheckFailed, match="torch computed"):
        check(DOUBLE, doubled_by_torch_in_a_branch, quiet=True)


def test_nothing_need_be_launched_where_nothing_is_read_or_written():
    sums = dataclasses.replace(
        DOUBLE,
        reference=lambda x: x.sum(axis=0),
        shapes=((0, 3), (4, 0), (0,)),
        extra_shape=None,
    )
    check(sums, lambda x: torch.zeros(x.shape[1:], device=x.device), quiet=True)


def test_a_hook_of_somebody_elses_is_called_too_and_put_back(monkeypatch):
    called = []
    monkeypatch.setattr(knobs.runtime, "launch_enter_hook", called.append)
    with launches() as seen:
        knobs.runtime.launch_enter_hook("a launch")
    assert (seen.count, called) == (1, ["a launch"])
    assert knobs.runtime.launch_enter_hook == called.append
    monkeypatch.setattr(knobs.runtime, "launch_enter_hook", None)
    with launches() as seen:
        knobs.runtime.launch_enter_hook("a launch")
    assert seen.count == 1


# Kernels are compiled in earnest and get as far as the driver, of which there is none.
# The stand-in calls the hook like the real launcher, and computes what the kernel does.
COMPILED = """
import torch, triton
from torch.library import wrap_triton
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from tests import test_testing_launches as given
from tilebook.testing import CheckFailed, check

class Utils:
    def load_binary(self, *args):
        return 1, 1, 32, 0, 1024

    def get_device_properties(self, device):
        return {"max_shared_mem": 232448}

    def unload_module(self, module):
        pass

class Driver:
    utils = Utils()

    def launcher_cls(self, source, metadata):
        def launch(x, y, z, stream, function, packed, metadata, enter, leave, *args):
            enter(metadata)
            args[1].numpy()[...] = 2 * args[0].numpy()
        return launch

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_benchmarker(self):
        return lambda fn, quantiles: [fn() or 1.0] * 3

driver.set_active(Driver())
kernel = given.double_kernel
assert type(kernel).__name__ == "JITFunction"
ready = kernel.warmup(torch.float32, torch.float32, 300, BLOCK=64, grid=(1,))
ways = {
    "plain": lambda x: given.double(x, BLOCK=64),
    "tuned": lambda x: given.double(x, given.tuned_kernel),
    "guided": lambda x: given.double(x, given.guided_kernel),
    "wrapped": lambda x: given.double(x, wrap_triton(kernel), BLOCK=64),
}
for name, way in ways.items():
    check(given.DOUBLE, way, quiet=True)
try:
    check(given.DOUBLE, given.through_numpy, quiet=True)
except CheckFailed as failure:
    assert "No Triton kernel was launched" in " ".join(str(failure).split())
else:
    raise SystemExit("NumPy was taken for a kernel")
with given.launches() as seen:
    kernel.warmup(torch.float32, torch.float32, 3, BLOCK=64, grid=(1,))
    assert seen.count == 0
    x = torch.ones(300)
    ready[(5, 1, 1)](x, torch.empty_like(x), 300)
assert seen.count == 1, seen
"""


def test_compiled_kernels_count_too():
    done = subprocess.run(
        [sys.executable, "-c", COMPILED],
        cwd=Path(__file__).parents[1],
        # A driver is made up, which no GPU may take part in.
        env={**os.environ, "TRITON_INTERPRET": "0", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
