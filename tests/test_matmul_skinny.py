"""Products with few tiles: shared out along the sum, streamed, and without a tile."""

import pytest
import torch

from tilebook import compile_only, testing
from tilebook import device as here
from tilebook.matmul import accuracy, split, streamed, vectors
from tilebook.matmul.evidence import launches as recorded
from tilebook.matmul.evidence import matrix
from tilebook.matmul.operands import ACTIVATIONS, DTYPES, Task, placed

# Each in a way in which small products have several tiles, parts and shares.
WAYS = {
    "split": (split, split.Config(16, 32, 32, 3, 4, 2)),
    "atomic": (split, split.Config(16, 32, 32, 3, 4, 2, atomic=True)),
    "streamed": (streamed, streamed.Config(32, 32, 32, 5, 4, 2)),
    "vectors": (vectors, vectors.Config(16, 32, 2, 4)),
}
each_way = pytest.mark.parametrize("way", WAYS)
MODULES = (split, streamed, vectors)
INF = float("inf")


def operands(m, n, k, dtype=torch.float32, device="cpu"):
    if dtype == torch.int8:
        a = torch.randint(-128, 128, (m, k), dtype=dtype, device=device)
        return a, torch.randint(-128, 128, (k, n), dtype=dtype, device=device)
    a = torch.randn(m, k, device=device).to(dtype)
    return a, torch.randn(k, n, device=device).to(dtype)


def run(way, a, b, *, both=False, **besides):
    """Launch in a small way, and in the module's own if wanted, and check."""
    module, config = WAYS[way]
    for chosen in (config, None) if both else (config,):
        with testing.guarded():
            task = placed(a, b, **besides)
            module.launch(task, chosen)
        accuracy.check(task)


def shape_for(way, m, n, k):
    return (min(m, 7), n, k) if way == "vectors" else (m, n, k)


@each_way
@pytest.mark.parametrize(
    "shape",
    [
        pytest.param((1, 1, 1), marks=pytest.mark.sanitize),
        pytest.param((17, 33, 97), marks=pytest.mark.sanitize),
        *((2, 64, 128), (5, 37, 70), (37, 5, 70), (33, 2, 31), (1, 127, 257)),
    ],
    ids=str,
)
def test_any_shape(way, shape, device):
    m, n, k = shape_for(way, *shape) if min(shape[:2]) > vectors.THIN else shape
    a, b = (testing.guard(x) for x in operands(m, n, k, device=device))
    run(way, a.tensor, b.tensor, both=True)
    a.check()
    b.check()


@each_way
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(way, dtype, device):
    for m, n, k in ((7, 40, 150), (3, 35, 67), (40, 6, 80)):
        a, b = operands(m, n, k, dtype, device)
        run(way, a, b, both=n == 40)
        if dtype == torch.int8:
            # On a GPU there is no product of integers to compare with.
            known = a.cpu().int() @ b.cpu().int()
            assert torch.equal(accuracy.exact(placed(a, b)).int().cpu(), known)


@each_way
def test_narrow_operands_to_a_wide_result(way, device):
    a, b = operands(5, 34, 70, torch.bfloat16, device)
    run(way, a, b, out_dtype=torch.float32)
    a, b = operands(5, 34, 70, torch.int8, device)
    run(way, a, b, out_dtype=torch.float32, scale=0.01)


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("precision", ["tf32", "tf32x3", "ieee"])
def test_precisions(module, precision, device):
    a, b = operands(6, 20, 90, device=device)
    task = placed(a, b)
    task.out.copy_(module.matmul(a, b, precision=precision))
    accuracy.check(task, "tf32" if precision == "tf32" else None)


@each_way
def test_any_strides(way, device):
    a, b = operands(5, 34, 40, torch.bfloat16, device)
    for _, left in testing.layouts(a):
        run(way, left, b)
    for _, right in testing.layouts(b):
        run(way, a, right)
    for _, left in testing.expanded(a):
        for _, right in testing.expanded(b):
            run(way, left, right)
    backwards = torch.as_strided(a, (5, 20), (1, 3))
    run(way, backwards, b[::2])


