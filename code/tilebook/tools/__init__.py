"""Tools: which program touched what, what an error means, and where the time went.

* `trace`: the addresses of a launch; `tracing`: those of every launch inside a block.
"""

from tilebook.tools.tracer import Trace, trace, tracing

__all__ = ["Trace", "trace", "tracing"]
