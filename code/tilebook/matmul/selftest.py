"""Five questions on the chapter; what can be computed of the answers is computed."""

from tilebook.parallel.selftest import Question

__all__ = ["QUESTIONS", "Question"]

TILES, SMS = 140, 132
TURNS = -(-TILES // SMS)
BUSY = TILES / (TURNS * SMS)

SIDE, GBPS = 8192, 3000
MICROSECONDS = 2 * SIDE * SIDE / GBPS / 1e3

# Each operand rounded to TF32 is off by up to 2^-11 of itself; a product has two.
OFF = 2 * 2.0**-11

QUESTIONS = (
    Question(
        text=(
            "A tile of 128 by 256 takes 64 terms at a time. What happens to the "
            "operations that it does for each byte it loads if it takes 128?"
        ),
        options=("They double", "They halve", "Nothing", "It depends on the type"),
        answer="Nothing",
        explanation=(
            "A step loads twice as much and does twice as much with it. Only the sides "
            "that stay in registers give reuse; more terms in a step mean fewer steps."
        ),
    ),
    Question(
        text=(
            f"A product has {TILES} equal tiles, and {SMS} SMs have room for one "
            "program each. What share of their time do the SMs work?"
        ),
        options=("1.00", f"{SMS / TILES:.2f}", f"{BUSY:.2f}", f"{1 - BUSY:.2f}"),
        answer=f"{BUSY:.2f}",
        explanation=(
            f"{TILES} tiles take {TURNS} turns of {SMS} places, of which "
            f"{TURNS * SMS - TILES} stay empty. Stream-K shares out steps instead of "
            "tiles."
        ),
    ),
    Question(
        text=(
            "Rows past the edge of a are replaced by rows from within the tile. Why "
            "isn't the same done with terms past the end of k?"
        ),
        options=(
            "The remainder would have to be taken in every step",
            "Such terms would be added to sums that are stored",
            "Columns of a may not be neighbours in memory",
            "tl.dot takes whole blocks of terms only",
        ),
        answer="Such terms would be added to sums that are stored",
        explanation=(
            "A row too many makes products of its own, and nobody stores them. A term "
            "too many is in every sum of the tile: it has to be zero, on both sides."
        ),
    ),
    Question(
        text=(
            f"One row times an {SIDE} by {SIDE} matrix of bf16, memory at {GBPS:,} "
            "GB/s. What is the least time, on tensor cores of 989 TFLOP/s?"
        ),
        options=tuple(f"{MICROSECONDS * by:.1f} µs" for by in (1 / 330, 0.5, 1, 2)),
        answer=f"{MICROSECONDS:.1f} µs",
        explanation=(
            f"{2 * SIDE * SIDE / 2**20:.0f} MiB have to be read, whatever multiplies "
            "them. The arithmetic is two operations for two bytes, and takes a three "
            "hundredth of that."
        ),
    ),
    Question(
        text=(
            "A float32 product is off by some 5e-4 of its terms' size, in every "
            "element and at every k. What is the likeliest reason?"
        ),
        options=(
            "Sums are kept in bfloat16",
            "Operands were multiplied in TF32",
            "Parts of sums are added by atomics",
            "A block of terms is missing",
        ),
        answer="Operands were multiplied in TF32",
        explanation=(
            f"Eleven bits of two operands cost up to {OFF:.1e} of a term if they are "
            "rounded and twice that if they are cut, and no more in long sums than in "
            "short ones. Narrow sums get worse with k, atomics change last bits, and a "
            "missing block is a larger error."
        ),
    ),
)
