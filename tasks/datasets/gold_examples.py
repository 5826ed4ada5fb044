"""The stage `examples` of SFT: gold answers become training rows."""

from collections import Counter
from pathlib import Path

from data.files import write_json
from data.render import completion_token_ids, prompt_token_ids
from data.rows import Example, Problem
from data.storage import read_rows, write_rows
from data.wording import and_left_out, counted
from tasks.datasets.row_length import nothing_fits, report_too_long, tokenizer_and_limit
from tasks.datasets.select import EXAMPLES, SELECTION
from tasks.stage.contract import Artifact, Estimate, Outcome, Stage
from tasks.stage.run import Place, Result

VERSION = 2  # the chat template frames gold answers


def gold_examples(at: Place, problems: Artifact, policy: Artifact, pack_to: int | None) -> Result:
    """Write the gold answers of all problems to `examples.parquet`; counts by reason go to `selection.json`.

    An example longer than the policy's context, or than a packed row, is dropped and counted: cutting it would teach
    the model to stop in the middle.

    Raises:
        NothingKeptError: no example fits.
    """
    inputs = {"problems": problems, "policy": policy}
    stage = Stage(
        at.stage("examples"),
        VERSION,
        {"pack_to": pack_to} | at.run.in_front,
        inputs,
        estimate=Estimate(disk_bytes=1_000_000),
        expected={EXAMPLES: problems.expected},
    )

    def work(attempt: Path) -> Outcome:
        tokenizer, limit = tokenizer_and_limit(policy.path, at.run, pack_to)
        counts: Counter[str] = Counter()

        def fits(problem: Problem) -> bool:
            prompt = prompt_token_ids(tokenizer, problem.messages)
            length = len(prompt) + len(completion_token_ids(tokenizer, problem.response or ""))
            counts["kept" if length <= limit.tokens else "too_long"] += 1
            return length <= limit.tokens

        rows = (
            Example(p.id, 0, p.messages, p.response or "", None, p.source, source=p.source)
            for p in read_rows(Problem, problems.path)
            if fits(p)
        )
        kept = write_rows(Example, attempt / EXAMPLES, rows)
        total, dropped = counts.total(), report_too_long(counts, limit)
        if not kept:
            raise nothing_fits(total, limit)
        write_json(attempt / SELECTION, {"samples": total, **counts})
        return Outcome(total, kept, dropped, said=counted(kept, "gold answer") + and_left_out(dropped))

    return at.run.execute(stage, work)
