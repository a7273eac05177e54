"""Send kernels to another process as source, with everything they refer to.

A kernel decorated under the interpreter can't be compiled, and a compiled one can't be
interpreted: Triton decides when it decorates. So a kernel travels as the source of its
function and is decorated again where it arrives. With it travel the helper kernels,
constants and modules its code names, found as the compiler finds them: by name, in the
closure and then in the globals. Kernels of notebook cells and test functions therefore
travel as well as importable ones, and an edited module is never confused with the file
on disk.
"""

from tilebook._ship.kernels import is_kernel, kernel_name, source_of, unwrap
from tilebook._ship.pack import Pointer, contents, dumps
from tilebook._ship.unpack import loads, overwrite

__all__ = [
    "Pointer",
    "contents",
    "dumps",
    "is_kernel",
    "kernel_name",
    "loads",
    "overwrite",
    "source_of",
    "unwrap",
]
