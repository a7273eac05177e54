"""Small questions to the interpreter, one per repair: is it right about this?

They go to the layer below `tl`, where a fault is; a handle holds a block's bits.
"""

import numpy as np
import triton
import triton.language as tl
from triton.language.extra import libdevice as extra
from triton.runtime import interpreter as upstream
from triton.runtime.errors import InterpreterError

from tilebook.interpreter.handles import Handle, pack, values_of

_builder = upstream.interpreter_builder


def _block(values: list[float], kind: tl.dtype) -> Handle:
    return pack(np.array(values, dtype=np.float64), kind)


def _tensor(values: list[float], kind: tl.dtype) -> tl.tensor:
    return tl.tensor(_block(values, kind), tl.block_type(kind, [len(values)]))


def _is(handle: Handle, wanted: list[float]) -> bool:
    return np.array_equal(
        np.ravel(values_of(handle)), wanted, equal_nan=handle.dtype.is_floating()
    )


def narrow_arithmetic() -> bool:
    a, b = _block([1.0, -1.0], tl.bfloat16), _block([2.0, 1.0], tl.bfloat16)
    return (
        _is(_builder.create_fadd(a, b), [3.0, 0.0])
        and _is(_builder.create_fcmpOLT(a, b), [True, True])
        and _is(_builder.create_floor(_block([-1.5], tl.bfloat16)), [-2.0])
    )


def bfloat16_rounding() -> bool:
    halfway = [1 + 2**-8, 1 + 3 * 2**-8, np.nan]
    rounded = _builder.create_fp_trunc(_block(halfway, tl.float32), tl.bfloat16)
    return _is(rounded, [1.0, 1 + 2**-6, np.nan])


def float8_rounding() -> bool:
    values = _block([17.0, 19.0, 1e6, np.nan], tl.float32)
    nearest = upstream._ir.ROUNDING_MODE.RTNE
    rounded = _builder.create_fp_to_fp(values, tl.float8e4nv, nearest)
    return _is(rounded, [16.0, 20.0, 448.0, np.nan])


def float_to_int() -> bool:
    with np.errstate(all="ignore"):
        values = _block([1e10, -1e10, -1.9, np.nan], tl.float32)
        cut = _builder.create_fp_to_si(values, tl.int32)
    return _is(cut, [2**31 - 1, -(2**31), -1, 0])


def bfloat16_constants() -> bool:
    return _is(_builder.get_bf16(1.5), [1.5])


def dot() -> bool:
    a, zero = _block([2.0], tl.bfloat16), _block([0.0], tl.float32)
    for handle in (a, zero):
        handle.data = handle.data.reshape(1, 1)
    return _is(_builder.create_dot(a, a, zero, None, 0), [4.0])


def fma() -> bool:
    x, y = _block([1 + 2**-12], tl.float32), _block([1 - 2**-12], tl.float32)
    single = _builder.create_fma(x, y, _block([-1.0], tl.float32))
    b = _block([2.0], tl.bfloat16)
    return _is(single, [-(2**-24)]) and _is(_builder.create_fma(b, b, b), [6.0])


def nan_in_min_max() -> bool:
    a, b = _block([np.nan, 1.0], tl.float32), _block([1.0, np.nan], tl.float32)
    return _is(_builder.create_maxnumf(a, b), [1.0, 1.0]) and _is(
        _builder.create_minnumf(a, b), [1.0, 1.0]
    )


def clamp() -> bool:
    none = upstream._ir.PROPAGATE_NAN.NONE
    narrow = [_block([x], tl.bfloat16) for x in (-3.0, -1.0, 1.0)]
    wide = [_block([x], tl.float32) for x in (np.nan, -1.0, 1.0)]
    return _is(_builder.create_clampf(*narrow, none), [-1.0]) and _is(
        _builder.create_clampf(*wide, none), [-1.0]
    )


def one_bit_integers() -> bool:
    true = Handle(np.array([True]), tl.int1)
    return _is(_builder.create_add(true, true), [False])


def umulhi() -> bool:
    minus_one = Handle(np.array([-1], dtype=np.int32), tl.int32)
    return _is(_builder.create_umulhi(minus_one, minus_one), [-2])


def histogram() -> bool:
    data = Handle(np.array([0, 1, 2, 5], dtype=np.int32), tl.int32)
    return _is(_builder.create_histogram(data, 2, None), [1, 1])


def narrowing_reductions() -> bool:
    reduce = upstream.ReduceOps(0, None, False)
    return _is(reduce.to_tensor(2**31, tl.int32).handle, [-(2**31)])


