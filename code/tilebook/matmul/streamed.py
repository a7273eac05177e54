"""Stream-K: programs take whole tiles, and share out the terms of what is left over.

133 tiles keep 132 multiprocessors busy for two turns, the second for one tile. Here
whole turns of tiles are dealt out as always: programs walk along k side by side, and
find in L2 what their neighbours asked for. Of the tiles of the incomplete turn the
blocks of terms stand in one row, tile after tile, and are cut into equal shares. Of a
tile that it doesn't do alone a program writes its part into a workspace; a second
kernel adds the parts in order and finishes those tiles. No program waits for another.
"""

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from tilebook import library
from tilebook.matmul import fitting, ordered, shares
from tilebook.matmul.descriptors import operand, part
from tilebook.matmul.epilogues import arguments, finish, offsets_of, put
from tilebook.matmul.operands import Task, task_of, tiles
from tilebook.matmul.ordered import product, scaled
from tilebook.matmul.shares import engine, schedule, stack
from tilebook.matmul.split import dependent, sum_dtype
from tilebook.tiling.grouped import grouped

Config = shares.Config
config_for, configs = shares.config_for, shares.configs

SUM_ELEMENTS = 2048
"""Of a piece of a shared tile that a program of the second kernel takes."""
UNROLL = 4
"""Parts that the second kernel asks for at once."""


@triton.jit
def begin(program, total, sharing):
    """The first step of a program's share: shares differ by one step at most."""
    return program * total // sharing


@triton.jit
def owner(step, total, sharing):
    """Whose share a step is in."""
    return ((step + 1) * sharing - 1) // total


