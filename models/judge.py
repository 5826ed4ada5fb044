"""Judging samples with a language model, by vLLM here or at an OpenAI-compatible endpoint, in shards that appear whole.

    python -m models.judge CONFIG.json

Beside each shard of scores, `opinions/` keeps every reply, and `judge.json` has the rates over all of them. A shard
that is already there is not judged again, unless a request to the endpoint failed in it.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from data.errors import RunFailedError
from data.judge import Opinion, Question, as_opinion, messages, questions, reply_schema
from data.opinions import Rates, score_problem
from data.render import context_length, prompt_token_ids
from data.rows import Problem, Sample, Score
from data.scoring import pair_up
from data.storage import holds, parquet_files, read_rows, write_rows
from models.config import JudgeConfig, JudgeProgram, ScoreJob
from models.generate import Meter, leave, request_seed, run_requests, start_engine
from models.loading import load_config, load_tokenizer
from models.process import fail_plainly
from models.progress import Progress

OPINIONS, RATES = "opinions", "judge.json"
IN_FLIGHT = 16  # requests to an endpoint at a time
RETRIES = 4  # of a request that an endpoint fails; the client waits longer each time
TIMEOUT_SECONDS = 300.0

Asked = tuple[Problem, Question]
Ask = Callable[[list[Asked]], list[Opinion]]


class EndpointError(RunFailedError):
    """The endpoint cannot be used at all; the message says why and what to do."""


@dataclass(frozen=True)
class Shard:
    """A file of samples with their problems, and where its scores and the judge's replies go."""

    groups: list[tuple[Problem, list[Sample]]]
    scores: Path
    opinions: Path
    truncated: bool  # whether such samples are judged

    def asked(self, judge: JudgeConfig) -> list[Asked]:
        return [
            (problem, question)
            for problem, samples in self.groups
            for question in questions(judge.kind, samples, judge.opinions, judge.opponents, self.truncated)
        ]


def missing_shards(job: ScoreJob, program: JudgeProgram) -> Iterator[Shard]:
    """The shards that are still to be judged, one in memory at a time."""
    problems = iter(read_rows(Problem, job.problems))
    for file in parquet_files(job.samples):
        pairs = pair_up(problems, read_rows(Sample, file))
        by_problem = (list(group) for _, group in groupby(pairs, key=lambda pair: pair[0].id))
        groups = [(group[0][0], [sample for _, sample in group]) for group in by_problem]
        shard = Shard(groups, job.output / file.name, job.output / OPINIONS / file.name, program.truncated)
        if not _is_done(shard, program.judge):
            yield shard


def _is_done(shard: Shard, judge: JudgeConfig) -> bool:
    ids = [problem.id for problem, samples in shard.groups for _ in samples]
    asked = [problem.id for problem, _ in shard.asked(judge)]
    if not (holds(shard.scores, "problem_id", ids) and holds(shard.opinions, "problem_id", asked)):
        return False
    # An endpoint may reply the next time; here, a prompt that is too long stays so.
    return not judge.endpoint or all(opinion.text for opinion in read_rows(Opinion, shard.opinions))


def judge_samples(program: JudgeProgram) -> None:
    """Do every job whose shards are not all there yet; then write the rates. An engine starts only if it is needed.

    Raises:
        EndpointError: the endpoint cannot be reached, or refuses the key or the model.
    """
    for job in program.jobs:
        (job.output / OPINIONS).mkdir(parents=True, exist_ok=True)
        _remove_others(job)
    if any(True for job in program.jobs for _ in missing_shards(job, program)):
        ask = at_endpoint(program) if program.judge.endpoint else with_vllm(program)
        for job in program.jobs:
            for shard in missing_shards(job, program):
                judge_shard(shard, program, ask)
    for job in program.jobs:
        _write_rates(job)


def judge_shard(shard: Shard, program: JudgeProgram, ask: Ask) -> None:
    """Ask everything about a shard. The replies are written first, so that scores never stand without them."""
    judge = program.judge
    opinions = ask(shard.asked(judge))
    write_rows(Opinion, shard.opinions, opinions)
    of = {key: list(found) for key, found in groupby(opinions, key=lambda opinion: opinion.problem_id)}
    told = judge.threshold, program.grader, program.truncated
    rows = (
        score
        for problem, samples in shard.groups
        for score in score_problem(judge.kind, samples, of.get(problem.id, []), *told)
    )
    write_rows(Score, shard.scores, rows)


