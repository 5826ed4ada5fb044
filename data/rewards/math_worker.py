"""The program that compares two mathematical expressions with Math-Verify. It runs as a child of `math_checker`.

Nothing here trusts the text: an expression may take minutes or all memory to simplify. The parent kills this program
when its time is up, and should the parent be dead, the kernel does. It reads one JSON list [reference, answer] per
line and writes one JSON list [outcome, detail] per line; end of input ends it. Run: python math_worker.py SECONDS
"""

import json
import logging
import os
import resource
import signal
import sys

MEMORY_BYTES = 2 * 1024**3
GRACE_SECONDS = 1.0


def main() -> None:
    limit_seconds = float(sys.argv[1])
    # Ctrl-C reaches the whole process group; this program ends when its parent does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The default action, not a handler: Python would run a handler only after a long multiplication returns.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)  # a library that prints must not write among the replies
        logging.disable(logging.CRITICAL)
        print(json.dumps(_import_math_verify()), file=replies, flush=True)
        for request in sys.stdin:
            signal.setitimer(signal.ITIMER_REAL, limit_seconds + GRACE_SECONDS)
            reply = _guarded_compare(*json.loads(request))
            signal.setitimer(signal.ITIMER_REAL, 0)
            print(json.dumps(reply), file=replies, flush=True)


def _import_math_verify() -> tuple[str, str]:
    try:
        import math_verify  # noqa: F401
    except Exception as error:
        return "error", f"{type(error).__name__}: {error}"
    return "ready", ""


def _guarded_compare(reference: str, answer: str) -> tuple[str, str]:
    try:
        return compare(reference, answer), ""
    except MemoryError:
        return "error", f"the comparison needs more than {MEMORY_BYTES // 1024**2} MiB of memory"
    except Exception as error:
        return "error", f"{type(error).__name__}: {error}"[:300]


def compare(reference: str, answer: str) -> str:
    """'equal', 'different', 'bad reference' or 'bad answer' (one that cannot be read as mathematics).

    Source: Math-Verify, https://github.com/huggingface/Math-Verify
    """
    from math_verify import verify

    if not (gold := _parse(reference)):
        return "bad reference"
    if not (given := _parse(answer)):
        return "bad answer"
    equal = verify(gold, given, timeout_seconds=None, raise_on_error=True)
    return "equal" if equal else "different"


def _parse(text: str) -> list[object]:
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse

    # LaTeX only: Math-Verify's reader of plain expressions hands text to Python's eval. First match only: otherwise
    # it would search an answer that it cannot read for a part that it can.
    # Units off: it takes 'ab', 'c' and 'd' for units, so that 2ab would equal 2.
    normalization = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="all")
    parsed: list[object] = parse(
        rf"\boxed{{{text}}}",
        [LatexExtractionConfig(boxed_match_priority=0, normalization_config=normalization)],
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
    )
    return parsed


if __name__ == "__main__":
    main()
