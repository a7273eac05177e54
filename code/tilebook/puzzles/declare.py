"""A puzzle: a task that `check` can judge, and all that a reader sees of it.

Like the tasks themselves this needs NumPy only.
"""

from dataclasses import dataclass

from tilebook.testing import Exercise

Shape = tuple[int, ...]

LEAST = 16
"""Roundings that exponentials and quotients of a GPU may be worth, at any length."""
STUB_COLUMNS = 80
TILE = ("BLOCK_M", "BLOCK_N")
"""The sides of a tile, as parameters."""


@dataclass(frozen=True, kw_only=True)
class Puzzle:
    """One puzzle.

    Args:
        title: a few words.
        task: what `check` judges; its kernel's constexprs are in capitals.
        formula: what is to be computed, in TeX.
        data: a line for each input and output: name, shape, dtype, what else holds.
        grid: the programs that are launched, and what each is for.
        hints: from a nudge to nearly everything.
        sizes: what a case's shape is made of, where no tensor has that shape.
        kernels: names in `tilebook.puzzles.solutions`, the asked one last.
        friendly: the shape on which a weak test would try a kernel.
        drawn: a small shape, for the picture.
        shown: the program that the picture follows.
        chapter: stem of the chapter that goes on from here, or None.
    """

    title: str
    task: Exercise
    formula: str
    data: tuple[str, ...]
    grid: str
    hints: tuple[str, ...]
    kernels: tuple[str, ...]
    friendly: Shape
    drawn: Shape
    shown: tuple[int, int, int] = (0, 0, 0)
    chapter: str | None = None
    sizes: str = ""

    @property
    def name(self) -> str:
        """What `check` knows it by, such as ``"puzzle-08"``."""
        return self.task.name

    @property
    def number(self) -> int:
        """Its place among the puzzles, from 1."""
        return int(self.name.rpartition("-")[2])

    @property
    def kernel(self) -> str:
        """The name of the kernel that is asked for."""
        return self.kernels[-1]

    @property
    def stub(self) -> str:
        """Python that defines the kernel without doing anything."""
        words = [f"{p}: tl.constexpr" if p.isupper() else p for p in self._parameters]
        lines, line = [], ""
        for word in words:
            if line and len(line) + len(word) + 7 > STUB_COLUMNS:
                lines.append(line)
                line = ""
            line += f"{', ' if line else ''}{word}"
        lines.append(line)
        if len(lines) == 1 and len(self.kernel) + len(line) + 7 <= STUB_COLUMNS:
            head = f"def {self.kernel}({line}):"
        else:
            head = f"def {self.kernel}(\n    " + ",\n    ".join(lines) + ",\n):"
        return f"@triton.jit\n{head}\n    pass  # your lines\n"

    @property
    def _parameters(self) -> tuple[str, ...]:
        return tuple(self.task.parameters)


def block(n: int) -> int:
    """Elements of a chunk: another number for neighbouring lengths, so none is safe."""
    return 16 << n % 3


def whole(n: int) -> int:
    """The power of two that holds a row, at least 2."""
    return 1 << max(1, n - 1).bit_length()


def blocks(m: int, n: int) -> dict[str, int]:
    """Sides of a tile: never the same two, and other ones for odd sizes."""
    return {"BLOCK_M": 16 >> m % 2, "BLOCK_N": 32 >> n % 2}


def cdiv(n: int, size: int) -> int:
    """Blocks of a size that hold n elements."""
    return -(-n // size)