def half_sums() -> bool:
    wide = _tensor([2048.0, 1.0, 0.0, 0.0], tl.float16)
    narrow = _tensor([1.0, 2.0], tl.bfloat16)
    reduce = upstream.ReduceOps(0, None, False)
    return _is(reduce.sum(narrow).handle, [3.0]) and _is(
        reduce.sum(wide).handle, [2048.0]
    )


def extremes() -> bool:
    reduce = upstream.ReduceOps(0, tl.standard._argmax_combine_tie_break_left, False)
    narrow = _tensor([-1.0, 1.0], tl.bfloat16)
    nans = _tensor([np.nan, np.nan], tl.float32)
    value, index = reduce.apply((narrow, narrow))
    _, first = reduce.apply((nans, nans))
    return (
        _is(value.handle, [1.0]) and _is(index.handle, [1]) and _is(first.handle, [0])
    )


def bfloat16_scans() -> bool:
    scan = upstream.ScanOps(0, None, False)
    return _is(scan.cumsum(_tensor([1.0, 2.0], tl.bfloat16))[0].handle, [1.0, 3.0])


def bfloat16_atomics() -> bool:
    memory = np.array([0x3F80, 0x3F80], dtype=np.uint16)
    address = memory.__array_interface__["data"][0]
    pointers = Handle(
        np.array([address, address], dtype=np.uint64), tl.pointer_type(tl.bfloat16)
    )
    _builder.grid_idx = (0, 0, 0)
    _builder.create_atomic_rmw(
        upstream._ir.ATOMIC_OP.FADD,
        pointers,
        _block([1.0, 2.0], tl.bfloat16),
        Handle(np.array([True, True]), tl.int1),
        upstream._ir.MEM_SEMANTIC.RELAXED,
        None,
    )
    return _is(Handle(memory, tl.bfloat16), [4.0, 1.0])


def descriptor_atomics() -> bool:
    return hasattr(_builder, "create_descriptor_reduce")


@triton.jit
def _pad_kernel(desc, out):
    tl.store(out + tl.arange(0, 16), desc.load([8]).to(tl.float32))


@triton.jit
def _scalar_kernel(out, alpha, flag):
    tl.store(out, alpha.to(tl.float16))
    tl.store(out + 1, tl.where(flag, 1.0, 0.0))


@triton.jit
def _range_kernel(out, n):
    for i in range(0, n, 2):
        tl.store(out + i, 1.0)


@triton.jit
def _logic_kernel(out):
    i = tl.arange(0, 4)
    inside = i > 0 and i < 3
    tl.store(out + i, tl.where(not inside, 0.0, 1.0))


@triton.jit
def _assert_kernel(x):
    tl.device_assert(tl.load(x) > 0, "not positive")


@triton.jit
def _libdevice_kernel(out):
    tl.store(out, extra.cbrt(tl.load(out) + 27.0))


def _run(kernel: object, *args: object) -> None:
    """Launch a kernel rewritten afresh: as the interpreter now stands."""
    rewritten = upstream.FunctionRewriter(kernel.fn).rewrite_ast()
    names = kernel.arg_names
    upstream.GridExecutor(rewritten, names, (1,))(*args)


def nan_padding() -> bool:
    import torch
    from triton.tools.tensor_descriptor import TensorDescriptor

    x = torch.ones(16, dtype=torch.bfloat16)
    out = torch.zeros(16)
    desc = TensorDescriptor(x, [16], [1], [16], padding="nan")
    _run(_pad_kernel, desc, out)
    return out[:8].eq(1).all().item() and out[8:].isnan().all().item()


def scalar_arguments() -> bool:
    import torch

    out = torch.zeros(2)
    _run(_scalar_kernel, out, 0.5, True)
    return out.tolist() == [0.5, 1.0]


def loop_bounds() -> bool:
    import torch

    out = torch.zeros(4)
    _run(_range_kernel, out, 4)
    return out.tolist() == [1.0, 0.0, 1.0, 0.0]


def device_assert() -> bool:
    import torch

    try:
        _run(_assert_kernel, torch.zeros(1))
    except InterpreterError:
        return True
    return False


def libdevice() -> bool:
    import torch

    out = torch.zeros(1)
    _run(_libdevice_kernel, out)
    return out.item() == 3.0


def and_or_not() -> bool:
    import torch

    out = torch.zeros(4)
    _run(_logic_kernel, out)
    return out.tolist() == [0.0, 1.0, 1.0, 0.0]