@triton.jit
def brought(
    a_desc, b_desc, start_m, start_n, first, last,
    A_TURNED: tl.constexpr, B_TURNED: tl.constexpr,
    ACC: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Sum the blocks of terms from `first` to before `last` for one tile."""
    acc = tl.zeros((BLOCK_M, BLOCK_N), ACC)
    for step in range(first, last):
        start_k = step * BLOCK_K
        a = part(a_desc, start_m, start_k, A_TURNED)  # (BLOCK_M, BLOCK_K)
        b = part(b_desc, start_k, start_n, B_TURNED)  # (BLOCK_K, BLOCK_N)
        acc = tl.dot(a, b, acc, input_precision=PRECISION, out_dtype=ACC)
    return acc


@triton.jit(do_not_specialize=["whole", "steps", "sharing"])
def shares_kernel(
    a_desc, b_desc, parts_ptr, whole, steps, sharing,
    a_ptr, b_ptr, out_ptr, m, n, k, a_m, a_k, b_k, b_n, out_m, out_n,
    scale, bias_ptr, bias_n, residual_ptr, residual_m, residual_n,
    A_TURNED: tl.constexpr, B_TURNED: tl.constexpr,
    M_DIV: tl.constexpr, N_DIV: tl.constexpr, K_DIV: tl.constexpr,
    A_M_DIV: tl.constexpr, A_K_DIV: tl.constexpr,
    B_K_DIV: tl.constexpr, B_N_DIV: tl.constexpr,
    OUT_M_DIV: tl.constexpr, OUT_N_DIV: tl.constexpr,
    ACC: tl.constexpr, PRECISION: tl.constexpr, EVEN_K: tl.constexpr,
    WITHIN: tl.constexpr, ACTIVATION: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP: tl.constexpr,
    STACK: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    if DEPENDENT:
        gdc_launch_dependents()
    m, n, k = scaled(m, M_DIV), scaled(n, N_DIV), scaled(k, K_DIV)
    a_k, b_k = scaled(a_k, A_K_DIV), scaled(b_k, B_K_DIV)
    tiles_m = tl.cdiv(m, BLOCK_M).to(tl.int32)
    tiles_n = tl.cdiv(n, BLOCK_N).to(tl.int32)
    team, member = tl.program_id(0) // STACK, tl.program_id(0) % STACK
    teams = tl.num_programs(0) // STACK
    first_place, shared, lead, trail = 0, 0, 0, 0
    if team < sharing:
        total = tl.cast(tiles_m * tiles_n // STACK - whole, tl.int64) * steps
        start = begin(team.to(tl.int64), total, sharing)
        end = begin(team.to(tl.int64) + 1, total, sharing)
        first_place = (start // steps).to(tl.int32)
        shared = tl.cdiv(end, steps).to(tl.int32) - first_place
        lead = (start % steps).to(tl.int32)
        trail = ((end - 1) % steps).to(tl.int32) + 1
    turns = whole // teams
    # Whole tiles first: all begin at the same time, and stay side by side.
    for turn in range(turns + shared):
        cut = turn >= turns
        place = first_place + turn - turns
        first = tl.where(turn == turns, lead, 0)
        last = tl.where(cut & (turn == turns + shared - 1), trail, steps)
        tile = tl.where(cut, whole + place, team + turn * teams) * STACK + member
        pid_m, pid_n = grouped(tile, tiles_m, tiles_n, GROUP)
        if a_desc is None:
            begun = first.to(tl.int64) * BLOCK_K
            acc = product(
                a_ptr + begun * a_k, b_ptr + begun * b_k, pid_m, pid_n, m, n,
                tl.minimum(k, last.to(tl.int64) * BLOCK_K) - begun,
                scaled(a_m, A_M_DIV), a_k, b_k, scaled(b_n, B_N_DIV),
                ACC, PRECISION, EVEN_K, WITHIN, BLOCK_M, BLOCK_N, BLOCK_K,
            )  # fmt: skip
        else:
            acc = brought(
                a_desc, b_desc, pid_m * BLOCK_M, pid_n * BLOCK_N, first, last,
                A_TURNED, B_TURNED, ACC, PRECISION, BLOCK_M, BLOCK_N, BLOCK_K,
            )  # fmt: skip
        if (first == 0) & (last == steps):
            offs_m = pid_m.to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
            offs_n = pid_n.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
            done = finish(acc, offs_n, n, scale, bias_ptr, bias_n, ACTIVATION)
            offs_n, n_out = offsets_of(pid_n, n, BLOCK_N, ACTIVATION)
            put(
                done, out_ptr, offs_m, offs_n, m, n_out,
                scaled(out_m, OUT_M_DIV), scaled(out_n, OUT_N_DIV),
                residual_ptr, residual_m, residual_n,
            )  # fmt: skip
        else:
            # From part to part the team or the stack is the next, and so is this.
            part_of = (team + place) * STACK + member
            skipped = tl.cast(part_of, tl.int64) * (BLOCK_M * BLOCK_N)
            rows = tl.arange(0, BLOCK_M)[:, None] * BLOCK_N
            at = rows + tl.arange(0, BLOCK_N)[None, :]
            tl.store(parts_ptr + skipped + at, acc)


@triton.jit(do_not_specialize=["whole", "steps", "sharing"])
def shared_kernel(
    out_ptr, parts_ptr, m, n, whole, steps, sharing, stride_om, stride_on,
    scale, bias_ptr, stride_bias, residual_ptr, residual_m, residual_n,
    ACTIVATION: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    GROUP: tl.constexpr, STACK: tl.constexpr, ROWS: tl.constexpr,
    UNROLL: tl.constexpr, DEPENDENT: tl.constexpr,
):  # fmt: skip
    if DEPENDENT:
        gdc_wait()
    PIECES: tl.constexpr = BLOCK_M // ROWS
    SIZE: tl.constexpr = BLOCK_M * BLOCK_N
    tiles_m, tiles_n = tl.cdiv(m, BLOCK_M), tl.cdiv(n, BLOCK_N)
    tile, piece = tl.program_id(0) // PIECES, tl.program_id(0) % PIECES
    place, member = tile // STACK, tile % STACK
    total = tl.cast(tiles_m * tiles_n // STACK - whole, tl.int64) * steps
    before = tl.cast(place, tl.int64) * steps
    first = owner(before, total, sharing)
    last = owner(before + steps - 1, total, sharing)
    # A stack that is one team's has been finished.
    if first < last:
        rows = piece * ROWS + tl.arange(0, ROWS)
        at = rows[:, None] * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
        acc = tl.zeros((ROWS, BLOCK_N), parts_ptr.dtype.element_ty)
        # The loads of a turn don't wait for one another; the sums keep their order.
        for start in range(first, last + 1, UNROLL):
            for j in tl.static_range(UNROLL):
                part_of = (start + j + place) * STACK + member
                part_ptr = parts_ptr + part_of * SIZE
                acc += tl.load(part_ptr + at, mask=start + j <= last, other=0)
        pid_m, pid_n = grouped(whole * STACK + tile, tiles_m, tiles_n, GROUP)
        offs_m = pid_m.to(tl.int64) * BLOCK_M + rows
        offs_n = pid_n.to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
        acc = finish(acc, offs_n, n, scale, bias_ptr, stride_bias, ACTIVATION)
        out_n, width = offsets_of(pid_n, n, BLOCK_N, ACTIVATION)
        put(
            acc, out_ptr, offs_m, out_n, m, width, stride_om, stride_on,
            residual_ptr, residual_m, residual_n,
        )  # fmt: skip


def launch(task: Task, config: Config | None = None) -> None:
    """Multiply, and write the result that a task names.

    Args:
        task: the product; its operands have been checked.
        config: how to launch; `config_for` chooses by default.

    Raises:
        ValueError: there are more tiles than a grid has programs.

    Notes:
        Takes memory for a tile of sums for each program and each shared tile.
    """
    if not task.out.numel():
        return
    config = config or config_for(task)
    block_m, block_n, block_k = config[:3]
    high = stack(task, config)
    count, teams = tiles(task, block_m, block_n) // high, config.programs // high
    # A tile of no terms takes a step all the same: it is finished, too.
    steps = max(-(-task.k // block_k), 1)
    whole, sharing = schedule(count, steps, teams, config.longer)
    left = count - whole
    # As many teams as stacks share none of them.
    seams = sharing != left
    shape = ((sharing + left - 1) * high if seams else 0, block_m, block_n)
    parts = torch.empty(shape, dtype=sum_dtype(task), device=task.a.device)
    group = min(config.group, -(-task.m // block_m))
    tile = fitting.Config(*config[:3], config.num_warps, config.num_stages, group)
    args, constants = ordered.constants(task, tile)
    a_desc, b_desc, a_turned, b_turned = None, None, False, False
    if config.engine and engine(task):
        a_desc, a_turned = operand(task.a, "a", (block_m, block_k))
        b_desc, b_turned = operand(task.b, "b", (block_k, block_n))
    early = seams and dependent(task)
    with library.on(task.a):
        task.wrap(shares_kernel)[((teams if whole else sharing) * high,)](
            a_desc, b_desc, parts, whole, steps, sharing, *args, **constants,
            A_TURNED=a_turned, B_TURNED=b_turned, STACK=high, DEPENDENT=early,
        )  # fmt: skip
        if not seams:
            return
        rows = min(max(SUM_ELEMENTS // block_n, 1), block_m)
        given, activation = arguments(task)
        task.wrap(shared_kernel)[(left * high * (block_m // rows),)](
            task.out, parts, task.m, task.n, whole, steps, sharing,
            *task.out.stride(), *given, **activation, BLOCK_M=block_m, BLOCK_N=block_n,
            GROUP=group, STACK=high, ROWS=rows, UNROLL=UNROLL, num_warps=4,
            DEPENDENT=early, **({"launch_pdl": True} if early else {}),
        )  # fmt: skip


def matmul(
    a: torch.Tensor, b: torch.Tensor, *, precision: str | None = None
) -> torch.Tensor:
    """Multiply two matrices, and share out what an incomplete turn would leave idle.

    Args:
        a: matrix (m, k) of a type in `operands.DTYPES`, any strides.
        b: matrix (k, n), any strides, of the same dtype.
        precision: of float32, one of `operands.PRECISIONS`; by default what PyTorch is
            set to.

    Returns:
        Their product (m, n), contiguous, of the same dtype, or int32 for int8.

    Raises:
        TypeError: as `operands.check_pair`.
        ValueError: as `operands.task_of`.
    """
    task, wanted = task_of(a, b, precision=precision)
    if wanted:
        launch(task)
    return task.out
