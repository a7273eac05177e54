"""Gluon's names that changed between Triton 3.6 and 3.9, under the newer ones."""

from triton.experimental.gluon.language.nvidia.hopper import tma

__all__ = ["async_load", "async_store"]

# Until 3.8 these were called by what they copy from and to.
async_load = getattr(tma, "async_load", None) or tma.async_copy_global_to_shared
async_store = getattr(tma, "async_store", None) or tma.async_copy_shared_to_global
