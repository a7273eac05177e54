"""Pictures of the data: which elements one program touches, from a run of ours.

One function draws every puzzle. It runs our solution on a small shape under the
microscope, so offsets, masks and grid are those of the kernel. The picture is an SVG
in HTML whose colours are the page's, in light and in dark.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import torch

from tilebook import device, microscope
from tilebook.puzzles import solutions
from tilebook.puzzles.declare import Puzzle
from tilebook.puzzles.hinting import puzzle
from tilebook.testing.expect import as_arrays, copies

WIDTH = 340
"""Of a picture, in units that are pixels on a phone."""
CELL = 13.0
SMALL = 4.0
HEIGHT = 200
"""Of one tensor, unless its cells became smaller than `FINE`."""
FINE = 4.5
LABEL = 16.0
LETTER = 6.5
"""Width of a label's character, about."""
GAP = 6.0
BESIDE = 16.0
"""Between tensors on one line."""
READ = "var(--pst-color-secondary, #2b7bb0)"
WRITE = "var(--pst-color-primary, #c8662e)"
QUIET = "var(--pst-color-text-muted, #7d868e)"
OTHERS = "; grey is what other programs write"


@dataclass(frozen=True)
class Touched:
    """What the program that a picture follows does to one tensor, and others do.

    Args:
        name: the kernel's parameter without ``_ptr``.
        reads, writes: bool, the tensor's shape: what this program touches.
        others: int64, the tensor's shape: 1 or 2 where another program writes, so that
            neighbouring programs differ; else 0.
    """

    name: str
    reads: np.ndarray
    writes: np.ndarray
    others: np.ndarray

    def __str__(self) -> str:
        done = [
            f"{verb} {int(which.sum())}"
            for verb, which in (("reads", self.reads), ("writes", self.writes))
            if which.any()
        ]
        return f"{' and '.join(done) or 'touches none'} of the {self.reads.size}"


@dataclass(frozen=True)
class Picture:
    """A picture that a notebook shows.

    Args:
        html: a figure with an SVG and a line below it.
        tensors: what it shows.
    """

    html: str
    tensors: tuple[Touched, ...]

    def _repr_html_(self) -> str:
        return self.html


class _Watched:
    """A kernel that is looked at when a launch function launches it."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.look: microscope.Look | None = None

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(*args: Any, **meta: Any) -> None:
            self.look = microscope.look(
                self.kernel, grid, *args, raise_error=True, **meta
            )

        return launch


def looked(one: Puzzle, seed: int = 0) -> microscope.Look:
    """Run our solution on the shape that is drawn.

    Args:
        one: the puzzle.
        seed: of the inputs.

    Returns:
        What its launch did.
    """
    task = one.task
    values = task.inputs(np.random.default_rng(seed), one.drawn)
    dtype = task.dtypes[0]
    arrays = as_arrays(task.reference(**copies(values)))
    place = device.torch_device()
    outputs = [
        torch.full(a.shape, task.initial or 0, dtype=getattr(torch, name), device=place)
        for a, name in zip(arrays, task.out_dtypes(arrays, dtype), strict=True)
    ]
    kernel = _Watched(getattr(solutions, one.kernel))
    task.launch(kernel, *outputs, **on_device(values, dtype))
    return kernel.look


def on_device(values: dict[str, Any], dtype: str) -> dict[str, Any]:
    """Put arrays where kernels run, floating ones in a dtype.

    Args:
        values: arrays and others by name.
        dtype: name of a floating dtype.

    Returns:
        The same with tensors in place of arrays.
    """
    placed = {}
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(np.ascontiguousarray(value))
            if value.is_floating_point():
                value = value.to(getattr(torch, dtype))
            value = value.to(device.torch_device())
        placed[name] = value
    return placed


def touched(look: microscope.Look, program: tuple[int, int, int]) -> Iterator[Touched]:
    """Say for each tensor of a launch what one program and the others touch.

    Args:
        look: the launch; its tensors are contiguous.
        program: the indices of the one.

    Yields:
        In the order of the kernel's parameters.
    """
    for name, tensor in look.arguments.items():
        size = int(np.prod(tensor.shape))
        reads, writes = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
        others = np.zeros(size, dtype=np.int64)
        for access in look.accesses:
            if access.argument != name:
                continue
            if access.program != program and access.op != "load":
                others[access.touched()] = 1 + sum(access.program) % 2
            elif access.program == program:
                (reads if access.op == "load" else writes)[access.touched()] = True
        parts = (part.reshape(tensor.shape) for part in (reads, writes, others))
        yield Touched(name.removesuffix("_ptr"), *parts)


def panels(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Matrices side by side that show a tensor: how many, and their sides."""
    rows, columns = (1, 1, *shape)[-2:]
    return int(np.prod(shape[:-2], dtype=np.int64)), rows, columns


