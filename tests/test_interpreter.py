"""The repaired interpreter: its arithmetic against torch, its mode, its repairs."""

import os
import subprocess
import sys
import textwrap
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice
from triton.tools.tensor_descriptor import TensorDescriptor

from tilebook import device, interpreter
from tilebook.interpreter import patches

if not device.interpreting():
    pytest.skip("kernels are compiled here", allow_module_level=True)

VERSION = tuple(int(part) for part in triton.__version__.split(".")[:2])
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
NUMBERS = "0 -0 1 -1 3.140625 1e-3 -2.5 300 1e30 -1e30 1e-40 65504 0.5 inf -inf nan"
EDGES = torch.tensor([float(number) for number in NUMBERS.split()])


@pytest.mark.parametrize("repair", interpreter.REPAIRS, ids=lambda r: r.name)
def test_each_repair_is_needed_and_works(repair):
    with patches.undone(), warnings.catch_warnings(action="ignore"):
        faulty = repair.needed()
    expected = repair.fixed_in is None or repair.fixed_in > VERSION
    assert faulty == expected, (
        f"triton {triton.__version__} {'has' if faulty else 'no longer has'} the fault "
        f"{repair.name!r} ({repair.fault}): set fixed_in in tilebook.interpreter"
    )
    assert not repair.needed()


@triton.jit
def arithmetic_kernel(x, y, out, N: tl.constexpr):
    i = tl.arange(0, N)
    a, b = tl.load(x + i), tl.load(y + i)
    tl.store(out + i, a + b)
    tl.store(out + N + i, a - b)
    tl.store(out + 2 * N + i, a * b)
    tl.store(out + 3 * N + i, tl.maximum(a, b))
    tl.store(out + 4 * N + i, tl.minimum(a, b))
    tl.store(out + 5 * N + i, tl.where(a < b, a, b))
    tl.store(out + 6 * N + i, -a)
    tl.store(out + 7 * N + i, tl.abs(a))
    tl.store(out + 8 * N + i, (a / b).to(out.dtype.element_ty))
    tl.store(out + 9 * N + i, (a > 0.5).to(out.dtype.element_ty))


@pytest.mark.parametrize("dtype", FLOATS)
def test_elementwise_arithmetic_is_torchs(dtype):
    x = torch.cat([EDGES, torch.randn(112)]).to(dtype)
    y = torch.cat([EDGES.flip(0), torch.randn(112)]).to(dtype)
    out = torch.empty(10, 128, dtype=dtype)
    arithmetic_kernel[(1,)](x, y, out, N=128)
    wanted = [
        x + y,
        x - y,
        x * y,
        torch.fmax(x, y),
        torch.fmin(x, y),
        torch.where(x < y, x, y),
        -x,
        x.abs(),
        (x.float() / y.float()).to(dtype),
        (x > 0.5).to(dtype),
    ]
    for row, want in zip(out, wanted, strict=True):
        torch.testing.assert_close(row, want, rtol=0, atol=0, equal_nan=True)


@triton.jit
def comparison_kernel(x, y, out, N: tl.constexpr):
    i = tl.arange(0, N)
    a, b = tl.load(x + i), tl.load(y + i)
    tl.store(out + i, a < b)
    tl.store(out + N + i, a <= b)
    tl.store(out + 2 * N + i, a > b)
    tl.store(out + 3 * N + i, a >= b)
    tl.store(out + 4 * N + i, a == b)
    tl.store(out + 5 * N + i, a != b)


@pytest.mark.parametrize("dtype", FLOATS)
def test_comparisons_are_torchs(dtype):
    x, y = EDGES.to(dtype), EDGES.roll(3).to(dtype)
    x[:4] = y[:4]
    out = torch.empty(6, 16, dtype=torch.bool)
    comparison_kernel[(1,)](x, y, out, N=16)
    wanted = [x < y, x <= y, x > y, x >= y, x == y, x != y]
    assert torch.equal(out, torch.stack(wanted))


@triton.jit
def cast_kernel(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, tl.load(x + i).to(out.dtype.element_ty))


