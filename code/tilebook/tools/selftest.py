"""Five questions on the chapter."""

from tilebook.parallel.selftest import Question

__all__ = ["QUESTIONS", "Question"]

QUESTIONS = (
    Question(
        text=(
            "A sum is right in the interpreter and differs from run to run on the GPU. "
            "Which tool is asked first?"
        ),
        options=(
            "cuda-gdb, at the line of the sum",
            "the tracer, for two programs at one element",
            "ncu, for waits",
            "a looser tolerance",
        ),
        answer="the tracer, for two programs at one element",
        explanation=(
            "The interpreter runs programs one after another, so it can't show a race; "
            "the addresses that it writes down do."
        ),
    ),
    Question(
        text="memcheck finds nothing. Which stray access can have slipped through?",
        options=(
            "one into another tensor of the same allocation",
            "one into memory that was never allocated",
            "a misaligned one",
            "a store past the last allocation",
        ),
        answer="one into another tensor of the same allocation",
        explanation=(
            "A checker knows allocations, and PyTorch keeps many tensors in one: with "
            "PYTORCH_NO_CUDA_MEMORY_CACHING=1 it keeps one in each."
        ),
    ),
    Question(
        text="A trace says 4 sectors a request, and ncu 32. What is likely?",
        options=(
            "ncu counts stores, too",
            "L2 was cold",
            "the tracer is wrong about the addresses",
            "the compiler could not prove that the addresses are neighbours",
        ),
        answer="the compiler could not prove that the addresses are neighbours",
        explanation=(
            "The trace deals tiles out as the addresses would allow. With compiled() "
            "it uses the layouts that the compiler chose."
        ),
    ),
    Question(
        text=(
            "Proton has 10 µs for a kernel, events have 14 µs for its launch. Which is "
            "right?"
        ),
        options=(
            "Proton: events are imprecise",
            "both: events also see what lies between their records and the kernel",
            "events: Proton leaves out the caches",
            "neither: ask ncu",
        ),
        answer="both: events also see what lies between their records and the kernel",
        explanation=(
            "A profiler notes when a kernel starts and ends. Events note when the "
            "stream passes them."
        ),
    ),
    Question(
        text="A load's result barrier is 2. What has an instruction that uses it?",
        options=(
            "a stall of 15 clocks",
            "a barrier of its own",
            "bit 2 in the mask of barriers that it waits for",
            "nothing: hardware compares registers",
        ),
        answer="bit 2 in the mask of barriers that it waits for",
        explanation=(
            "Since sm_70 the compiler says which of six barriers an instruction waits "
            "for; hardware compares no registers."
        ),
    ),
)