@dataclass(frozen=True)
class Grid:
    """Where the cells of one tensor lie in a picture.

    Args:
        shape: the tensor's.
        top: where it begins.
        size: side of a cell.
        left: where it begins from the left.
    """

    shape: tuple[int, ...]
    top: float
    size: float
    left: float = 0.0

    @property
    def right(self) -> float:
        """Where the widest line of matrices ends."""
        count, _, columns = panels(self.shape)
        wide = min(count, self._per_line) * (columns * self.size + GAP) - GAP
        return self.left + 1 + wide

    @property
    def bottom(self) -> float:
        """Where the last line of matrices ends."""
        count, rows, _ = panels(self.shape)
        lines = -(-count // self._per_line)
        return self.top + lines * (rows * self.size + GAP) - GAP

    @property
    def _per_line(self) -> int:
        wide = panels(self.shape)[2] * self.size + GAP
        return max(1, int((WIDTH + GAP) // wide))

    def corner(self, panel: int) -> tuple[float, float]:
        """Upper left corner of a matrix."""
        _, rows, columns = panels(self.shape)
        line, turn = divmod(panel, self._per_line)
        x = self.left + 1 + turn * (columns * self.size + GAP)
        return x, self.top + line * (rows * self.size + GAP)

    def lines(self) -> str:
        """A path of the lines between cells and around them."""
        count, rows, columns = panels(self.shape)
        size, path = self.size, []
        for x, y in map(self.corner, range(count)):
            across, down = f"h{columns * size:.1f}", f"v{rows * size:.1f}"
            path += [
                f"M{x:.1f} {y + row * size:.1f}{across}" for row in range(rows + 1)
            ]
            path += [f"M{x + at * size:.1f} {y:.1f}{down}" for at in range(columns + 1)]
        return "".join(path)

    def runs(self, mask: np.ndarray) -> str:
        """A path around cells, neighbours in a row together."""
        size, path = self.size, []
        for panel, matrix in enumerate(self._matrices(mask)):
            x, y = self.corner(panel)
            for row, cells in enumerate(matrix):
                edges = np.flatnonzero(np.diff(cells, prepend=False, append=False))
                for first, end in edges.reshape(-1, 2).tolist():
                    wide = (end - first) * size
                    path.append(
                        f"M{x + first * size:.1f} {y + row * size:.1f}"
                        f"h{wide:.1f}v{size:.1f}h{-wide:.1f}z"
                    )
        return "".join(path)

    def dots(self, mask: np.ndarray) -> str:
        """A path of points amid cells, for a round pen."""
        size, path = self.size, []
        for panel, matrix in enumerate(self._matrices(mask)):
            x, y = self.corner(panel)
            for row, column in np.argwhere(matrix).tolist():
                at = x + (column + 0.5) * size, y + (row + 0.5) * size
                path.append(f"M{at[0]:.1f} {at[1]:.1f}h0")
        return "".join(path)

    def _matrices(self, mask: np.ndarray) -> np.ndarray:
        return mask.reshape(panels(self.shape))


def label(tensor: Touched) -> str:
    """A tensor's name and shape."""
    shape = ", ".join(map(str, tensor.reads.shape))
    comma = "," if tensor.reads.ndim == 1 else ""
    return f"{tensor.name} ({shape}{comma})"


def placed(tensors: tuple[Touched, ...], size: float) -> Iterator[Grid]:
    """Say where tensors lie, side by side while a line has room; labels are above."""
    left, top, bottom = 0.0, LABEL, 0.0
    for tensor in tensors:
        grid = Grid(tensor.reads.shape, top, size, left)
        wide = max(grid.right - left, len(label(tensor)) * LETTER)
        if left and left + wide > WIDTH:
            left, top = 0.0, bottom + GAP + LABEL
            grid = Grid(tensor.reads.shape, top, size, left)
        yield grid
        left += wide + BESIDE
        bottom = max(bottom, grid.bottom)


def tensor_svg(tensor: Touched, grid: Grid) -> str:
    """Draw one tensor.

    Args:
        tensor: what is touched of it.
        grid: where its cells lie.

    Returns:
        SVG elements.
    """
    size, free = grid.size, ~tensor.writes
    # Dots in small cells could not be told apart.
    reads = (
        (grid.dots(tensor.reads), f'stroke="{READ}" stroke-width="{0.45 * size:.1f}" ')
        if size > SMALL
        else (grid.runs(tensor.reads), f'fill="{READ}" fill-opacity="0.6" ')
    )
    layers = (
        (grid.runs((tensor.others == 1) & free), f'fill="{QUIET}" fill-opacity="0.25"'),
        (grid.runs((tensor.others == 2) & free), f'fill="{QUIET}" fill-opacity="0.5"'),
        (grid.runs(tensor.writes), f'fill="{WRITE}"'),
        (grid.lines(), f'stroke="{QUIET}" stroke-width="0.4" fill="none"'),
        (reads[0], reads[1] + 'stroke-linecap="round"'),
    )
    parts = [
        f'<text x="{grid.left + 1:.0f}" y="{grid.top - 4:.0f}" font-size="12" '
        f'fill="currentColor">{escape(label(tensor))}</text>'
    ]
    parts += [f'<path d="{path}" {style}/>' for path, style in layers if path]
    return "".join(parts)


def draw(name: str) -> Picture:
    """Draw what one program of a puzzle's grid reads and writes.

    Args:
        name: the puzzle's, such as ``"puzzle-08"``.

    Returns:
        The picture; a notebook shows it.

    Raises:
        LookupError: there is no such puzzle.
    """
    one = puzzle(name)
    look = looked(one)
    tensors = tuple(touched(look, one.shown))
    sides = [panels(tensor.reads.shape)[1:] for tensor in tensors]
    size = min(max(HEIGHT / max(m for m, _ in sides), FINE), CELL)
    size = min(size, (WIDTH - 2) / max(n for _, n in sides))
    grids = tuple(placed(tensors, size))
    drawn = "".join(map(tensor_svg, tensors, grids))
    bottom = max(where.bottom for where in grids) + GAP
    axes = max(axis + 1 for axis in range(3) if look.grid[axis] > 1 or axis == 0)
    grid, program = (
        f"({', '.join(map(str, index[:axes]))}{',' if axes == 1 else ''})"
        for index in (look.grid, one.shown)
    )
    done = "; ".join(f"{t} elements of {t.name}" for t in tensors)
    said = f"Program {program} of the grid {grid}: {done}."
    grey = OTHERS if any(t.others[~t.writes].any() for t in tensors) else ""
    mark = '<span aria-hidden="true" style="color:{}">{}</span>'
    html = (
        '<figure class="puzzle-picture" style="margin:0.5rem 0">'
        f'<svg viewBox="0 0 {WIDTH} {bottom:.0f}" role="img" '
        f'aria-label="{escape(said)}" style="width:100%;max-width:30rem;height:auto;'
        f'display:block">{drawn}</svg>'
        f"<figcaption>Program {program} of the grid {grid}: "
        f"{mark.format(READ, '●')}&nbsp;reads, {mark.format(WRITE, '■')}&nbsp;writes"
        f"{grey}.</figcaption></figure>"
    )
    return Picture(html, tensors)
