"""Five questions on the chapter; what can be computed of the answers is computed."""

from tilebook.parallel.selftest import Question

__all__ = ["QUESTIONS", "Question"]

S, D = 16384, 128
RATIO = S // (4 * D)
PRODUCTS = {"forward": 2, "two kernels": 4 + 3, "one kernel": 5}
"""Products of tiles for each tile of scores."""
OPERATIONS, POWERS = 4096, 16
"""Of an H100's multiprocessor in a clock: by tensor cores in bfloat16, and powers."""
SHARE = (1 / POWERS) / (4 * D / OPERATIONS)
WINDOW = 1024
FEWER = (S / 2) / WINDOW

QUESTIONS = (
    Question(
        text=(
            f"A head has {S:,} queries, keys and values of {D} features. How many "
            "scores are there for each number that has to move?"
        ),
        options=("4", f"{RATIO}", f"{D}", f"{S:,}"),
        answer=f"{RATIO}",
        explanation=(
            "s squared scores, and 4 s d numbers of operands and result: s over 4 d."
        ),
    ),
    Question(
        text=(
            "How many products of tiles do the two kernels of the gradients make for "
            "a tile of scores, both together?"
        ),
        options=("3", "4", "5", f"{PRODUCTS['two kernels']}"),
        answer=f"{PRODUCTS['two kernels']}",
        explanation=(
            "Each makes scores and dp again. One adds up dk and dv, the other one dq: "
            "four and three. A single kernel would make five."
        ),
    ),
    Question(
        text=(
            f"An H100's multiprocessor does {OPERATIONS:,} operations in a clock on "
            f"tensor cores, and {POWERS} powers of 2. How long do the powers take, "
            f"beside both products, with {D} features?"
        ),
        options=(
            "Half as long",
            "A tenth as long",
            "As long",
            "Next to nothing",
        ),
        answer="Half as long",
        explanation=(
            f"A score costs 4 d = {4 * D} operations, an eighth of a clock, and one "
            "power, a sixteenth. With 64 features both take as long."
        ),
    ),
    Question(
        text="A query sees no key at all. What does this chapter's attention give it?",
        options=(
            "NaN, as a softmax does",
            "The mean of all values",
            "0",
            "Whatever was in memory",
        ),
        answer="0",
        explanation=(
            "Its sum of weighted values has no terms. PyTorch gives 0, too, and a "
            "logarithm of -inf says why."
        ),
    ),
    Question(
        text=(
            f"A causal attention over {S:,} positions gets a window of {WINDOW:,} "
            "keys. How many times less is there to compute, about?"
        ),
        options=("2", "4", "16", f"{FEWER:g}"),
        answer=f"{FEWER:g}",
        explanation=(
            f"A query saw {S // 2:,} keys on average, and now sees {WINDOW:,} at most."
        ),
    ),
)
