"""Cross-compiling: what travels, what comes back, and what the evidence says."""

import importlib
import linecache
import re
import struct
import subprocess
import sys
import tempfile
import textwrap

import pytest
import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia import hopper
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor as GluonDescriptor
from triton.tools.tensor_descriptor import TensorDescriptor

from tilebook import _worker, compile_only
from tilebook.compile_only import words

pytestmark = pytest.mark.timeout(180)

# Its name changed between Triton 3.6 and 3.9.
tma_store = getattr(hopper.tma, "async_store", None) or (
    hopper.tma.async_copy_shared_to_global
)
TARGETS = ("sm_80", "sm_90", "sm_100", "sm_120", "gfx942")
SCALE = tl.constexpr(3)
offs = torch.zeros(3)  # a notebook's global, named like a kernel's variable


@triton.constexpr_function
def double(n):
    return 2 * n


@triton.jit
def scaled(x):
    return x * SCALE


@triton.jit
def shifted(x):
    return scaled(x) + double(4)


@triton.jit
def add_kernel(x_ptr, y_ptr, out_ptr, n, BLOCK: tl.constexpr = 1024):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)
    y = tl.load(y_ptr + offs, mask=mask, other=0.0)
    tl.store(out_ptr + offs, x + y, mask=mask)


@triton.jit
def apply_kernel(x_ptr, BLOCK: tl.constexpr, FUNCTION: tl.constexpr = shifted):
    offs = tl.arange(0, BLOCK)
    tl.store(x_ptr + offs, FUNCTION(tl.load(x_ptr + offs)))


@triton.jit
def matmul_kernel(
    a_desc, b_desc, c_desc, k, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr
):
    acc = tl.zeros((BM, BN), tl.float32)
    for start in range(0, k, BK):
        a = a_desc.load([tl.program_id(0) * BM, start])
        b = b_desc.load([tl.program_id(1) * BN, start])
        acc = tl.dot(a, b.T, acc)
    c_desc.store([tl.program_id(0) * BM, tl.program_id(1) * BN], acc.to(tl.float16))


@triton.jit
def histogram_kernel(x_ptr, out_ptr, BLOCK: tl.constexpr):
    tl.atomic_add(out_ptr + tl.load(x_ptr + tl.arange(0, BLOCK)), 1)


@triton.jit
def sum_kernel(x_ptr, out_ptr, BLOCK: tl.constexpr):
    tl.store(out_ptr, tl.sum(tl.load(x_ptr + tl.arange(0, BLOCK)), 0))


@triton.jit
def broken_kernel(x_ptr, BLOCK: tl.constexpr):
    tl.store(x_ptr + tl.arange(0, BLOCK + 1), 0)


@gluon.jit
def gluon_zero(desc, BLOCK: gl.constexpr):
    layout: gl.constexpr = gl.BlockedLayout([1, 4], [4, 8], [4, 1], [1, 0])
    smem = gl.allocate_shared_memory(desc.dtype, [BLOCK, BLOCK], desc.layout)
    smem.store(gl.zeros([BLOCK, BLOCK], desc.dtype, layout))
    hopper.fence_async_shared()
    tma_store(desc, [0, 0], smem)
    hopper.tma.store_wait(0)


