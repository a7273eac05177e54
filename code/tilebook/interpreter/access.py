"""What an observer is told of an access, and of one that strays."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Access:
    """One load, store or atomic of one program, as `observing` reports it.

    A kernel may cast a pointer to another type, so that a lane touches a part of an
    element or several of them: `offsets` and `width` say which bytes.

    Attributes:
        op: "load", "store" or "atomic".
        argument: the name of the kernel's argument, or of an allowed tensor.
        program: the program's three indices.
        address: of the argument's first byte, where the kernel ran.
        itemsize: bytes of one element of the argument.
        offsets: int64, the block's shape; where each lane begins, in bytes from the
            argument's first.
        width: bytes that each lane touches: those of the pointer's type.
        mask: bool, same shape; False where the lane touches nothing.
        line: the line in the kernel's source file.
        values: what was loaded, stored, or handed to the atomic; bfloat16 as float32.
        file: that source file, as Python names it.
    """

    op: str
    argument: str
    program: tuple[int, int, int]
    address: int
    itemsize: int
    offsets: np.ndarray
    width: int
    mask: np.ndarray
    line: int
    values: np.ndarray
    file: str = ""

    @property
    def elements(self) -> np.ndarray:
        """The element in which each lane begins.

        int64, the block's shape; indices counted from the argument's first element, in
        its strides' units. Through a wider pointer a lane goes on into the next ones,
        and through a narrower one several lanes share an element: see `touched`.
        """
        return self.offsets // self.itemsize

    def touched(self) -> np.ndarray:
        """List the elements that active lanes touch, in whole or in part.

        Returns:
            int64, one entry for each lane and element; indices as in `elements`.
        """
        return self.cells(self.itemsize)

    def cells(self, size: int, start: int | None = None) -> np.ndarray:
        """Cut memory into cells of equal size and list those that lanes touch.

        Args:
            size: of a cell, in bytes; 1 lists the bytes themselves.
            start: the address where cell 0 begins; the argument's first byte if None.

        Returns:
            int64, one number for each active lane and cell, lane by lane.
        """
        first = self.offsets[self.mask] + (0 if start is None else self.address - start)
        last = (first + self.width - 1) // size
        cells = first // size
        # Lanes that straddle a boundary touch one cell more than others.
        reach = np.arange(1 + int((last - cells).max(initial=0)))
        cells = cells[:, None] + reach
        return cells[cells <= last[:, None]]


@dataclasses.dataclass(frozen=True)
class Stray:
    """Lanes of one access that would leave every tensor, as `straying` reports them.

    Attributes:
        op: "load", "store" or "atomic".
        argument: the kernel's argument that the pointers came from; None if unknown.
        program: the program's three indices.
        line: the line in the kernel's source file.
        elements: int64, where those lanes would begin, in elements from the argument's
            first; byte addresses if the argument is unknown.
        count: elements that the argument has; 0 if it is unknown.
        inside: the argument whose memory the first of them would touch, or None.
    """

    op: str
    argument: str | None
    program: tuple[int, int, int]
    line: int
    elements: np.ndarray
    count: int
    inside: str | None

    def __str__(self) -> str:
        count = "1 element" if self.count == 1 else f"{self.count} elements"
        first = int(self.elements.flat[0])
        if self.argument is None:
            problem = f"{self.op} at address {first:#x}, inside no argument"
        else:
            problem = f"{self.op} of {self.argument}[{first}], which has {count}"
        hint = f" (that memory is {self.inside})" if self.inside else ""
        where = f"program {self.program}, line {self.line}"
        return f"{where}: {problem}{hint}"
