"""The stage `examples` of evaluation data (EFT): a policy's judgments of people's pairs become training rows.

As published (arXiv 2401.10020, section 3.1.1), only judgments that rank a pair as people did are learned, and the most
frequent score is down-sampled.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.files import write_json
from data.judge_questions import Opinion, Question, messages
from data.judging import agreeing, as_samples, balanced
from data.render import completion_token_ids, prompt_token_ids
from data.rows import Example, Pair
from data.storage import read_rows, write_rows
from data.wording import and_left_out, counted
from models.asking.judge import OPINIONS
from tasks.datasets.row_length import nothing_fits, report_too_long, tokenizer_and_limit
from tasks.datasets.select import EXAMPLES, SELECTION, NothingKeptError
from tasks.rollouts.judge_agreement import SET, PolicyJudge
from tasks.stage.contract import Artifact, Estimate, Outcome, Stage
from tasks.stage.run import Place, Result

VERSION = 1
SOURCE = "judgments"


def judgment_examples(
    at: Place, judge: PolicyJudge, judged: Result, shown: Artifact | None, pack_to: int | None
) -> Result:
    """Write a policy's judgments that agree with people to `examples.parquet`, after other rows to learn with them.

    Counts by reason go to `selection.json`.

    Args:
        judge: how the policy judged, with the pairs.
        judged: result of the stage `judge`.
        shown: the other rows.
        pack_to: most tokens of a row, if that is less than the policy's context.

    Raises:
        NothingKeptError: no judgment agrees with people, or none fits.
    """
    assert judge.pairs is not None and judge.policy is not None
    policy = judge.policy
    pairs, told, answered = judge.pairs, judge.config, judged.artifact(f"{SET}/scores/{OPINIONS}")
    inputs = {"pairs": pairs, "opinions": answered, "policy": policy} | ({"shown": shown} if shown else {})
    asked = pairs.expected * told.opinions * 2
    stage = Stage(
        at.stage("examples"),
        VERSION,
        {"kind": told.kind, "show_reference": told.show_reference, "rubric": told.rubric, "pack_to": pack_to}
        | at.run.in_front,
        inputs,
        estimate=Estimate(disk_bytes=4_000 * asked + 1_000_000),
        expected={EXAMPLES: asked + (shown.expected if shown else 0)},
    )

    def work(attempt: Path) -> Outcome:
        opinions = list(read_rows(Opinion, answered.path))
        counts = Counter[str]()
        learned = list(_learned(opinions, judge, counts))
        rows = list(_rows(learned, pairs.path, judge, policy.digest))
        if not rows:
            raise _no_agreement(len(opinions))
        tokenizer, limit = tokenizer_and_limit(policy.path, at.run, pack_to)
        lengths = Counter[str]()

        def fitting() -> Iterator[Example]:
            for row in rows:
                fits = _length(row, tokenizer) <= limit.tokens
                lengths["kept" if fits else "too_long"] += 1
                if fits:
                    yield row
            yield from read_rows(Example, shown.path) if shown else ()

        kept = write_rows(Example, attempt / EXAMPLES, fitting())
        if not lengths["kept"]:
            raise nothing_fits(len(rows), limit)
        there = len(opinions) + (kept - lengths["kept"])
        dropped = {name: n for name, n in counts.items() if n}
        dropped |= report_too_long(lengths, limit)
        write_json(attempt / SELECTION, {"samples": there, "kept": kept} | dropped)
        said = f"{counted(lengths['kept'], 'judgment')} among {counted(kept, 'row')}{and_left_out(dropped)}"
        return Outcome(there, kept, dropped, said=said)

    return at.run.execute(stage, work)


def _learned(opinions: list[Opinion], judge: PolicyJudge, counts: Counter[str]) -> Iterator[Opinion]:
    agree = agreeing(judge.config.kind, opinions)
    counts["not read"] = sum(opinion.value is None for opinion in opinions)
    counts["people disagree"] = len(opinions) - counts["not read"] - len(agree)
    even = balanced(agree)
    counts["most frequent score"] = len(agree) - len(even)
    seen = set[tuple[Any, ...]]()
    for opinion in even:
        said = opinion.problem_id, opinion.index, opinion.other, opinion.swapped, opinion.text
        counts["duplicate"] += said in seen
        if said not in seen:
            seen.add(said)
            yield opinion


def _rows(learned: list[Opinion], pairs: Path, judge: PolicyJudge, policy: str | None) -> Iterator[Example]:
    told, asked = (
        judge.config,
        {problem.id: (problem, sides) for problem, sides in map(as_samples, read_rows(Pair, pairs))},
    )
    number = Counter[str]()
    for opinion in learned:
        problem, sides = asked[opinion.problem_id]
        one, other = sides[opinion.index], None if opinion.other < 0 else sides[opinion.other]
        first, second = (other, one) if opinion.swapped and other else (one, other)
        question = Question(first, second, opinion.opinion, opinion.swapped)
        said = messages(told.kind, problem, question, told.show_reference, told.rubric)
        yield Example(problem.id, number[problem.id], said, opinion.text, None, policy or "", source=SOURCE)
        number[problem.id] += 1


def _length(row: Example, tokenizer: Any) -> int:
    return len(prompt_token_ids(tokenizer, row.messages)) + len(completion_token_ids(tokenizer, row.completion))


def _no_agreement(judgments: int) -> NothingKeptError:
    return NothingKeptError(
        f"None of the policy's {counted(judgments, 'judgment')} of people's pairs agrees with people, so there is no "
        "evaluation data to learn.",
        what_next="See its replies in the stage judge; give demonstrations of judgments, a clearer "
        "reward.judge.rubric, or leave out eft.",
    )
