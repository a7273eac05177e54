"""What Proton and ncu write, in their forms: two small outputs with made-up times."""

import json


def _node(name: str, *children: dict, **metrics: float) -> dict:
    frame = {"name": name, "type": "function"}
    return {"frame": frame, "metrics": metrics, "children": list(children)}


def _kernel(name: str, us: float, count: int, **metrics: float) -> dict:
    return _node(name, **{"time (ns)": 1e3 * us, "count": count, **metrics})


PROTON = json.dumps(
    [
        _node(
            "ROOT",
            _node(
                "attention",
                _kernel("scores", 420.0, 2, flops16=2.2e11, bytes=1.2e8),
                _kernel("softmax", 160.0, 2, bytes=4.1e8),
            ),
            _node("mlp", _kernel("matmul", 910.0, 4, flops16=5.5e11, bytes=2.4e8)),
            _kernel("copy", 30.0, 6, bytes=2.0e7),
        ),
        {"CUDA": {"0": {"arch": "90", "num_sms": 132}}},
    ]
)
"""A tree of Proton's: a layer, twice."""

_WHO = '"{}","7","python3","host","{}","1","7","(128, 1, 1)","(4, 1, 1)","0","9.0",'
NCU = "\n".join(
    [
        "==PROF== Connected to process 7",
        '"ID","Process ID","Process Name","Host Name","Kernel Name","Context",'
        '"Stream","Block Size","Grid Size","Device","CC","gpu__time_duration.sum",'
        '"dram__throughput.avg.pct_of_peak_sustained_elapsed"',
        '"","","","","","","","","","","","ns","%"',
        _WHO.format(0, "slow_kernel") + '"1,234,000","12.5"',
        _WHO.format(1, "fast_kernel") + '"201,000","91.0"',
    ]
)
"""A table of ncu's: two launches."""
