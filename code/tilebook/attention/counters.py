"""Counters of tiles, for programs that ask which is next."""

import torch

_counters: dict[tuple[int, int], torch.Tensor] = {}


def counter_on(where: torch.device) -> torch.Tensor:
    """Return a counter for tiles, at 0: a kernel that counts sets it back.

    On a stream kernels follow one another, and share one. What is captured in a graph
    may be replayed on any: it has its own, set to 0 in the graph.

    Args:
        where: the device.
    """
    if where.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return torch.zeros(1, dtype=torch.int32, device=where)
    stream = torch.cuda.current_stream(where)
    key = (stream.device_index, stream.cuda_stream)
    if key not in _counters:
        _counters[key] = torch.zeros(1, dtype=torch.int32, device=where)
    return _counters[key]