def vector(n: int = 4096, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(n, dtype=dtype, device="meta")


def add(n: int = 4096, *, target: str = "sm_90", **meta) -> compile_only.Artefact:
    return compile_only.compile(
        add_kernel, *[vector(n) for _ in range(3)], n, target=target, **meta
    )


def tiles(shape: list[int]) -> TensorDescriptor:
    matrix = torch.empty(1024, 1024, dtype=torch.float16, device="meta")
    return TensorDescriptor.from_tensor(matrix, shape)


def matmul(target: str = "sm_90", **meta) -> compile_only.Artefact:
    block = {"BM": 128, "BN": 128, "BK": 64, "num_warps": 8, "num_stages": 3}
    descriptors = tiles([128, 64]), tiles([128, 64]), tiles([128, 128])
    return compile_only.compile(
        matmul_kernel, *descriptors, 1024, target=target, **block, **meta
    )


@pytest.mark.parametrize("target", TARGETS)
def test_every_stage_is_there(target):
    artefact = add(target=target)
    assert artefact.target == target
    assert "tt.load" in artefact.ttir
    assert "#ttg.blocked" in artefact.ttgir
    assert "define" in artefact.llir
    if target.startswith("gfx"):
        assert "add_kernel:" in artefact.amdgcn
        with pytest.raises(
            AttributeError, match=r"add_kernel .*gfx942 has no ptx, only"
        ):
            _ = artefact.ptx
    else:
        assert ".entry add_kernel" in artefact.ptx
        assert re.search(r"LDG\.E\.128", artefact.sass)
        with pytest.raises(AttributeError, match=r"sm_\d+ has no amdgcn"):
            _ = artefact.amdgcn


@pytest.mark.parametrize("target", TARGETS)
def test_evidence_of_an_addition(target):
    evidence = add(target=target).evidence
    # 1024 elements: 4 warps of 32 threads hold 8 each, of 64 threads 4 each.
    vectors = 1 if target.startswith("gfx") else 2
    assert evidence.target == target
    assert evidence.global_loads == {128: 2 * vectors}
    assert evidence.global_stores == {128: vectors}
    assert 8 <= evidence.registers <= 64
    assert evidence.spill_store_bytes == evidence.spill_load_bytes == 0
    assert evidence.shared_bytes == evidence.atomics == evidence.barriers == 0
    assert 20 <= evidence.instructions <= 100
    assert evidence.mma == {}
    assert evidence.warnings == ()


def test_the_evidence_line_reads_like_a_sentence():
    evidence = compile_only.Evidence(
        target="sm_90",
        registers=154,
        spill_store_bytes=8,
        spill_load_bytes=12,
        shared_bytes=98320,
        global_loads={128: 4, 32: 1},
        global_stores={16: 2},
        async_copies=2,
        tma_loads=1,
        tma_stores=2,
        mma={"wgmma": 4},
        barriers=1,
        mbarriers=3,
        atomics=1,
        instructions=417,
        warnings=(compile_only.Notice("C7515", "serialized"),),
    )
    assert evidence.line() == (
        "sm_90: 4 128-bit loads, 1 32-bit load, 2 16-bit stores, 1 atomic, "
        "2 async copies, 1 TMA load, 2 TMA stores; 4 wgmma, 1 barrier, 3 mbarriers; "
        "154 registers, 12 B spilled, 98320 B shared; 417 instructions; ptxas: C7515"
    )
    bare = compile_only.Evidence("sm_80", 8, instructions=1)
    assert bare.line() == "sm_80: 8 registers, no spills; 1 instruction"


def test_arguments_specialise_as_in_a_launch():
    assert add(4096).evidence.global_loads == {128: 4}
    # A ragged length breaks the mask into single elements, and so does a pointer that
    # isn't aligned; a length of one is compiled in.
    assert add(4095).evidence.global_loads == {32: 16}
    crooked = torch.empty(4097)[1:]
    straight = torch.empty(4096)
    artefact = compile_only.compile(add_kernel, crooked, straight, straight, 4096)
    assert artefact.evidence.global_loads == {128: 2, 32: 8}
    assert "%n" not in add(1).ttir.partition("attributes")[0]
    assert "i64" in re.search(r"%n: (i\d+)", add(2**40 // 4).ttir)[1]


def test_options_reach_the_compiler():
    assert add(num_warps=1).evidence.global_loads == {128: 16}
    assert add(num_warps=1).metadata["num_warps"] == 1
    assert add(BLOCK=128).evidence.instructions < add().evidence.instructions
    assert add(launch_pdl=True).metadata["launch_pdl"] is True
    assert (
        compile_only.compile(
            add_kernel, vector(), vector(), vector(), 4096, maxnreg=24
        ).evidence.registers
        <= 24
    )
    with pytest.raises(KeyError, match="num_wraps"):
        add(num_wraps=4)


def test_matrix_instructions_and_tma_by_architecture():
    hopper_line = matmul().evidence
    assert hopper_line.mma == {"wgmma": 4}
    assert hopper_line.tma_loads >= 2
    assert hopper_line.tma_stores == 1
    assert hopper_line.mbarriers >= 1
    assert hopper_line.shared_bytes >= 3 * 2 * 128 * 64 * 2
    blackwell = matmul("sm_100").evidence
    assert set(blackwell.mma) == {"tcgen05"}
    assert blackwell.tma_loads >= 2
    assert set(matmul("sm_80").evidence.mma) == {"mma.sync"}
    assert set(matmul("sm_120").evidence.mma) == {"mma.sync"}
    assert set(matmul("gfx942").evidence.mma) == {"mfma"}


def test_registers_are_those_of_the_binary():
    artefact = matmul()
    found = re.search(r"REG:(\d+) STACK:(\d+)", resource_usage(artefact.asm["cubin"]))
    assert artefact.evidence.registers == int(found[1])
    assert artefact.evidence.stack_bytes == int(found[2])


def resource_usage(cubin: bytes) -> str:
    """What cuobjdump reads from the binary that Triton itself assembled."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = triton.knobs.nvidia.cuobjdump.path
        command = [tool, "--dump-resource-usage", file.name]
        return subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout


def test_spills_are_seen():
    tight = matmul("sm_80", maxnreg=64).evidence
    assert tight.registers <= 64
    assert tight.spill_store_bytes > 0
    assert tight.spill_load_bytes > 0
    assert tight.stack_bytes > 0
    assert "B spilled" in tight.line()


def test_ptxas_remarks_are_kept():
    cubin = add().asm["cubin"]
    remark = (
        "ptxas info    : (C7515) Potential Performance Loss: wgmma is serialized\n"
        "ptxas /tmp/x.ptx, line 12; warning : odd alignment\n"
        "ptxas info    : Function properties for k\n"
        "    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n"
        "ptxas info    : Used 90 registers, used 1 barriers\n"
    )
    evidence = compile_only.evidence.read_nvidia("sm_90", "", cubin, remark, 0)
    assert evidence.warnings == (
        ("C7515", "Potential Performance Loss: wgmma is serialized"),
        ("warning", "odd alignment"),
    )
    assert (evidence.registers, evidence.stack_bytes) == (90, 8)
    assert (evidence.spill_store_bytes, evidence.spill_load_bytes) == (4, 12)
    with pytest.raises(ValueError, match="no registers"):
        compile_only.evidence.read_nvidia("sm_90", "", cubin, "ptxas fatal", 0)


# As nvdisasm -hex shows them: an instruction's lower and its upper 64 bits.
ADD_NOTHING = 0x0000000000097836, 0x044FE20000000200
ADD_ONE_ABOVE = 0x0001000000097836, 0x044FE20000000200
ADD_REGISTERS = 0x0000000500077236, 0x008FC60000000200
ADD_ZERO_UNPACKED = 0x0000000000097836, 0x044FE20000000000


@pytest.mark.parametrize(
    ("word", "wrong"),
    [
        (ADD_NOTHING, True),
        (ADD_ONE_ABOVE, False),
        (ADD_REGISTERS, False),
        (ADD_ZERO_UNPACKED, False),
    ],
)
def test_a_constant_that_ptxas_loses_is_told(word, wrong):
    log = (
        "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
        "ptxas info    : Used 90 registers"
    )
    cubin = add().asm["cubin"]
    first = struct.pack("<QQ", *next(words.instructions(cubin)))
    planted = cubin.replace(first, struct.pack("<QQ", *word), 1)
    evidence = compile_only.evidence.read_nvidia("sm_90", "", planted, log, 0)
    assert [n.code for n in evidence.warnings] == ["lost constant"] * wrong


@pytest.mark.parametrize("target", TARGETS[:-1])
def test_instructions_are_counted_as_nvdisasm_lists_them(target):
    ints = vector(dtype=torch.int32)
    for artefact in (
        add(target=target),
        compile_only.compile(histogram_kernel, ints, ints, BLOCK=1024, target=target),
        compile_only.compile(sum_kernel, vector(), vector(1), BLOCK=64, target=target),
    ):
        listed = re.findall(
            r"^\s*/\*[0-9a-f]{4,}\*/\s+(.*)$", artefact.sass, re.MULTILINE
        )
        labels = re.findall(
            r"^(\.L_\w+):\s*/\*\w+\*/\s+BRA `\(\1\)", artefact.sass, re.M
        )
        counted = [line for line in listed if not line.startswith("NOP")]
        assert labels
        assert artefact.evidence.instructions == len(counted) - len(labels)


def test_what_is_no_binary_has_no_instructions():
    with pytest.raises(ValueError, match="no ELF file"):
        list(words.instructions(b"\x7fELF\x01\x01"))


def test_atomics_and_barriers():
    ints = vector(dtype=torch.int32)
    histogram = compile_only.compile(histogram_kernel, ints, ints, BLOCK=1024)
    assert histogram.evidence.atomics == 8
    total = compile_only.compile(sum_kernel, vector(), vector(1), BLOCK=1024)
    assert total.evidence.barriers >= 1
    assert total.evidence.shared_bytes >= 4
    amd = compile_only.compile(
        sum_kernel, vector(), vector(1), BLOCK=1024, target="gfx942"
    )
    assert amd.evidence.barriers >= 1


def test_widths_of_bytes_and_halves():
    half = vector(4096, torch.float16)
    image = vector(4096, torch.uint8)
    artefact = compile_only.compile(add_kernel, image, half, half, 4095)
    assert artefact.evidence.global_loads == {16: 8, 8: 8}
    artefact = compile_only.compile(
        add_kernel, image, half, half, 4095, target="gfx942"
    )
    assert artefact.evidence.global_loads == {16: 4, 8: 4}
    assert artefact.evidence.global_stores == {16: 4}


def test_a_gluon_kernel_compiles_too():
    matrix = torch.empty(64, 64, dtype=torch.float16, device="meta")
    layout = gl.NVMMASharedLayout(128, 16, rank=2)
    desc = GluonDescriptor.from_tensor(matrix, [64, 64], layout)
    artefact = compile_only.compile(gluon_zero, desc, BLOCK=64)
    assert artefact.evidence.tma_stores == 1
    assert artefact.evidence.shared_bytes >= 64 * 64 * 2
    with pytest.raises(AttributeError, match="has no ttir"):
        _ = artefact.ttir


def test_helpers_constants_and_functions_as_arguments_travel():
    x = vector()
    shift = compile_only.compile(apply_kernel, x, BLOCK=128).ttir
    assert "3.000000e+00" in shift
    assert "8.000000e+00" in shift
    scale = compile_only.compile(apply_kernel, x, BLOCK=128, FUNCTION=scaled).ttir
    assert "3.000000e+00" in scale
    assert "8.000000e+00" not in scale


def test_kernels_of_functions_travel_with_their_closure():
    addend = tl.constexpr(5)

    @triton.jit
    def plus(x):
        return x + addend

    @triton.jit
    def local_kernel(x_ptr, BLOCK: tl.constexpr):
        offs = tl.arange(0, BLOCK)
        tl.store(x_ptr + offs, plus(tl.load(x_ptr + offs)))

    artefact = compile_only.compile(local_kernel, vector(), BLOCK=128)
    assert "5.000000e+00" in artefact.ttir


CELL = """
import triton
import triton.language as tl

x = [1, 2, 3]
STEP = tl.constexpr({step})

@triton.jit
def cell_kernel(x_ptr, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + offs)
    tl.store(x_ptr + offs, x + STEP)
"""


def run_cell(number: int, step: int) -> object:
    """Define a kernel as a notebook does: in __main__, source known to linecache."""
    name, source = f"/tmp/ipykernel_1/{number}.py", CELL.format(step=step)
    lines = source.splitlines(keepends=True)
    linecache.cache[name] = (len(source), None, lines, name)
    scope = {"__name__": "__main__"}
    exec(compile(source, name, "exec"), scope)
    return scope["cell_kernel"]


def test_kernels_of_notebook_cells_travel_and_change():
    first = compile_only.compile(run_cell(1, 7), vector(), BLOCK=128)
    second = compile_only.compile(run_cell(2, 9), vector(), BLOCK=128)
    assert "7.000000e+00" in first.ttir
    assert "9.000000e+00" in second.ttir
    # Neither the process's number nor a path of this machine is in the artefact.
    assert 'loc("1.py"' in first.ttir
    assert not any(
        "/tmp" in text for text in first.asm.values() if isinstance(text, str)
    )


def test_kernels_of_other_modules_travel_as_they_are_now(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    source = textwrap.dedent("""
        import triton, triton.language as tl
        LOCK = __import__("threading").Lock()
        STEP = tl.constexpr(7)
        @triton.jit
        def step(x):
            return x + STEP
    """)
    (tmp_path / "shipped_helpers.py").write_text(source)
    helpers = importlib.import_module("shipped_helpers")
    monkeypatch.setitem(globals(), "helpers", helpers)

    @triton.jit
    def kernel(x_ptr, BLOCK: tl.constexpr):
        offs = tl.arange(0, BLOCK)
        tl.store(x_ptr + offs, helpers.step(tl.load(x_ptr + offs)))

    assert "7.000000e+00" in compile_only.compile(kernel, vector(), BLOCK=128).ttir
    helpers.STEP = tl.constexpr(11)  # not what the file says
    assert "1.100000e+01" in compile_only.compile(kernel, vector(), BLOCK=128).ttir


def test_autotuned_kernels_need_one_configuration():
    config = {"BLOCK": 512}
    single = triton.autotune([triton.Config(config, num_warps=2)], key=[])(
        triton.jit(add_kernel.fn)
    )
    args = vector(), vector(), vector(), 4096
    assert compile_only.compile(single, *args).metadata["num_warps"] == 2
    configs = [triton.Config({"BLOCK": n}) for n in (256, 512)]
    several = triton.autotune(configs, key=[])(triton.jit(add_kernel.fn))
    with pytest.raises(TypeError, match=r"add_kernel is autotuned over 2 .* BLOCK"):
        compile_only.compile(several, *args)
    artefact = compile_only.compile(several, *args, BLOCK=256)
    assert "tensor<256x" in artefact.ttir


def test_heuristics_decide():
    decide = triton.heuristics({"BLOCK": lambda args: 256 if args["n"] > 10 else 32})
    artefact = compile_only.compile(
        decide(triton.jit(add_kernel.fn)), vector(), vector(), vector(), 4096
    )
    assert "tensor<256x" in artefact.ttir


def test_a_kernel_that_does_not_compile_raises_what_triton_raises():
    with pytest.raises(
        triton.CompilationError, match=r"(?s)at 2:.*power of 2"
    ) as caught:
        compile_only.compile(broken_kernel, vector(), BLOCK=128)
    assert "broken_kernel" in str(caught.value)
    assert add().evidence.registers > 0


def test_what_cannot_travel_is_named():
    class Thing:
        lock = None

    thing = Thing()

    @triton.jit
    def kernel(x_ptr):
        tl.store(x_ptr, thing)

    with pytest.raises(TypeError, match=r"kernel kernel uses 'thing', which can't be"):
        compile_only.compile(kernel, vector())


def test_bad_arguments_are_refused():
    with pytest.raises(TypeError, match=r"@triton\.jit or @gluon\.jit, got function"):
        compile_only.compile(add, vector())
    with pytest.raises(TypeError, match="missing"):
        compile_only.compile(add_kernel, vector())
    with pytest.raises(ValueError, match=r"'sm_90' .* got 'hopper'"):
        add(target="hopper")


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("sm_90", GPUTarget("cuda", 90, 32)),
        ("sm_90a", GPUTarget("cuda", 90, 32)),
        ("sm_103", GPUTarget("cuda", 103, 32)),
        ("gfx942", GPUTarget("hip", "gfx942", 64)),
        ("gfx90a", GPUTarget("hip", "gfx90a", 64)),
        ("gfx1100", GPUTarget("hip", "gfx1100", 32)),
    ],
)
def test_targets_by_name(name, target):
    assert compile_only.target_of(name) == target
    assert compile_only.target_of(target) is target


def test_excerpts_show_the_lines_around_a_match():
    text = "    a\n      b\n    c\n    d\n\n    b"
    assert compile_only.excerpt(text, "b") == "  b\n...\nb"
    assert compile_only.excerpt(text, "b", limit=1, before=1, after=1) == "a\n  b\nc"
    assert compile_only.excerpt(text, "^    [cd]", after=1) == "c\nd\n"
    with pytest.raises(ValueError, match="no line matches 'z'"):
        compile_only.excerpt(text, "z")


def test_a_table_has_a_row_for_each():
    table = compile_only.table([add(), add(target="gfx942")])
    assert list(table.index) == ["add_kernel sm_90", "add_kernel gfx942"]
    assert list(table["global_loads"]) == ["4 x 128", "2 x 128"]
    named = compile_only.table({"ours": add()})
    assert named.loc["ours", "registers"] == add().evidence.registers


def test_repeating_is_fast_and_leaves_no_file(tmp_path):
    script = f"""
        import sys, time; sys.path.insert(0, {str(sys.path[0])!r})
        import tempfile; tempfile.tempdir = {str(tmp_path)!r}
        import os; os.environ["TMPDIR"] = {str(tmp_path)!r}
        import linecache, torch
        from tilebook import compile_only
        source = {CELL.format(step=1)!r}
        linecache.cache["c.py"] = (1, None, source.splitlines(keepends=True), "c.py")
        scope = {{"__name__": "__main__"}}
        exec(compile(source, "c.py", "exec"), scope)
        def go():
            x = torch.empty(128, device="meta")
            artefact = compile_only.compile(scope["cell_kernel"], x, BLOCK=128)
            return artefact.evidence.line()
        go()
        start = time.perf_counter(); first = go()
        print(time.perf_counter() - start, os.listdir({str(tmp_path)!r}), first)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=150,
    )
    seconds, rest = done.stdout.split(" ", 1)
    assert float(seconds) < 1.0
    assert rest.startswith("[] sm_90: 1 32-bit load")


def test_the_worker_takes_no_gpu():
    code = b"__import__('torch').cuda.is_available()"
    assert _worker.call("compiled", "builtins:eval", code) is False
