"""What runs under `ncu`: a function, once to compile, once to be profiled."""

import importlib
import json
import operator
import sys
from collections.abc import Sequence

import torch


def main(arguments: Sequence[str]) -> None:
    """Import a function, warm it up, and call it between the profiler's marks.

    Args:
        arguments: module, name, and the function's arguments in JSON.
    """
    module, name, given = arguments
    fn = operator.attrgetter(name)(importlib.import_module(module))
    args = json.loads(given)
    fn(*args)
    torch.cuda.synchronize()
    torch.cuda.profiler.start()
    fn(*args)
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
