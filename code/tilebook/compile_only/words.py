"""Machine code of NVIDIA GPUs as numbers, read in a thousandth of nvdisasm's time.

Since sm_70 an instruction is 128 bits, whose lowest twelve name the operation and its
form. NVIDIA documents neither; that what is read here agrees with nvdisasm is tested
for every architecture this book compiles for.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

_OPERATION = 0xFFF
_NOP = 0x918
_BRANCH = 0x947
_ADD_CONSTANT = 0x836
_PACKED = 1 << 9
# Minus one instruction, in the fields for it: in bytes, since sm_90 in quarters of that
# with the lowest eight bits elsewhere.
_TO_ITSELF = (0xFFFF_FFF0_0000, 0xFFFF_FFFC_00FC)
_BACKWARDS = 0x3FFFF


class Word(NamedTuple):
    """An instruction: its lower and its upper 64 bits."""

    low: int
    high: int

    @property
    def fills(self) -> bool:
        """Whether it only fills a function's end: a NOP, or a branch to itself."""
        operation = self.low & _OPERATION
        if operation != _BRANCH:
            return operation == _NOP
        back = self.high & _BACKWARDS == _BACKWARDS
        return back and self.low >> 16 in _TO_ITSELF

    @property
    def adds_nothing(self) -> bool:
        """Whether it is VIADD.16x2 with a constant of zero."""
        packed = self.low & _OPERATION == _ADD_CONSTANT and self.high & _PACKED
        return bool(packed) and not self.low >> 32


def instructions(cubin: bytes) -> Iterator[Word]:
    """Yield the instructions of a binary, but for what fills its functions' ends.

    Args:
        cubin: an NVIDIA binary for sm_70 or newer, an ELF file of 64 bits.

    Raises:
        ValueError: it is no such file.
    """
    for code in _sections(cubin, ".text."):
        for word in struct.iter_unpack("<QQ", code):
            if not (found := Word(*word)).fills:
                yield found


def _sections(file: bytes, prefix: str) -> Iterator[bytes]:
    """Yield the contents of an ELF file's sections whose names start so."""
    if file[:6] != b"\x7fELF\x02\x01":
        raise ValueError("the binary is no ELF file of 64 bits, low byte first")
    (table,) = struct.unpack_from("<Q", file, 0x28)
    size, count, names = struct.unpack_from("<HHH", file, 0x3A)
    headers = [
        struct.unpack_from("<IIQQQQ", file, table + i * size) for i in range(count)
    ]
    name_at = headers[names][4]
    for name, _, _, _, offset, length in headers:
        if file.startswith(prefix.encode(), name_at + name):
            yield file[offset : offset + length]
