"""The stage `examples` of SFT: gold answers become training rows."""

from collections import Counter
from pathlib import Path

from data.render import completion_token_ids, context_length, prompt_token_ids
from data.rows import Example, Problem
from data.storage import read_rows, write_rows
from tasks.contract import Artifact, Estimate, Outcome, Stage
from tasks.files import write_json
from tasks.logs import run_logger
from tasks.run import Result, Run
from tasks.score import SELECTION, NothingKeptError

VERSION = 1


def gold_examples(run: Run, name: str, problems: Artifact, policy: Artifact, pack_to: int | None) -> Result:
    """Write the gold answers of all problems to `examples.parquet`; counts by reason go to `selection.json`.

    An example that is longer than the policy's context, or than a packed row, is dropped and counted: cutting it would
    teach the model to stop in the middle.

    Raises:
        NothingKeptError: no example fits.
    """
    inputs = {"problems": problems, "policy": policy}
    stage = Stage(name, VERSION, {"pack_to": pack_to}, inputs, estimate=Estimate(disk_bytes=1_000_000))

    def work(attempt: Path) -> Outcome:
        tokenizer, context = tokenizer_and_context(policy.path)
        context = min(context, pack_to or context)
        counts: Counter[str] = Counter()

        def fits(problem: Problem) -> bool:
            prompt = prompt_token_ids(tokenizer, problem.messages)
            length = len(prompt) + len(completion_token_ids(tokenizer, problem.response or ""))
            counts["kept" if length <= context else "too_long"] += 1
            return length <= context

        rows = (
            Example(p.id, 0, p.messages, p.response or "", None, p.source)
            for p in read_rows(Problem, problems.path)
            if fits(p)
        )
        kept = write_rows(Example, attempt / "examples.parquet", rows)
        total, dropped = counts.total(), report_too_long(counts, context)
        if not kept:
            raise NothingKeptError(nothing_fits(total, context))
        write_json(attempt / SELECTION, {"samples": total, **counts})
        return Outcome(total, kept, dropped)

    return run.execute(stage, work)


def tokenizer_and_context(policy: Path) -> tuple[object, int]:
    from transformers import AutoConfig, AutoTokenizer

    return AutoTokenizer.from_pretrained(policy), context_length(AutoConfig.from_pretrained(policy))


def report_too_long(counts: Counter[str], context: int) -> dict[str, int]:
    if not counts["too_long"]:
        return {}
    run_logger().warning(
        "%d of %d rows are longer than the context of %d tokens and are left out",
        counts["too_long"],
        counts.total(),
        context,
    )
    return {"too_long": counts["too_long"]}


def nothing_fits(total: int, context: int) -> str:
    return (
        f"All {total:,} rows are longer than the model's context of {context:,} tokens, so nothing is left to train "
        f"on. Give shorter rows, or a model with a longer context."
    )
