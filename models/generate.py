"""Generation: token ids in, samples out, in shards written atomically.

    python -m models.generate CONFIG.json

All shards share one continuous batch, and each is written once its last answer is there. Each answer has its own seed,
made from the stage's seed, the problem's id and the answer's number. An existing shard is not generated again.
"""

import sys
from pathlib import Path

from data.render import check_room, prompt_token_ids, stop_token_ids
from data.storage import count_rows
from data.wording import counted
from models.config import GenerateProgram
from models.engine import Engine, Served, start
from models.engine.meter import Meter
from models.engine.vllm import leave
from models.loading import load_tokenizer, room_of
from models.process import fail_plainly
from models.progress import Progress
from models.rounds import Rounds, scorers
from models.shards import Shard, missing_shards


def generate(program: GenerateProgram, journal: Path | None = None) -> None:
    """Do every job with missing shards. The engine starts only if something is left to do.

    Args:
        journal: where to note the tokens per second.
    """
    missing = [shard for job in program.jobs for shard in missing_shards(job)]
    if not missing:
        return
    for job in program.jobs:
        job.output.mkdir(parents=True, exist_ok=True)
    with scorers(missing) as processes:
        tokenizer = load_tokenizer(program.policy, program.model_code)
        prompts = {p.id: prompt_token_ids(tokenizer, p.messages) for shard in missing for p in shard.problems}
        engine = _start(program, missing, prompts)
        total = sum(count_rows(job.problems) * job.sampling.samples for job in program.jobs)
        left = sum(len(shard.problems) * shard.job.sampling.samples for shard in missing)
        meter = Meter(Progress("generate", total, "sample", done=total - left), journal)
        rounds = Rounds(missing, prompts, stop_token_ids(tokenizer), program.policy_digest, processes, meter)
        for number, answers in engine.stream(rounds.requests(), meter):
            rounds.take(number, answers)
    spared = f", {counted(meter.spared, 'answer')} not needed" if meter.spared else ""
    rate = meter.tokens / meter.progress.elapsed
    print(f"{counted(left - meter.spared, 'answer')} at {rate:,.0f} tokens/s{spared}", flush=True)


def _start(program: GenerateProgram, missing: list[Shard], prompts: dict[str, list[int]]) -> Engine:
    """Start an engine in which every prompt has room for its answers."""
    context = room_of(program.policy, program.model_code, program.engine.max_model_len)
    for shard in missing:
        for problem in shard.problems:
            check_room(len(prompts[problem.id]), shard.job.sampling.max_tokens, context, problem.id)
    longest = max(len(ids) for ids in prompts.values()) + max(job.sampling.max_tokens for job in program.jobs)
    first, limit = program.jobs[0], min(context, longest)
    return start(Served(program.policy, first.sampling.dtype, limit, first.seed, program.model_code), program.engine)


def main() -> None:
    fail_plainly()
    config = Path(sys.argv[1])
    generate(GenerateProgram.model_validate_json(config.read_text()), config.with_name("metrics.jsonl"))
    leave()


if __name__ == "__main__":
    main()
