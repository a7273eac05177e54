"""Gluon's names that changed between Triton 3.6 and 3.9, under one name each."""

from triton.experimental.gluon.language.nvidia.ampere import async_copy
from triton.experimental.gluon.language.nvidia.hopper import tma

__all__ = ["async_copy_load", "async_load", "async_store"]

# Until 3.8 these were called by what they copy from and to.
async_load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
async_store = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global
# The older copy has the copy engine's names, in a module of its own.
async_copy_load = (
    getattr(async_copy, "async_load", None) or async_copy.async_copy_global_to_shared
)
