"""Thinking in Tiles: the kernels of the book, importable."""