def with_vllm(program: JudgeProgram) -> Ask:
    """Start the judge here. Replies are held to the schema while they are decoded, so every one can be read."""
    judge, folder = program.judge, program.policy
    assert folder is not None
    tokenizer = load_tokenizer(folder, judge.model_code)
    context = program.engine.max_model_len or context_length(load_config(folder, judge.model_code))

    def prompt(asked: Asked) -> list[int]:
        return prompt_token_ids(tokenizer, messages(judge.kind, *asked, judge.show_reference))

    lengths = [len(prompt(asked)) for asked in _all_asked(program)]
    longest = min(context, max(lengths, default=0) + judge.reply_tokens)
    fitting = sum(length + judge.reply_tokens <= context for length in lengths)
    meter = Meter(Progress("judge", fitting, "reply"))
    engine = None
    if fitting:
        # Of vLLM's backends, this one holds to the pattern of the reasoning and to JSON without blanks.
        constrained = {"backend": "guidance", "disable_any_whitespace": True}
        engine = start_engine(
            folder,
            program.engine,
            judge.dtype,
            longest,
            program.seed,
            judge.model_code,
            structured_outputs_config=constrained,
        )

    def ask(asked: list[Asked]) -> list[Opinion]:
        prompts = [prompt(one) for one in asked]
        fits = [len(ids) + judge.reply_tokens <= context for ids in prompts]
        requests = [(ids, one[1]) for ids, one, fit in zip(prompts, asked, fits, strict=True) if fit]
        parameters = [request_parameters(judge, program.seed, question) for _, question in requests]
        outputs = iter(run_requests(engine, [ids for ids, _ in requests], parameters, meter) if requests else [])
        return [
            as_opinion(judge.kind, question, next(outputs).outputs[0].text)
            if fit
            else as_opinion(
                judge.kind,
                question,
                "",
                f"the judge's prompt of {len(ids)} tokens, with {judge.reply_tokens} for the reply, does not fit into "
                f"its context of {context}",
            )
            for (_, question), ids, fit in zip(asked, prompts, fits, strict=True)
        ]

    return ask


def request_parameters(judge: JudgeConfig, seed: int, question: Question) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    return SamplingParams(
        temperature=judge.temperature,
        max_tokens=judge.reply_tokens,
        seed=request_seed(seed, question.seed_key()) if judge.temperature > 0 else None,
        structured_outputs=StructuredOutputsParams(json=reply_schema(judge.kind, judge.max_reasoning)),
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def at_endpoint(program: JudgeProgram) -> Ask:
    """Ask an OpenAI-compatible server, a bounded number of requests at a time."""
    import openai

    judge = program.judge
    client = openai.OpenAI(
        base_url=judge.endpoint,
        api_key=os.environ.get("OPENAI_API_KEY") or "none",  # a server of one's own wants none
        max_retries=RETRIES,
        timeout=TIMEOUT_SECONDS,
    )
    schema = {"name": "judgement", "strict": True, "schema": reply_schema(judge.kind, judge.max_reasoning)}
    settings: dict[str, Any] = {
        "model": judge.model,
        "temperature": judge.temperature,
        "max_tokens": judge.reply_tokens,
        "response_format": {"type": "json_schema", "json_schema": schema},
    }
    meter = Meter(Progress("judge", sum(1 for _ in _all_asked(program)), "reply"))

    def reply(asked: Asked) -> tuple[Opinion, int]:
        question = asked[1]
        try:
            completion: Any = client.chat.completions.create(
                **settings
                | {
                    "messages": messages(judge.kind, *asked, judge.show_reference),
                    "seed": request_seed(program.seed, question.seed_key()),
                }
            )
            choice = completion.choices[0]
            text, tokens = choice.message.content or "", completion.usage.completion_tokens if completion.usage else 0
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise EndpointError(
                f"{judge.endpoint} refuses the judge {judge.model}: {error}.",
                what_next="Check its model and endpoint and the key in the environment variable OPENAI_API_KEY, and "
                "run the same command again.",
            ) from error
        except openai.APITimeoutError as error:
            return as_opinion(judge.kind, question, "", f"the endpoint gave no reply in time: {error}"), 0
        except openai.APIConnectionError as error:
            raise EndpointError(
                f"{judge.endpoint} cannot be reached: {error.__cause__ or error}.",
                what_next="Start the server, or correct the judge's endpoint, and run the same command again: shards "
                "that are judged are kept.",
            ) from error
        except (openai.APIError, AttributeError, IndexError, TypeError, ValueError) as error:
            return as_opinion(judge.kind, question, "", f"the request failed ({type(error).__name__}): {error}"), 0
        failure = "" if text else f"the reply is empty (finish reason {choice.finish_reason})"
        return as_opinion(judge.kind, question, text, failure), tokens

    def ask(asked: list[Asked]) -> list[Opinion]:
        opinions = []
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            for opinion, tokens in pool.map(reply, asked):
                opinions.append(opinion)
                meter.add(1, tokens)
        return opinions

    return ask


def _all_asked(program: JudgeProgram) -> Iterator[Asked]:
    for job in program.jobs:
        for shard in missing_shards(job, program):
            yield from shard.asked(program.judge)


def _remove_others(job: ScoreJob) -> None:
    """Remove shards of an earlier attempt that belong to no file of samples."""
    names = {file.name for file in parquet_files(job.samples)}
    for file in [*job.output.glob("*.parquet"), *(job.output / OPINIONS).glob("*.parquet")]:
        if file.name not in names:
            file.unlink()


def _write_rates(job: ScoreJob) -> None:
    rates = Rates()
    for file in parquet_files(job.samples):
        rates.add_opinions(list(read_rows(Opinion, job.output / OPINIONS / file.name)))
        rates.add_scores(read_rows(Score, job.output / file.name))
    partial = job.output / f".{RATES}.partial"
    partial.write_text(json.dumps(rates.record(), indent=2, ensure_ascii=False) + "\n")
    os.replace(partial, job.output / RATES)


def main() -> None:
    fail_plainly()
    judge_samples(JudgeProgram.model_validate_json(Path(sys.argv[1]).read_text()))
    leave()


if __name__ == "__main__":
    main()