@each_way
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_what_is_done_besides(way, activation, device):
    a, b = operands(5, 36, 70, device=device)
    n = 18 if activation == "silu_and_mul" else 36
    bias = torch.randn(36, 3, device=device)[:, 1]
    residual = torch.randn(n, 5, device=device).t()
    run(
        way,
        a,
        b,
        both=True,
        activation=activation,
        bias=bias,
        scale=0.3,
        residual=residual,
    )
    # The thin operand on the other side.
    a, b = operands(19, 4, 70, device=device)
    bias = torch.randn(4, device=device)
    run(way, a, b, activation=activation, bias=bias)


@each_way
def test_a_result_of_any_strides(way, device):
    module, config = WAYS[way]
    a, b = operands(5, 34, 70, device=device)
    for out in (
        torch.empty(34, 5, device=device).t(),
        testing.guard(torch.zeros(5, 80, device=device)[:, 1:69:2]).tensor,
    ):
        task = Task(a, b, out)
        module.launch(task, config)
        accuracy.check(task)


@each_way
def test_nan_and_infinities(way, device):
    a, b = operands(6, 34, 70, device=device)
    a[0, 3], a[1, 69], a[2, 0], b[5, 33] = float("nan"), INF, -INF, INF
    b[69, 0], a[4, 5] = 0.0, 0.0
    run(way, a, b)


@each_way
@pytest.mark.parametrize("power", [-4, 4])
def test_magnitudes(way, power, device):
    a, b = operands(5, 34, 70, device=device)
    run(way, a * 10.0**power, b * 10.0**power)
    run(way, a * 10.0**power, b * 10.0**-power, bias=b[0].clone())


@each_way
def test_no_terms_leaves_what_comes_after(way, device):
    a, b = operands(3, 10, 0, device=device)
    bias = torch.randn(10, device=device)
    run(way, a, b, bias=bias, activation="relu")


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0)], ids=str)
def test_empty(module, shape, device):
    a, b = operands(*shape, device=device)
    out = module.matmul(a, b)
    assert out.shape == shape[:2]
    assert not out.any()
    module.launch(placed(a, b))


@pytest.mark.parametrize("way", ["split", "streamed", "vectors"])
def test_the_same_bits_each_time(way, device):
    module, config = WAYS[way]
    a, b = operands(7, 50, 200, device=device)

    def call():
        task = placed(a, b)
        module.launch(task, config)
        return task.out

    testing.deterministic(call, repeats=here.sizes(20, 2))


def test_atomic_by_name(device):
    a, b = operands(5, 34, 600, device=device)
    task = placed(a, b)
    task.out.copy_(split.matmul(a, b, precision="ieee", atomic=True))
    accuracy.check(task)


class TestConfigurations:
    def test_parts_fill_the_gpu_but_are_no_crumbs(self):
        def parts(m, n, k):
            a = torch.empty((m, k), dtype=torch.bfloat16, device="meta")
            b = torch.empty((k, n), dtype=torch.bfloat16, device="meta")
            return split.config_for(placed(a, b))

        sms = here.current().sms or split.PRETENDED
        wide = parts(16, 4096, 65536)
        count = 32 * wide.parts
        assert split.PER_SM * sms - 32 <= count <= split.PER_SM * sms
        assert parts(16, 4096, 1024).parts == 4
        assert parts(16, 4096, 100).parts == 1
        assert parts(4096, 4096, 65536).parts == 1
        assert [parts(m, 64, 64).block_m for m in (1, 17, 33, 500)] == [16, 32, 64, 64]

    def test_vectors_load_along_neighbours(self):
        a = torch.empty((1, 4096), dtype=torch.bfloat16, device="meta")
        b = torch.empty((4096, 4096), dtype=torch.bfloat16, device="meta")
        assert vectors.config_for(placed(a, b)).block_n == 64
        assert vectors.config_for(placed(a, b.t())).block_k == 256


class TestRefusals:
    @pytest.mark.parametrize("module", MODULES)
    def test_operands(self, module, device):
        a = torch.ones(3, 4, device=device)
        with pytest.raises(TypeError, match=r"a must be a torch.Tensor, got int"):
            module.matmul(3, a)
        with pytest.raises(TypeError, match=r"b must be .* got float64"):
            module.matmul(a, a.double())
        with pytest.raises(TypeError, match="b must have the dtype of a"):
            module.matmul(a, a.t().half())
        with pytest.raises(ValueError, match="as many columns as b has rows"):
            module.matmul(a, a)
        with pytest.raises(ValueError, match="a must have 2 dimensions, got 1"):
            module.matmul(a[0], a)
        with pytest.raises(ValueError, match="precision must be"):
            module.matmul(a, a.t(), precision="fast")

    def test_what_is_not_thin(self, device):
        a = torch.ones(9, 9, device=device)
        assert not vectors.fits(placed(a, a))
        assert vectors.fits(placed(a[:8], a))
        assert vectors.fits(placed(a, a[:, :1]))
        with pytest.raises(ValueError, match=r"a or b must be thin, .* got 9 and 9"):
            vectors.matmul(a, a)


