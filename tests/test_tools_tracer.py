"""What the tracer says where parameters overlap, files mix and names collide."""

import pytest
import torch
import triton
import triton.language as tl

from tilebook import tools
from tilebook.parallel import bugs

SAME = ", the same value each time"


@triton.jit
def two_kernel(a_ptr, b_ptr, more, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    if tl.program_id(0) == 0:
        tl.store(a_ptr + offs, offs)
    else:
        tl.store(b_ptr + offs, offs + more)


@triton.jit
def narrow_kernel(a_ptr, value):
    if tl.program_id(0) == 0:
        tl.store(a_ptr, 7)
    else:
        tl.store(a_ptr.to(tl.pointer_type(tl.int8)), value)


@triton.jit
def near_kernel(out_ptr, x_ptr, STEP: tl.constexpr):
    tl.store(out_ptr, tl.load(x_ptr + tl.program_id(0) * STEP))


def verdict(kernel, *args, **meta):
    found = tools.trace(kernel)[(2,)](*args, **meta)
    (said,) = found.problems()
    return said.endswith(SAME)


def test_values_are_compared_where_they_lie_in_memory():
    memory = torch.zeros(9)
    for more, same in ((0, False), (1, True)):
        assert verdict(two_kernel, memory[:8], memory[1:], more, BLOCK=8) == same
    for value, same in ((1, False), (7, True)):
        whole = torch.zeros(1, dtype=torch.int32)
        assert verdict(narrow_kernel, whole, value) == same


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.bfloat16, torch.float16, torch.float8_e5m2, torch.bool]
)
def test_values_are_compared_to_the_last_bit(dtype):
    least = 2**53 if dtype == torch.int64 else 0
    x, out = torch.tensor([least, least + 1]).to(dtype), torch.zeros(1).to(dtype)
    assert not verdict(near_kernel, out, x, STEP=1)
    assert verdict(near_kernel, out, x, STEP=0)


def zeroed(arguments):
    arguments["y"].zero_()


@triton.autotune([triton.Config({"BLOCK": 8}, pre_hook=zeroed)], key=[])
@triton.jit
def hooked_kernel(x, y, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    tl.atomic_add(y + offs, tl.load(x + offs))


@triton.autotune(
    [triton.Config({"BLOCK": 8}, pre_hook=zeroed), triton.Config({"BLOCK": 16})],
    key=[],
)
@triton.heuristics({"ODD": lambda given: given["x"].numel() % 2})
@triton.jit
def chosen_kernel(x, y, BLOCK: tl.constexpr, ODD: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    tl.atomic_add(y + offs, tl.load(x + offs))


def test_a_configurations_hook_runs_before_the_kernel_as_at_a_launch(interpreted):
    x = torch.ones(16)
    for kernel, meta, left in (
        (hooked_kernel, {}, 1),
        (chosen_kernel, {"BLOCK": 8}, 1),
        (chosen_kernel, {"BLOCK": 16}, 6),
    ):
        y = torch.full((16,), 5.0)
        tools.trace(kernel)[(1,)](x, y, **meta)
        assert (y[:8] == left).all(), meta
    y = torch.full((16,), 5.0)
    with tools.tracing() as launches:
        hooked_kernel[(1,)](x, y)
    assert len(launches) == 1
    assert (y[:8] == 1).all()


HELPER = """import triton
import triton.language as tl
{}
@triton.jit
def helper(x, offs):
    return tl.load(x + offs)
"""


def test_a_helper_of_another_file_is_not_taken_for_a_line_of_the_kernel(
    tmp_path, monkeypatch
):
    # Its load stands at the number of the kernel's store.
    kernel = helped_kernel.fn.__code__.co_firstlineno
    (tmp_path / "tool_helper.py").write_text(HELPER.format("\n" * (kernel - 3)))
    monkeypatch.syspath_prepend(tmp_path)
    import tool_helper

    monkeypatch.setitem(globals(), "helper", tool_helper.helper)
    found = tools.trace(helped_kernel)[(1,)](torch.ones(512), torch.ones(512), 512)
    lines = {access.line for access in found.accesses}
    assert len(lines) == 1
    (line,) = lines
    for each in (found, found.compiled()):
        said = each.report()
        assert f"line {line} of tool_helper.py: in a helper\n    load of x" in said
        assert f"line {line}: tl.store(y + offs, helper(x, offs))\n    store" in said
    assert list(found.warps) == list(found.by_file)[1:]
    assert {file for file, *_ in found.compiled().layouts} == {
        "tool_helper.py",
        "test_tools_tracer.py",
    }


helper = None


@triton.jit
def helped_kernel(x, y, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    tl.store(y + offs, helper(x, offs))


@triton.jit
def mixed_kernel(x_ptr, y_ptr, z_ptr, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    both = offs[:, None] * BLOCK + offs[None, :]
    product = tl.load(x_ptr + offs)[:, None] * tl.load(y_ptr + both)
    tl.store(z_ptr + both, product)


def test_a_line_that_loads_tiles_of_different_rank():
    x, y, z = torch.zeros(32), torch.zeros(32, 32), torch.zeros(32, 32)
    found = tools.trace(mixed_kernel)[(1,)](x, y, z, BLOCK=32).compiled()
    assert {rank for *_, op, rank in found.layouts if op == "load"} == {1, 2}
    assert "load of x_ptr" in found.report()


@triton.jit
def named_kernel(kernel, target, straying, raise_error, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    tl.store(target + offs, tl.load(kernel + offs) + straying + raise_error)


def test_a_kernels_parameters_may_have_any_names(interpreted):
    x, y = torch.ones(64), torch.zeros(64)
    named = {"kernel": x, "target": y, "straying": 2, "raise_error": 3, "BLOCK": 64}
    found = tools.trace(named_kernel)[(1,)](**named)
    assert not found.problems()
    assert (y == 6).all()
    assert "load of kernel" in found.compiled("sm_80").report()
    with tools.tracing() as launches:
        named_kernel[(1,)](**named)
    assert "store of target" in launches[0].report()


@triton.jit
def failing_kernel(x_ptr, BLOCK: tl.constexpr):
    tl.store(x_ptr + tl.arange(0, BLOCK), 1)
    tl.static_assert(BLOCK == 3)


def test_a_kernels_exception_leaves_the_block(interpreted):
    launches = []

    def launch():
        with tools.tracing() as seen:
            try:
                failing_kernel[(1,)](torch.zeros(8), BLOCK=8)
            finally:
                launches.extend(seen)

    with pytest.raises(AssertionError):
        launch()
    (found,) = launches
    assert "it ended with AssertionError" in found.problems()[0]
    # What strays is said, not raised, so that all of it is found.
    bug = bugs.GALLERY["no-mask"]
    with tools.tracing() as launches:
        bug.wrong.run(*bug.inputs())
    assert launches[0].strays


@triton.jit
def one_kernel(x_ptr, n):
    tl.store(x_ptr, 1.0, mask=n > 0)


def test_one_and_none_are_spoken_of_as_such():
    found = tools.trace(one_kernel)[(1,)](torch.zeros(1), 1)
    assert "One request of 1 lane at line" in found.requests().alt
    assert "1 sector of 32 bytes, in which 4 of 32" in found.requests().alt
    with pytest.raises(ValueError, match="this launch touches no memory"):
        tools.trace(one_kernel)[(1,)](torch.zeros(1), 0).requests()
