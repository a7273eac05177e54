"""A compiler: from Python to text that Triton turns into machine code.

What this chapter builds, in the order in which a program goes through it:

* `syntax`: a Python function as a tree with line numbers; `program` marks one.
* `language`: the words it may call; `types`: numbers, pointers and tiles.
* `ssa`: operations that set each value once; `emit` and `intrinsics` append them.
* `expressions`: names, arithmetic and calls; `build`: statements, and loops that carry
  what they change.
* `text`: writes TTIR; `launching`: hands it to Triton for any GPU, and runs it on one.
* `evaluator`: runs the operations over NumPy arrays instead.

`kernels` has three programs to try it with.
"""

from tilebook.compiler.build import lower
from tilebook.compiler.evaluator import evaluate
from tilebook.compiler.launching import compile, launch
from tilebook.compiler.syntax import CompileError, Program, program
from tilebook.compiler.text import ttir
from tilebook.compiler.types import Pointer

__all__ = [
    "CompileError",
    "Pointer",
    "Program",
    "compile",
    "evaluate",
    "launch",
    "lower",
    "program",
    "ttir",
]