MISTAKES = [
    (split, "tl.minimum(first + span, tl.cdiv(k, BLOCK_K).to(tl.int32))",
     "first + span"),
    (split, "< left.to(tl.int32)", "<= left.to(tl.int32)"),
    (split, "        b_ptrs += stride_bk * BLOCK_K\n", ""),
    (split, "pid // (tiles_m * tiles_n), pid % (tiles_m", "pid // tiles_m, pid % (m"),
    (split, "parts_ptr + part * (m * n) + at", "parts_ptr + at"),
    (split, "mask=mask & (part < parts)", "mask=mask & (part < parts - 1)"),
    (split, "make = torch.zeros if config.atomic else", "make = torch.empty and"),
    (vectors, "mask=(offs_m < m)[:, None] & (offs_k < k)[None, :]",
     "mask=(offs_m < m)[:, None] & (offs_k < k + 1)[None, :]"),
    (vectors, "task.b.mT, task.a.mT, task.out.mT", "task.b.mT, task.a.mT, task.out"),
    (vectors, "place.mT if aside else place", "place"),
    (vectors, "parts == 1 and (task.plain or not aside)", "parts == 1"),
]  # fmt: skip


def suite(module, device):
    """What the tests above look at, on a few small cases for one module."""
    for way, (owner, _) in WAYS.items():
        if owner is not module:
            continue
        for m, n, k in ((5, 70, 224), (35, 6, 100)):
            wide = torch.randn(m, k + 3, device=device)
            a, b = wide[:, :k], torch.randn(n, k + 1, device=device)[:, :k].t()
            if k == 100:
                b = torch.randn(k + 1, n, device=device)[:k]
            wide[:, k:] = float("nan")
            own = {"both": module is vectors}
            bias, residual = (torch.randn(s, device=device) for s in ((n,), (n, m)))
            run(way, a, b, bias=bias, activation="relu", **own)
            run(way, a, b, residual=residual.t(), scale=2.0)
            run(way, a, b, **own)


@pytest.mark.parametrize(("module", "old", "new"), MISTAKES)
def test_planted_mistakes_are_found(module, old, new, device):
    assert testing.caught(module, old, new, suite, module, device)


@pytest.mark.parametrize("module", MODULES)
def test_without_a_mistake_the_same_tests_pass(module, device):
    suite(module, device)


def launches(module, m, n, k, dtype, turn=False, *, engine=True, **besides):
    """What a module launches for contiguous operands, or for b.T contiguous."""
    a, b = matrix(m, k, dtype), matrix(k, n, dtype, turned=turn)
    task = placed(a, b, **besides)
    config = module.config_for(task)
    if module is streamed and not engine:
        config = config._replace(engine=False)
    found = recorded(lambda wrap: module.launch(task._replace(wrap=wrap), config))
    return [(each.kernel, each.args, each.meta) for each in found]


def evidence(target, *args, **besides):
    """Of each kernel, its staged copies as deep as an AMD GPU takes where it is one."""
    found = []
    engine = target in ("sm_90", "sm_100")
    for kernel, inputs, meta in launches(*args, engine=engine, **besides):
        if target.startswith("gfx") and "num_stages" in meta:
            meta = {**meta, "num_stages": 2}
        found.append(compile_only.compile(kernel, *inputs, target=target, **meta))
    return [artefact.evidence for artefact in found]


CASES = {
    "split": (split, 16, 4096, 4096),
    "streamed": (streamed, 1536, 2048, 4096),
    "vector": (vectors, 1, 4096, 4096),
    "vectors": (vectors, 8, 4096, 4096),
}