@pytest.mark.parametrize("source", [*FLOATS, torch.float64], ids=str)
@pytest.mark.parametrize("target", [*FLOATS, torch.float64], ids=str)
def test_float_casts_round_as_torchs(source, target):
    x = torch.cat([EDGES, torch.randn(2032) * 10]).to(source)
    out = torch.empty(2048, dtype=target)
    cast_kernel[(1,)](x, out, N=2048)
    want = x.to(target)
    torch.testing.assert_close(out, want, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("target", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
@pytest.mark.parametrize("source", FLOATS, ids=str)
def test_float8_casts_round_as_torchs_and_clamp(source, target):
    top = torch.finfo(target).max
    x = torch.cat([torch.randn(2000), torch.randn(40) * 1e-3, torch.full((7,), 1e9)])
    x = torch.cat([x, torch.tensor([float("nan")])]).to(source)
    out = torch.empty(2048, dtype=target)
    cast_kernel[(1,)](x, out, N=2048)
    want = x.float().clamp(-top, top).to(target).float()
    torch.testing.assert_close(out.float(), want, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("target", FLOATS, ids=str)
@pytest.mark.parametrize("source", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_float8_widens_exactly(source, target):
    x = torch.arange(256).to(torch.uint8).view(source)
    out = torch.empty(256, dtype=target)
    cast_kernel[(1,)](x, out, N=256)
    torch.testing.assert_close(out, x.to(target), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("target", "want"),
    [
        (torch.int32, [-1, 1, 2**31 - 1, -(2**31), 0, 300]),
        (torch.int64, [-1, 1, 10**10, -(10**10), -(2**63), 300]),
        (torch.int16, [-1, 1, 32767, -32768, 0, 300]),
        (torch.int8, [-1, 1, -1, 0, 0, 44]),
        (torch.uint8, [0, 1, 255, 0, 0, 44]),
    ],
)
def test_float_to_integer_cuts_and_clamps_as_ptx(target, want):
    x = torch.tensor([-1.9, 1.9, 1e10, -1e10, float("nan"), 300.0, 0, 0])
    out = torch.empty(8, dtype=target)
    cast_kernel[(1,)](x, out, N=8)
    assert out.tolist()[:6] == want


@triton.jit
def reduce_kernel(x, out, index, M: tl.constexpr, N: tl.constexpr):
    rows, columns = tl.arange(0, M), tl.arange(0, N)
    a = tl.load(x + rows[:, None] * N + columns[None, :])
    tl.store(out + rows, tl.sum(a, axis=1))
    tl.store(out + M + rows, tl.max(a, axis=1))
    tl.store(out + 2 * M + rows, tl.min(a, axis=1))
    tl.store(index + rows, tl.argmax(a, axis=1))
    tl.store(index + M + rows, tl.argmin(a, axis=1))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_reductions(dtype):
    x = torch.randn(4, 64).to(dtype)
    out, index = torch.empty(3, 4, dtype=dtype), torch.empty(2, 4, dtype=torch.int32)
    reduce_kernel[(1,)](x, out, index, M=4, N=64)
    # Each of the tree's six levels rounds once, to half a unit in the last place.
    size = x.double().abs().sum(1)
    bound = 6 * size * torch.finfo(dtype).eps / 2
    assert ((out[0].double() - x.double().sum(1)).abs() <= bound).all()
    assert torch.equal(out[1], x.amax(1))
    assert torch.equal(out[2], x.amin(1))
    assert torch.equal(index.long(), torch.stack([x.argmax(1), x.argmin(1)]))


def test_half_precision_sums_round_at_every_step():
    x = torch.ones(4, 512).to(torch.bfloat16)
    x[:, 0] = 512
    out, index = torch.empty(3, 4).bfloat16(), torch.empty(2, 4, dtype=torch.int32)
    reduce_kernel[(1,)](x, out, index, M=4, N=512)
    # The row with 512 takes part in nine additions; those of 1, 2 and then 256 and
    # more show whether each is rounded to eight bits.
    assert (out[0] != x.float().sum(1)).all()
    assert torch.allclose(out[0].float(), x.float().sum(1), rtol=9 * 2**-8)


@triton.jit
def nan_reduce_kernel(x, out, index, N: tl.constexpr):
    a = tl.load(x + tl.arange(0, N))
    tl.store(out, tl.max(a, axis=0))
    tl.store(out + 1, tl.min(a, axis=0))
    tl.store(index, tl.argmax(a, axis=0))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_reductions_skip_nan(dtype):
    x = torch.tensor([float("nan"), 1.0, 3.0, float("nan")]).to(dtype)
    out, index = torch.empty(2, dtype=dtype), torch.empty(1, dtype=torch.int32)
    nan_reduce_kernel[(1,)](x, out, index, N=4)
    assert out.tolist() == [3.0, 1.0]
    assert index.item() == 2


@triton.jit
def scan_kernel(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    a = tl.load(x + i)
    tl.store(out + i, tl.cumsum(a, 0))
    tl.store(out + N + i, tl.cumprod(a, 0))
    tl.store(out + 2 * N + i, tl.sort(a))
    tl.store(out + 3 * N + i, tl.cumsum(a, 0, reverse=True))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_scans_and_sort(dtype):
    x = (1 + torch.rand(16) / 8).to(dtype)
    out = torch.empty(4, 16, dtype=dtype)
    scan_kernel[(1,)](x, out, N=16)
    rtol = 16 * torch.finfo(dtype).eps
    wide = x.double()
    close = {"rtol": rtol, "atol": 0.0}
    torch.testing.assert_close(out[0].double(), wide.cumsum(0), **close)
    torch.testing.assert_close(out[1].double(), wide.cumprod(0), **close)
    assert torch.equal(out[2], x.sort().values)
    torch.testing.assert_close(out[3].double(), wide.flip(0).cumsum(0).flip(0), **close)


@triton.jit
def dot_kernel(a, b, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tile = i[:, None] * N + i[None, :]
    acc = tl.dot(tl.load(a + tile), tl.load(b + tile))
    tl.store(out + tile, acc)


@pytest.mark.parametrize(
    "dtype", [*FLOATS, torch.float8_e4m3fn, torch.float8_e5m2], ids=str
)
def test_dot(dtype):
    a, b = torch.randn(32, 32).to(dtype), torch.randn(32, 32).to(dtype)
    out = torch.empty(32, 32)
    dot_kernel[(1,)](a, b, out, N=32)
    torch.testing.assert_close(out.double(), a.double() @ b.double(), rtol=0, atol=1e-4)


@triton.jit
def atomic_kernel(x, out, old, N: tl.constexpr):
    i = tl.arange(0, N)
    before = tl.atomic_add(out + i // 2, tl.load(x + i), mask=i != 3)
    tl.store(old + i, before)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_atomic_add(dtype):
    x = torch.arange(1, 9).to(dtype)
    out, old = torch.zeros(4, dtype=dtype), torch.zeros(8, dtype=dtype)
    atomic_kernel[(1,)](x, out, old, N=8)
    assert out.tolist() == [3.0, 3.0, 11.0, 15.0]
    assert old.tolist() == [0.0, 1.0, 0.0, 0.0, 0.0, 5.0, 0.0, 7.0]


@triton.jit
def descriptor_kernel(source, target, total, M: tl.constexpr, N: tl.constexpr):
    row = tl.program_id(0) * M
    tile = source.load([row, 0])
    target.store([row, 0], tile + tile)
    total.atomic_add([0, 0], tile)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_descriptors(dtype):
    x = torch.randint(-8, 8, (6, 16)).to(dtype)
    out, total = torch.empty_like(x), torch.zeros(4, 16, dtype=dtype)
    block = [4, 16]
    args = [TensorDescriptor.from_tensor(t, block) for t in (x, out, total)]
    descriptor_kernel[(2,)](*args, M=4, N=16)
    assert torch.equal(out, x + x)
    padded = torch.cat([x, torch.zeros(2, 16, dtype=dtype)])
    assert torch.equal(total, padded[:4] + padded[4:])


@triton.jit
def math_kernel(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    a = tl.load(x + i)
    tl.store(out + i, tl.fma(a, a, a))
    tl.store(
        out + N + i, tl.clamp(a, tl.full([N], -1, a.dtype), tl.full([N], 1, a.dtype))
    )
    tl.store(out + 2 * N + i, a + tl.full([N], 1.5, a.dtype))


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_fma_clamp_and_constants(dtype):
    x = torch.cat([torch.randn(15) * 4, torch.tensor([float("nan")])]).to(dtype)
    out = torch.empty(3, 16, dtype=dtype)
    math_kernel[(1,)](x, out, N=16)
    wide = x.double()
    same = {"rtol": 0.0, "atol": 0.0, "equal_nan": True}
    torch.testing.assert_close(out[0], (wide * wide + wide).to(dtype), **same)
    want = torch.fmin(torch.fmax(x, -torch.ones_like(x)), torch.ones_like(x))
    torch.testing.assert_close(out[1], want, **same)
    torch.testing.assert_close(out[2], x + 1.5, **same)


@triton.jit
def libdevice_kernel(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    a = tl.load(x + i)
    tl.store(out + i, libdevice.tanh(a))
    tl.store(out + N + i, libdevice.pow(libdevice.abs(a), 1.5))
    tl.store(out + 2 * N + i, tl.where(libdevice.isnan(a), 1.0, libdevice.erf(a)))


def test_libdevice():
    x = torch.cat([torch.randn(15), torch.tensor([torch.nan])])
    out = torch.empty(3, 16)
    libdevice_kernel[(1,)](x, out, N=16)
    close = {"rtol": 2 * torch.finfo(torch.float32).eps, "atol": 0.0}
    torch.testing.assert_close(out[0], x.tanh(), **close, equal_nan=True)
    torch.testing.assert_close(out[1], x.abs().pow(1.5), **close, equal_nan=True)
    torch.testing.assert_close(out[2], x.erf().nan_to_num(1.0), **close)


@triton.jit
def division_kernel(x, y, out, N: tl.constexpr):
    i = tl.arange(0, N)
    a, b = tl.load(x + i), tl.load(y + i)
    tl.store(out + i, a // b)
    tl.store(out + N + i, a % b)


def test_integer_division_truncates_as_in_c():
    x = torch.tensor([7, -7, 7, -7], dtype=torch.int32)
    y = torch.tensor([2, 2, -2, -2], dtype=torch.int32)
    out = torch.empty(2, 4, dtype=torch.int32)
    division_kernel[(1,)](x, y, out, N=4)
    assert out.tolist() == [[3, -3, -3, 3], [1, -1, 1, -1]]


@triton.jit
def scalar_kernel(x, out, alpha, flag, n, N: tl.constexpr):
    i = tl.arange(0, N)
    value = tl.load(x + i) * alpha.to(tl.float32) + flag.to(tl.int32)
    inside = i >= 0 and i < n
    tl.store(out + i, tl.where(not inside, -1.0, value))


@pytest.mark.parametrize("flag", [False, True])
def test_scalar_arguments_and_logic(flag):
    x, out = torch.ones(8), torch.empty(8)
    scalar_kernel[(1,)](x, out, 0.5, flag, 5, N=8)
    assert out.tolist() == [0.5 + flag] * 5 + [-1.0] * 3


@triton.jit
def chained_kernel(out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, 0 < i < 3)


def test_chained_comparison_is_right_or_refused():
    out = torch.empty(4, dtype=torch.bool)
    if VERSION >= (3, 9):
        chained_kernel[(1,)](out, N=4)
        assert out.tolist() == [False, True, True, False]
    else:
        with pytest.raises(ValueError, match="chained comparison"):
            chained_kernel[(1,)](out, N=4)


@triton.jit
def overflow_kernel(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    big = tl.load(x + i) * 1e38 * 10.0
    tl.store(out + i, (big - big).to(tl.int32) + tl.program_id(0) * 2147483647 * 2)
    tl.store(out + i, (1 // (i - i)) + tl.max(big - big, axis=0).to(tl.int32))


def test_no_numpy_warning_reaches_the_reader():
    x, out = torch.ones(8), torch.empty(8, dtype=torch.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        overflow_kernel[(3,)](x, out, N=8)


def _python(code: str, **environment: str) -> str:
    """Run a program of its own, with a kernel file beside it; its last line."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TRITON_INTERPRET")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


KERNEL_FILE = """
import triton, triton.language as tl

@triton.jit
def helper(x):
    return tl.sum(x, axis=0)

@triton.autotune([triton.Config({}, num_warps=4)], key=[])
@triton.jit
def total_kernel(x, out, N: tl.constexpr):
    tl.store(out, helper(tl.load(x + tl.arange(0, N))))
    tl.store(out + 1, tl.load(x + tl.arange(0, N)).max(0))
"""


def test_kernels_decorated_before_tilebook_are_converted(tmp_path):
    (tmp_path / "kernels.py").write_text(KERNEL_FILE)
    run = f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import kernels, tilebook, torch
        out = torch.empty(2)
        kernels.total_kernel[(1,)](torch.arange(8.0), out, N=8)
        print(out.tolist())
    """
    assert _python(run, TILEBOOK_DEVICE="cpu") == "[28.0, 7.0]"


HELPERS = """
import triton
from triton.language import core

@triton.jit
def doubled(x):
    return x + core.where(x > 0, x, x)
"""

CALLER = """
import triton, triton.language as tl
from helpers import doubled

@triton.jit
def halved(x):
    return tl.where(x > 0, x / 2, x / 2)

@triton.jit
def kernel(x, out, N: tl.constexpr):
    i = tl.arange(0, N)
    tl.store(out + i, halved(doubled(halved(doubled(tl.load(x + i))))) + tl.sum(i))
"""


def test_helpers_may_know_the_language_by_other_modules(tmp_path):
    (tmp_path / "helpers.py").write_text(HELPERS)
    (tmp_path / "caller.py").write_text(CALLER)
    run = f"""
        import sys
        sys.path.insert(0, {str(tmp_path)!r})
        import tilebook, torch, triton.language as tl
        from caller import kernel
        before = {{name: getattr(tl, name) for name in dir(tl)}}
        out = torch.empty(4)
        for _ in range(2):
            kernel[(1,)](torch.tensor([-1.0, 0.0, 1.0, 2.0]), out, N=4)
        assert all(getattr(tl, name) is value for name, value in before.items())
        print(out.tolist())
    """
    assert _python(run, TILEBOOK_DEVICE="cpu") == "[5.0, 6.0, 7.0, 8.0]"


def test_tiles_of_one_shape_share_what_is_known_of_it():
    code = """
        import torch, triton, triton.language as tl, tilebook
        from triton.runtime import interpreter as upstream
        a, b = (
            upstream._implicit_cvt(torch.zeros(3, dtype=kind))
            for kind in (torch.int32, torch.float16)
        )
        assert a.shape is b.shape and a.numel == 1
        assert a.dtype.element_ty == tl.int32 and b.dtype.element_ty == tl.float16
        one, other = (tl.block_type(kind, [4, 8]) for kind in (tl.int32, tl.float16))
        again = tl.block_type(tl.int32, [tl.constexpr(4), 8])
        assert one.shape is other.shape is again.shape and tuple(one.shape) == (4, 8)
        assert one == again != other and (one.scalar, other.numel) == (tl.int32, 32)
        assert str(one) == str(again) and hash(one.scalar) == hash(tl.int32)
        near, far = (tl.pointer_type(tl.int32, space) for space in (1, 3))
        assert tl.block_type(near, [4]) != tl.block_type(far, [4])
        refused = (([], TypeError), ([3], ValueError), ((4, 8), AssertionError))
        for wrong, error in refused:
            try:
                tl.block_type(tl.int32, wrong)
            except error:
                continue
            raise SystemExit(f"{wrong} was taken")
        print("shared")
    """
    assert _python(code, TILEBOOK_DEVICE="cpu") == "shared"


@triton.jit
def double_kernel(x, out, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    a = tl.load(x + offs, mask=offs < n, other=0)
    tl.store(out + offs, a + a, mask=offs < n)


def test_threads_take_turns():
    def doubled(seed):
        x = torch.arange(seed, seed + 999, dtype=torch.float32)
        out = torch.full_like(x, torch.nan)
        double_kernel[(triton.cdiv(999, 64),)](x, out, 999, BLOCK=64)
        return torch.equal(out, x + x)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(doubled, range(24)))


@pytest.mark.parametrize(
    ("environment", "mode"),
    [
        ({"TILEBOOK_DEVICE": "cpu"}, "interpreter True"),
        ({"TRITON_INTERPRET": "1"}, "interpreter True"),
        ({"TRITON_INTERPRET": "0", "TILEBOOK_DEVICE": "cpu"}, "none False"),
    ],
)
def test_environment_decides_the_mode(environment, mode):
    ask = """
        from tilebook import device
        print(device.current().backend, device.interpreting())
    """
    if environment.get("TRITON_INTERPRET") == "0":
        environment = environment | {"CUDA_VISIBLE_DEVICES": ""}
    assert _python(ask, **environment) == mode


def test_wrong_environment_is_named():
    with pytest.raises(AssertionError, match="TILEBOOK_DEVICE must be cpu or gpu"):
        _python("import tilebook", TILEBOOK_DEVICE="toaster")


def test_limits_are_sentences():
    assert all(line.endswith(".") and len(line) > 20 for line in interpreter.LIMITS)
