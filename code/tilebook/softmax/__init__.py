"""Softmax and the reductions on the way to it."""
