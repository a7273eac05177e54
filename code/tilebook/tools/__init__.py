"""Tools: which program touched what, what an error means, and where the time went.

* `trace`: the addresses of a launch; `tracing`: those of every launch inside a block.
* `dictionary`: messages, each provoked; their causes and mends.
"""

from tilebook.tools import dictionary
from tilebook.tools.tracer import Trace, trace, tracing

__all__ = ["Trace", "dictionary", "trace", "tracing"]
