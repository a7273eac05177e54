"""Five questions on the chapter; what can be computed of the answers is computed."""

from tilebook.parallel.selftest import Question

__all__ = ["QUESTIONS", "Question"]

SLOTS, CHUNK = 4, 9
PARITY = CHUNK // SLOTS & 1

THREADS, AT_LAUNCH, PRODUCER = 128, 168, 40
CONSUMER = (3 * AT_LAUNCH - PRODUCER) // 2

SUMS = 128 * 256 // THREADS

QUESTIONS = (
    Question(
        text=(
            f"A ring has {SLOTS} slots. Which slot has chunk {CHUNK}, and for which "
            "parity does who multiplies it wait?"
        ),
        options=(
            f"Slot {CHUNK % SLOTS}, parity {PARITY}",
            f"Slot {CHUNK % SLOTS}, parity {1 - PARITY}",
            f"Slot {CHUNK // SLOTS}, parity {CHUNK % 2}",
            f"Slot {CHUNK // SLOTS}, parity {1 - CHUNK % 2}",
        ),
        answer=f"Slot {CHUNK % SLOTS}, parity {PARITY}",
        explanation=(
            f"It is the slot's use number {CHUNK // SLOTS}, counted from 0, and "
            "phases are told apart by the parity of that number alone."
        ),
    ),
    Question(
        text=(
            "A kernel with warp_specialize=True compiles for Hopper, and its TTGIR "
            "has no ttg.warp_specialize. What did the compiler say?"
        ),
        options=(
            "That num_warps must be 4",
            "That the loop was flattened",
            "Nothing",
            "C7514",
        ),
        answer="Nothing",
        explanation=(
            "It leaves the loop as it is. The attribute stays in TTGIR, and the "
            "operation with its partitions doesn't appear: look for that."
        ),
    ),
    Question(
        text=(
            f"384 threads are launched with {AT_LAUNCH} registers each. A group of "
            f"four warps keeps {PRODUCER}. How many can a thread of the two others "
            "have?"
        ),
        options=("168", f"{CONSUMER}", "255", f"{3 * AT_LAUNCH - PRODUCER}"),
        answer=f"{CONSUMER}",
        explanation=(
            f"Three groups share 3 · {AT_LAUNCH} = {3 * AT_LAUNCH} registers for each "
            f"of {THREADS} threads: {PRODUCER} + 2 · {CONSUMER}."
        ),
    ),
    Question(
        text=(
            "Why are the tiles of ping-pong half as large as those of two groups that "
            "work on one?"
        ),
        options=(
            "Shared memory holds no more stages",
            "A group keeps all sums of its tile in its own registers",
            "The copy engine brings at most 256 columns",
            "Turns have to be of equal length",
        ),
        answer="A group keeps all sums of its tile in its own registers",
        explanation=(
            f"128 by 256 sums are {SUMS} for each of {THREADS} threads, and a thread "
            "can name 255 registers. Half the tile asks L2 for a third more bytes."
        ),
    ),
    Question(
        text=(
            "A tile is written to shared memory by threads and sent by the copy "
            "engine, without a fence between. What happens?"
        ),
        options=(
            "ptxas refuses the kernel",
            "The launch never ends",
            "The engine may send what was there before",
            "Nothing: mbarriers order both",
        ),
        answer="The engine may send what was there before",
        explanation=(
            "Threads and engine reach shared memory by two ways, proxies, and what "
            "one has written the other sees after a proxy fence only."
        ),
    ),
)
