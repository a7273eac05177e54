"""Pictures of a trace: who touches what, and what a warp's request brings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tilebook.measure.palette import GREY, style
from tilebook.parallel.figures import FILLS, IDLE, Picture
from tilebook.tiling._cells import blank, board, grid
from tilebook.tools import warps
from tilebook.tools.reporting import counted

if TYPE_CHECKING:
    from tilebook.microscope import Access
    from tilebook.tools.tracer import Trace

WIDEST, TALLEST = 64, 48
"""Cells of a picture that fits a page."""
MANY = -2
"""In the place of a program's number: more than one."""


def programs(trace: Trace, argument: str, op: str = "store") -> Picture:
    """Draw which program touches each element of a tensor.

    Args:
        trace: of a launch.
        argument: the kernel's parameter.
        op: "load", "store" or "atomic".

    Returns:
        The tensor's elements, with the program's number in each. An element that
        several touch has a plus, one that nobody does is empty.

    Raises:
        ValueError: there is no such tensor, or it doesn't fit a page.
    """
    look = trace.look
    counts = look.counts(argument, op)
    tensor = look.arguments[argument]
    if counts.ndim not in (1, 2) or not counts.size:
        raise ValueError(f"{argument} must have one or two dimensions and an element")
    width = counts.shape[-1] if counts.ndim == 2 else min(counts.size, 32)
    height = -(-counts.size // width)
    if width > WIDEST or height > TALLEST:
        raise ValueError(
            f"{argument} must be {TALLEST} rows of {WIDEST} elements at most to fit"
        )
    memory = np.full(tensor.extent(), -1)
    for access in trace.accesses:
        if access.argument == argument and access.op == op:
            here = access.touched()
            number = look.program(access.program)
            before = memory[here]
            memory[here] = np.where((before == -1) | (before == number), number, MANY)
    owners = memory[tensor.positions()].ravel()
    cells = np.full(width * height, -3)
    cells[: owners.size] = owners
    cells = cells.reshape(height, width)
    with style():
        figure, axes = board(width, height + 1)
        grid(
            axes, cells, 0, 1, f"{op} of {argument}: which program",
            text=lambda n: "+" if n == MANY else blank(n),
            fill=lambda n: "#ffffff" if n == -3 else IDLE if n < 0 else _fill(n),
        )  # fmt: skip
    several, nobody = int((owners == MANY).sum()), int((owners == -1).sum())
    alt = (
        f"{op} of {argument}, {owners.size} elements in {height} rows: "
        f"{len(set(owners[owners >= 0]))} programs have elements of their own, "
        f"{several} elements belong to several, {nobody} to nobody. The first row "
        f"begins with {', '.join(map(_said, cells[0, :4]))}."
    )
    return Picture(figure, alt)


def sectors(trace: Trace, line: int | None = None) -> Picture:
    """Draw one warp's request: its lanes, and the sectors that they need.

    Args:
        trace: of a launch.
        line: in the source; the first that touches memory by default.

    Returns:
        The first request of the first program at that line. A row for each sector, a
        cell for each 4 bytes, with the lane that wants it.

    Raises:
        ValueError: nothing is touched at that line.
    """
    access = next(
        (a for a in trace.accesses if line in (None, a.line) and a.mask.any()), None
    )
    if access is None:
        where = "this launch" if line is None else f"line {line}"
        raise ValueError(f"{where} touches no memory")
    lane, start = _first_request(trace, access)
    first = start // warps.SECTOR
    last = (start + access.width - 1) // warps.SECTOR
    touched = np.unique(np.concatenate([first, last]))
    shown = touched[:TALLEST]
    words = warps.SECTOR // 4
    cells = np.full((shown.size, words), -1)
    for number, at in zip(lane, start, strict=True):
        row = np.searchsorted(shown, at // warps.SECTOR)
        if row < shown.size and shown[row] == at // warps.SECTOR:
            cells[row, at % warps.SECTOR // 4 :][: max(1, access.width // 4)] = number
    with style():
        figure, axes = board(words + 8, shown.size + 1, largest=0.3)
        grid(
            axes, cells, 7, 1, f"{access.op} of {access.argument}, line {access.line}",
            text=blank, fill=lambda n: IDLE if n < 0 else _fill(n // 8),
        )  # fmt: skip
        for row, sector in enumerate(shown):
            byte = int(sector) * warps.SECTOR - access.address
            axes.text(
                6.8, 1.5 + row, f"byte {byte:,}", ha="right", va="center", color=GREY
            )
    wanted = np.unique(start[:, None] + np.arange(access.width)).size
    more = f", {shown.size} of them drawn" if shown.size < touched.size else ""
    lanes = counted(np.unique(lane).size, "lane")
    brought = counted(touched.size, "sector")
    alt = (
        f"One request of {lanes} at line {access.line}: {brought} of {warps.SECTOR} "
        f"bytes{more}, in which {wanted} of {touched.size * warps.SECTOR} "
        f"bytes are wanted. Lane {lane[0]} wants byte {int(start[0]) - access.address}."
    )
    return Picture(figure, alt)


def _first_request(trace: Trace, access: Access) -> tuple[np.ndarray, np.ndarray]:
    """Lanes of the first request with one that isn't masked, and their addresses."""
    shape = access.offsets.shape
    where = access.offsets + access.address
    if access.offsets.size == 1:
        return np.zeros(1, np.int64), where.ravel()
    how = trace.layout(access) or warps.blocked(access, trace.num_warps, trace.lanes)
    group, lane = warps.groups(how, shape)
    mine = (group == group[access.mask].min()) & access.mask
    order = np.argsort(lane[mine], kind="stable")
    return lane[mine][order], where[mine][order]


def _fill(number: int) -> str:
    return FILLS[number % len(FILLS)]


def _said(owner: int) -> str:
    return {MANY: "several", -1: "nobody", -3: "nothing"}.get(owner, f"program {owner}")
