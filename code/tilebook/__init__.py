"""Thinking in Tiles: every kernel of the book, importable, tested and measured.

Importing this package where there is no GPU switches Triton's interpreter on and
repairs it (see `tilebook.interpreter`); nothing here touches a GPU at import time.
"""

from tilebook import interpreter as _interpreter

__version__ = "0.1.0"

_interpreter.enable_without_gpu()
