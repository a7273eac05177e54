"""What a look may be given by keyword: what a launch may, and nothing else."""

import dataclasses

import pytest
import torch
import triton
import triton.language as tl

from tilebook import compile_only, microscope
from tilebook.microscope import options

pytestmark = pytest.mark.timeout(180)


@triton.jit
def add_kernel(x_ptr, y_ptr, out_ptr, N: tl.constexpr):
    offs = tl.arange(0, N)
    total = tl.load(x_ptr + offs) + tl.load(y_ptr + offs)
    tl.store(out_ptr + offs, total)


def test_an_unknown_keyword_is_refused(device):
    x = torch.zeros(4, device=device)
    message = (
        r"add_kernel got unexpected keyword argument 'BLOCKS': .*\(x_ptr, y_ptr, .*N\)"
    )
    with pytest.raises(TypeError, match=message):
        microscope.look(add_kernel, (1,), x, x, x, N=4, BLOCKS=4)
    with pytest.raises(TypeError, match="arguments 'num_warp', 'stream'"):
        microscope.look(add_kernel, (1,), x, x, x, N=4, num_warp=4, stream=0)
    tuned = triton.autotune([triton.Config({"N": 4, "M": 4})], key=[])(add_kernel)
    with pytest.raises(TypeError, match="argument 'M'"):
        microscope.look(tuned, (1,), x, x, x)
    decided = triton.heuristics({"M": lambda given: 4})(add_kernel)
    with pytest.raises(TypeError, match="argument 'M'"):
        microscope.look(decided, (1,), x, x, x, N=4)
    assert x.tolist() == [0] * 4
    # The compiler refuses it too; its exception is of another class.
    with pytest.raises(KeyError, match="BLOCKS was specified but unrecognised"):
        compile_only.compile(add_kernel, x, x, x, N=4, BLOCKS=4)


def test_launch_options_are_accepted(device):
    x = torch.ones(4, device=device)
    launched = {
        "num_warps": 2,
        "num_stages": 3,
        "num_ctas": 1,
        "maxnreg": 64,
        "launch_pdl": False,
        "launch_cooperative_grid": False,
        "enable_fp_fusion": True,
        "debug": True,
        "extern_libs": None,
    }
    on_amd = {"waves_per_eu": 2, "matrix_instr_nonkdim": 16, "kpack": 1}
    look = microscope.look(add_kernel, (1,), x, x, x, N=4, **launched, **on_amd)
    assert look.error is None
    assert x.tolist() == [2] * 4
    config = triton.Config({"N": 4}, num_warps=2, num_stages=2, maxnreg=32)
    tuned = triton.autotune([config], key=[])(add_kernel)
    assert microscope.look(tuned, (1,), x, x, x).error is None
    compile_only.compile(add_kernel, x, x, x, N=4, **launched)


def test_launch_options_are_the_compilers_own():
    names = options.launch_options()
    for target in ("sm_90", "gfx942"):
        gpu = compile_only.target_of(target)
        parsed = triton.compiler.make_backend(gpu).parse_options({})
        assert {field.name for field in dataclasses.fields(parsed)} <= names
    assert not {"BLOCKS", "backend", "grid", "warmup", "stream", "device"} & names
