"""Tools: which program touched what, what an error means, and where the time went.

* `trace`: the addresses of a launch; `tracing`: those of every launch inside a block.
* `dictionary`: messages, each provoked; their causes and mends.
* `proton`: reads what Triton's profiler writes, without its viewer.
* `counters`: Nsight Compute's, by one call; `nsight` reads and draws them.
* `sass`: machine code: widths, products, spills, who waits for whom.
* `case`: a kernel from symptom to fix, step by step.
"""

from tilebook.tools import case, dictionary, nsight, proton, sass
from tilebook.tools.nsight import counters
from tilebook.tools.tracer import Trace, trace, tracing

__all__ = [
    "Trace",
    "case",
    "counters",
    "dictionary",
    "nsight",
    "proton",
    "sass",
    "trace",
    "tracing",
]
