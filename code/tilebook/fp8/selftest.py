"""Five questions on the chapter; what can be computed of the answers is computed."""

from tilebook.fp8 import formats, scaling
from tilebook.parallel.selftest import Question

__all__ = ["QUESTIONS", "Question"]

CODE = 0x38
VALUE = formats.value(CODE, formats.E4M3)

DOWN, ACROSS = 128, 7168
SCALES = scaling.scale_shape(DOWN, ACROSS, "1x128")[1] * DOWN

TERMS = 384
BLOCKS = TERMS // 128

SIDE, GBPS = 4096, 3000
FLOOR_US = SIDE * SIDE / GBPS / 1e3

QUESTIONS = (
    Question(
        text=f"Which number has the code {CODE:#x} in e4m3fn, whose bias is 7?",
        options=("0.5", f"{VALUE:g}", "7", "56"),
        answer=f"{VALUE:g}",
        explanation=(
            f"{CODE:#x} is 0 0111 000: the exponent field is the bias, the mantissa "
            "zero, and the bit before it is one."
        ),
    ),
    Question(
        text=(
            "Inputs are normal numbers. What do scales by 1 x 128 gain over one scale, "
            "in the error of e4m3fn?"
        ),
        options=(
            "A factor of about 10",
            "As many bits as a group is smaller than the matrix",
            "Next to nothing",
            "They lose, for a scale is rounded, too",
        ),
        answer="Next to nothing",
        explanation=(
            "The error of a float is relative to the number, wherever it lies among "
            "the normal ones. Scales by groups are for what lies below."
        ),
    ),
    Question(
        text=(
            f"A quantiser by 1 x 128 gets {DOWN} rows of {ACROSS:,} elements. How many "
            "scales does it write?"
        ),
        options=(
            f"{ACROSS // 128}",
            f"{DOWN}",
            f"{DOWN * ACROSS // 32:,}",
            f"{SCALES:,}",
        ),
        answer=f"{SCALES:,}",
        explanation=(
            f"One for 128 elements of a row: {ACROSS // 128} for each of {DOWN} rows, "
            "four bytes for 128 codes."
        ),
    ),
    Question(
        text=(
            f"A sum of {TERMS} terms is promoted every 128. How many additions of "
            "float32's own has an element of the result?"
        ),
        options=(f"{TERMS}", f"{BLOCKS}", f"{TERMS // 32}", "None"),
        answer=f"{BLOCKS}",
        explanation=(
            "Tensor cores sum each block from zero, and what they give is added to "
            f"what came before: {BLOCKS} blocks, the first to zero."
        ),
    ),
    Question(
        text=(
            f"A product of one row with a weight of {SIDE:,} squared in eight bits "
            "takes 12 µs on a card with 3.0 TB/s. What limits it?"
        ),
        options=(
            "Memory: it takes as long to read the weight",
            "Tensor cores: one row fills a sixty-fourth of a tile",
            "Scales: they are read once more for each block",
            "Waiting: the weight could be read in less than half of that",
        ),
        answer="Waiting: the weight could be read in less than half of that",
        explanation=(
            f"{SIDE:,} squared bytes at 3.0 TB/s are {FLOOR_US:.1f} µs. The rest is "
            "launches, latency, and programs that don't ask for enough at a time."
        ),
    ),
)
