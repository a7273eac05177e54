"""Gradients of wide heads in one kernel for Hopper, in orders that barriers allow."""

import itertools

import pytest
import torch
import triton

from tilebook import compile_only, schedules, testing
from tilebook import device as here
from tilebook.attention import (
    backward_blocks,
    backward_fits,
    backward_trades,
    backward_wide,
    launching,
    reference,
    ways,
)
from tilebook.attention import backward_trials as trials
from tilebook.attention.backward_trials import assert_right
from tilebook.attention.backward_wide import Config
from tilebook.attention.gradients import Gradient
from tilebook.attention.operands import Task
from tilebook.matmul.evidence import launches

BF16, FP16 = torch.bfloat16, torch.float16
# Batches, heads, heads of keys, queries, keys, columns; causal.
CASES = (
    *((1, 2, 1, 200, 200, 136, True), (2, 2, 2, 130, 90, 256, False)),
    *((1, 1, 1, 64, 150, 192, True), (1, 2, 1, 200, 70, 256, True)),
    *((1, 3, 1, 1, 1, 248, False), (1, 4, 2, 65, 127, 160, False)),
)


def gradient_for(case, dtype=BF16, device="cpu"):
    return trials.gradient_for(case, dtype, device)


def scheduled(asked, config, seed):
    return trials.scheduled(backward_wide.launch, asked, config, seed)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_any_order_gives_gradients(case):
    for seed, piece in itertools.product((0, 1), (16, 32)):
        torch.manual_seed(seed)
        asked = gradient_for(case, (BF16, FP16)[seed])
        scheduled(asked, Config(2, piece), 10 * piece + seed)
        assert_right(asked)
