"""Our solutions: a kernel for each puzzle, and the functions that two of them need."""

from tilebook.puzzles.solutions.choosing import (
    argmax_kernel,
    bitonic_kernel,
    top_k_kernel,
)
from tilebook.puzzles.solutions.chunks import (
    row_sums_kernel,
    scalar_attention_kernel,
    softmax_kernel,
)
from tilebook.puzzles.solutions.finals import (
    attention_kernel,
    layer_norm_gradient_kernel,
    split_k_kernel,
)
from tilebook.puzzles.solutions.pointwise import (
    add_ten_blocks_kernel,
    add_ten_kernel,
    outer_relu_kernel,
    outer_sum_kernel,
    outer_sum_tiles_kernel,
    relu_gradient_kernel,
)
from tilebook.puzzles.solutions.products import (
    correlation_kernel,
    packed_product_kernel,
    products_kernel,
)
from tilebook.puzzles.solutions.rearranging import (
    histogram_kernel,
    nibbles_kernel,
    rotary_kernel,
    transpose_kernel,
)
from tilebook.puzzles.solutions.scanning import (
    causal_kernel,
    compaction_kernel,
    joined_segments,
    joined_steps,
    prefix_sum_kernel,
    recurrence_kernel,
    segmented_sum_kernel,
)

__all__ = [
    "add_ten_blocks_kernel",
    "add_ten_kernel",
    "argmax_kernel",
    "attention_kernel",
    "bitonic_kernel",
    "causal_kernel",
    "compaction_kernel",
    "correlation_kernel",
    "histogram_kernel",
    "joined_segments",
    "joined_steps",
    "layer_norm_gradient_kernel",
    "nibbles_kernel",
    "outer_relu_kernel",
    "outer_sum_kernel",
    "outer_sum_tiles_kernel",
    "packed_product_kernel",
    "prefix_sum_kernel",
    "products_kernel",
    "recurrence_kernel",
    "relu_gradient_kernel",
    "rotary_kernel",
    "row_sums_kernel",
    "scalar_attention_kernel",
    "segmented_sum_kernel",
    "softmax_kernel",
    "split_k_kernel",
    "top_k_kernel",
    "transpose_kernel",
]
