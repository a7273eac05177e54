"""The chapter's pictures, each drawn from what a real launch touched.

Every function launches a rung's kernel under the microscope, on few elements, and draws
the offsets and masks that it saw. Numbers stand in the cells, so that no picture needs
its colours to be told apart.
"""

from typing import NamedTuple

import numpy as np
import torch
import triton
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from tilebook import check, microscope
from tilebook.measure.palette import GREY, Drawing, style
from tilebook.parallel import masked, strided

# Okabe and Ito's colours, light enough for black digits.
FILLS = ("#56b4e9", "#e69f00", "#6fc8a4", "#f0e442", "#cc99bb", "#d5a27c")
IDLE = "#b0b0b0"
INK = "#000000"


class Picture(NamedTuple):
    """A figure, and in words what it shows."""

    figure: Drawing
    alt: str


def _vectors(n: int) -> list[torch.Tensor]:
    return [torch.arange(n, dtype=torch.float32) for _ in range(2)] + [torch.zeros(n)]


def _fill(program: int) -> str:
    return FILLS[program % len(FILLS)]


def _cell(axes: Axes, x: float, y: float, text: str, fill: str, **kind: object) -> None:
    axes.add_patch(Rectangle((x, y), 1, 1, facecolor=fill, edgecolor=GREY, **kind))
    axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", color=INK, fontsize=7)


def _board(width: float, height: float) -> tuple[Drawing, Axes]:
    """Make a figure whose axes have square cells and no frame."""
    cell = min(0.5, 8 / width)
    figure = Drawing(figsize=(cell * width, cell * height), layout="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, width + 0.1)
    axes.set_ylim(height + 0.1, -0.1)
    axes.set_aspect("equal")
    axes.set_axis_off()
    return figure, axes


def _label(axes: Axes, x: float, y: float, text: str, **kind: object) -> None:
    kind = {"ha": "right", "va": "center", "color": GREY, "fontsize": 8} | kind
    axes.text(x, y, text, **kind)


def ownership(n: int = 29, block: int = 8) -> Picture:
    """Draw which program of `masked` writes each element of the output.

    Args:
        n: elements.
        block: elements per program.

    Returns:
        One row of cells, the program's number in each, under a bracket per program.
    """
    check.positive_int(n, "n")
    programs = triton.cdiv(n, block)
    look = microscope.look(
        masked.add_kernel, (programs,), *_vectors(n), n, BLOCK=block, raise_error=True
    )
    owners = look.ownership("out_ptr")
    with style():
        figure, axes = _board(n + 4, 3)
        _label(axes, 3.6, 1.5, "program")
        _label(axes, 3.6, 2.5, "element")
        for i, owner in enumerate(owners):
            _cell(axes, 4 + i, 1, str(owner), _fill(owner))
            _label(axes, 4.5 + i, 2.5, str(i), ha="center", fontsize=7)
    counts = np.bincount(owners, minlength=programs)
    shares = ", ".join(
        f"program {p} writes {count} elements from {int(np.argmax(owners == p))} on"
        for p, count in enumerate(counts)
    )
    return Picture(figure, f"A row of {n} elements in tiles of {block}: {shares}.")


def ragged_end(n: int = 29, block: int = 8) -> Picture:
    """Draw the lanes of the last program of `masked`: offset, mask, what it loads.

    Args:
        n: elements, no multiple of `block`.
        block: elements per program.

    Returns:
        Three rows of cells, one column per lane.

    Raises:
        ValueError: the last tile isn't ragged.
    """
    if not n % block:
        raise ValueError(f"n must not be a multiple of {block}, got {n}")
    last = n // block
    look = microscope.look(
        masked.add_kernel, (last + 1,), *_vectors(n), n, BLOCK=block, raise_error=True
    )
    load = next(
        a for a in look.accesses if a.argument == "x_ptr" and a.program[0] == last
    )
    lanes = list(zip(load.elements.ravel(), load.mask.ravel(), strict=True))
    with style():
        figure, axes = _board(block + 4, 3)
        for row, name in enumerate(("offs", "mask", "x")):
            _label(axes, 3.6, row + 0.5, name)
        for lane, (element, inside) in enumerate(lanes):
            fill = _fill(last) if inside else IDLE
            hatch = None if inside else "///"
            loaded = f"x[{element}]" if inside else "other"
            texts = (str(element), "yes" if inside else "no", loaded)
            for row, text in enumerate(texts):
                _cell(axes, 4 + lane, row, text, fill, hatch=hatch)
    inside = int(load.mask.sum())
    alt = (
        f"The {block} lanes of program {last} for {n} elements: offsets {lanes[0][0]} "
        f"to {lanes[-1][0]}. The mask is true for the first {inside}; the other "
        f"{block - inside} touch no memory and hold the value of other."
    )
    return Picture(figure, alt)


def striding(n: int = 44, block: int = 4, programs: int = 3) -> Picture:
    """Draw which program of `strided` takes each tile, and in which of its steps.

    Args:
        n: elements.
        block: elements per tile.
        programs: how many programs there are.

    Returns:
        One row of cells per step, each under the elements it covers.
    """
    look = microscope.look(
        strided.add_kernel,
        (programs,),
        *_vectors(n),
        n,
        BLOCK=block,
        raise_error=True,
    )
    taken: dict[int, int] = {}
    tiles = []
    for access in look.accesses:
        if access.op == "store":
            program = access.program[0]
            step = taken.setdefault(program, 0)
            taken[program] += 1
            tiles.append((step, program, access.elements[access.mask]))
    steps = max(taken.values())
    with style():
        figure, axes = _board(n + 4, steps + 1)
        for step in range(steps):
            _label(axes, 3.6, step + 0.5, f"step {step}")
        for step, program, elements in tiles:
            for element in elements:
                _cell(axes, 4 + element, step, str(program), _fill(program))
        for i in range(0, n, block):
            _label(axes, 4.5 + i, steps + 0.5, str(i), ha="center", fontsize=7)
    alt = (
        f"{programs} programs stride over {n} elements in tiles of {block}. In every "
        f"step the programs take {programs} tiles side by side, program 0 the first; "
        f"then all move on by {programs * block} elements. There are {steps} steps."
    )
    return Picture(figure, alt)


def waves(programs: int = 20, sms: int = 8, per_sm: int = 1) -> Picture:
    """Draw programs of equal length on the multiprocessors of a GPU, wave by wave.

    Args:
        programs: how many there are.
        sms: multiprocessors.
        per_sm: programs that one multiprocessor runs at a time.

    Returns:
        Time downwards, one column per place that a program can run in. Programs are
        handed out in the order of their numbers, which hardware doesn't promise.
    """
    for name, value in (("programs", programs), ("sms", sms), ("per_sm", per_sm)):
        check.positive_int(value, name)
    places = sms * per_sm
    rounds = triton.cdiv(programs, places)
    idle = rounds * places - programs
    with style():
        figure, axes = _board(places + 4, rounds + 1)
        for sm in range(sms):
            _label(axes, 4 + (sm + 0.5) * per_sm, 0.5, f"SM {sm}", ha="center")
        for wave in range(rounds):
            _label(axes, 3.6, wave + 1.5, f"wave {wave}")
            for place in range(places):
                program = wave * places + place
                runs = program < programs
                fill = _fill(wave) if runs else "none"
                _cell(axes, 4 + place, wave + 1, str(program) if runs else "", fill)
    alt = (
        f"{programs} programs on {sms} multiprocessors, {per_sm} at a time on each: "
        f"{rounds} waves, in the last of which {idle} of {places} places stay empty."
    )
    return Picture(figure, alt)
