"""Reductions over a dimension or all elements, for use: any strides, a gradient.

* `sum`, `mean`: a sum for each lane, and lanes meet once.
* `var`: Welford's recurrence, merged by Chan's formula. `variances` has other formulas.
* `argmax`, `logsumexp`: a lane keeps what it needs to be merged.
* `topk`: the k best are in the k groups whose best are the best.
"""

from tilebook.softmax.exponentials import logsumexp
from tilebook.softmax.extremes import argmax
from tilebook.softmax.moments import var
from tilebook.softmax.sums import mean, sum
from tilebook.softmax.topk import topk
from tilebook.softmax.variances import var_naive, var_two_pass, var_welford

__all__ = [
    "argmax",
    "logsumexp",
    "mean",
    "sum",
    "topk",
    "var",
    "var_naive",
    "var_two_pass",
    "var_welford",
]
