"""Measurements: made where there is a GPU, read from the record where there is none.

A chapter's ``experiments.py`` declares what is measured (`experiment`), which numbers
prose quotes from it (`value`) and what it concludes (`claim`). `run` measures or reads,
`load` only reads; both return a `Record`. `Bench` holds the protocol.
"""

import importlib
from typing import Any

from . import roofline
from .errors import RecordError, TimingError, UnknownExperiment, WrongResult
from .lock import gpu_alone
from .record import Ratio, Record, Row, ratio
from .records import PREFERRED, RECORDS, committed, gpus, load, stale
from .registry import (
    Claim,
    Experiment,
    claim,
    claims,
    experiment,
    experiments,
    find,
    value,
    values,
)
from .roofline import Roof

__all__ = [
    "PREFERRED",
    "RECORDS",
    "Bench",
    "Budget",
    "Claim",
    "Experiment",
    "Provider",
    "Ratio",
    "Record",
    "RecordError",
    "Roof",
    "Row",
    "Timing",
    "TimingError",
    "UnknownExperiment",
    "WrongResult",
    "claim",
    "claims",
    "committed",
    "compiled",
    "experiment",
    "experiments",
    "find",
    "gpu_alone",
    "gpus",
    "load",
    "plots",
    "ratio",
    "roofline",
    "run",
    "stale",
    "time_cold",
    "time_host",
    "time_steady",
    "value",
    "values",
]

# What measures needs torch, what draws needs matplotlib; who only reads waits for
# neither.
_LATER = {
    "Bench": "bench",
    "Budget": "timing",
    "Provider": "provider",
    "Timing": "timing",
    "compiled": "provider",
    "plots": "",
    "run": "runner",
    "time_cold": "timing",
    "time_host": "timing",
    "time_steady": "timing",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f".{_LATER[name] or name}", __name__)
    return getattr(module, name) if _LATER[name] else module