@pytest.mark.parametrize(
    ("target", "turn"),
    [
        *(("sm_80", False), ("sm_90", False), ("sm_90", True)),
        *(("sm_100", True), ("gfx942", False)),
    ],
)
@pytest.mark.parametrize("case", CASES)
def test_machine_code(case, target, turn):
    for found in evidence(target, *CASES[case], torch.bfloat16, turn):
        assert not max(found.spill_store_bytes, found.spill_load_bytes)
        assert not found.warnings
        assert found.registers <= 255


@pytest.mark.parametrize("case", ["split", "streamed", "vector"])
def test_a_second_kernel_that_starts_early_waits_before_it_reads(case, monkeypatch):
    for module in (split, streamed, vectors):
        monkeypatch.setattr(module, "dependent", lambda task: True)
    made = []
    for kernel, inputs, meta in launches(*CASES[case], torch.bfloat16, True):
        early = meta.pop("launch_pdl", False)
        ptx = compile_only.compile(kernel, *inputs, target="sm_90", **meta).ptx
        made.append((early, ptx))
    (plain, first), (early, second) = made
    assert (plain, early) == (False, True)
    assert "griddepcontrol.launch_dependents" in first
    assert "griddepcontrol.wait" not in first
    waits = second.index("griddepcontrol.wait")
    assert waits < second.index("ld.global")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_machine_code_of_awkward_sizes(case):
    """Multiples of eight go 16 bytes at a time all the same, and odd sizes fit."""
    module, m, *_ = CASES[case]
    first, *_ = evidence("sm_90", module, m, 4104, 4104, torch.bfloat16)
    assert first.tma_loads or first.async_copies or first.global_loads[128]
    for found in (first, *evidence("sm_90", module, m, 4097, 4095, torch.bfloat16)):
        assert not max(found.spill_store_bytes, found.spill_load_bytes)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["gelu", "silu_and_mul"])
@pytest.mark.parametrize("case", CASES)
def test_machine_code_of_what_is_done_besides(case, activation):
    module, m, n, k = CASES[case]
    bias = torch.empty(n, dtype=torch.bfloat16, device="meta")
    besides = {"bias": bias, "activation": activation, "scale": 0.5}
    for found in evidence("sm_90", module, m, n, k, torch.bfloat16, True, **besides):
        assert not max(found.spill_store_bytes, found.spill_load_bytes)
        assert not found.warnings


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["tf32", "tf32x3", "ieee"])
@pytest.mark.parametrize("module", [split, streamed])
def test_machine_code_of_float32(module, precision):
    m = 64 if module is split else 1024
    given = (module, m, 4096, 4096, torch.float32)
    for found in evidence("sm_90", *given, True, precision=precision):
        assert not max(found.spill_store_bytes, found.spill_load_bytes)
        assert not found.warnings


def test_what_the_tensor_cores_get():
    """A tile of 16 rows is too low for Hopper's own instruction; 64 are enough."""
    low, _ = evidence("sm_90", split, 16, 4096, 4096, torch.bfloat16, True)
    high, _ = evidence("sm_90", split, 64, 4096, 4096, torch.bfloat16, True)
    assert "mma.sync" in low.mma
    assert "wgmma" in high.mma
    assert low.async_copies
    assert high.async_copies
    thin, *_ = evidence("sm_90", vectors, 1, 4096, 4096, torch.bfloat16, True)
    assert not thin.mma
    assert thin.global_loads[128] == 4


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("turn", [False, True])
def test_sizes_of_the_experiments(dtype, turn, device):
    for module, m, n, k in (*CASES.values(), (split, 64, 1000, 8200)):
        a, b = operands(m, n, k, dtype, device)
        b = b.t().contiguous().t() if turn else b

        def call(a=a, b=b, module=module):
            with testing.guarded():
                return module.matmul(a, b, precision="ieee")

        task = placed(a, b)
        task.out.copy_(testing.deterministic(call))
        accuracy.check(task)


@pytest.mark.gpu
@pytest.mark.large
@pytest.mark.parametrize("module", MODULES)
def test_more_than_2_to_the_31_elements(module, device):
    a = torch.randn(3, 2**16 + 64, device=device, dtype=torch.bfloat16)
    b = torch.randn(2**16 + 64, 2**15 + 8, device=device, dtype=torch.bfloat16)
    out = module.matmul(a, b)
    for at in (slice(0, 8), slice(-8, None)):
        task = placed(a, b[:, at])
        task.out.copy_(out[:, at])
        accuracy.check(task)
