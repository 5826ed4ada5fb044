"""Likelihood of given answers under a policy: one forward pass over each, no generation.

    python -m models.training.likelihood CONFIG.json    # several processes: by torch.distributed.run, see launch.py

The product over answer tokens of p(token | prefix), called the conditional probability of an answer, is the
exponential of the sum computed here in log space. Preference training uses these sums as its reference.
"""

import gc
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    gc.disable()  # until `quiet`

import numpy as np
import torch
from accelerate import Accelerator, DeepSpeedPlugin, PartialState
from accelerate.utils import gather_object
from datasets import Dataset, Value
from trl.models.utils import prepare_deepspeed
from trl.trainer.utils import add_fused_lm_head, pad

from data.render import pad_token_id
from data.rows import GoldLikelihood, PairLikelihood
from data.storage import write_rows
from models.config import LikelihoodProgram
from models.loading import load_tokenizer, room_of
from models.progress import Progress
from models.training.answers import gold_answers, pair_answers
from models.training.common import IGNORED, PATIENCE, deepspeed_config, enter, leave, load_policy
from models.training.rows import IDS, rows_on_disk


def sequence_log_probs(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, answer_mask: torch.Tensor
) -> torch.Tensor:
    """Log-probability of each row's answer given what precedes it, summed over its tokens, in nats.

    Args:
        model: a causal language model with TRL's fused head (`add_fused_lm_head`), which computes the probabilities
            of answer tokens only and never holds (batch, length, vocabulary) logits.
        input_ids: prompt and answer, shape (batch, length).
        attention_mask: 1 for tokens, 0 for padding, shape (batch, length).
        answer_mask: 1 for answer tokens, shape (batch, length). The first position cannot be 1.

    Returns:
        Shape (batch,).
    """
    labels = input_ids.masked_fill(answer_mask == 0, IGNORED)
    outputs = model(
        input_ids=input_ids, attention_mask=attention_mask, labels=labels, use_cache=False, fused_lm_head=True
    )
    return torch.as_tensor(outputs.log_probs.float().sum(dim=1))


Rendered = tuple[list[int], list[int]]  # token ids of a prompt and an answer
Measured = tuple[str, int, int, float]  # problem, index, answer tokens, log-probability
FEATURES = dict.fromkeys(("output", "index", "tokens", "length"), Value("int32"))
FEATURES |= {"problem_id": Value("string"), "prompt": IDS, "answer": IDS}


def log_probs_of(model: Any, sequences: Sequence[Rendered], padding: int, device: Any) -> list[float]:
    """`sequence_log_probs` of prompts with answers, padded together."""
    ids = [torch.tensor(prompt + answer) for prompt, answer in sequences]
    answers = [torch.tensor([0] * len(prompt) + [1] * len(answer)) for prompt, answer in sequences]
    batch = (
        pad(ids, padding_value=padding).to(device),
        pad([torch.ones_like(i) for i in ids], padding_value=0).to(device),
        pad(answers, padding_value=0).to(device),
    )
    with torch.no_grad():
        return list(sequence_log_probs(model, *batch).tolist())


def measure(program: LikelihoodProgram, folder: Path) -> None:
    """Write the likelihood of every gold answer and of every pair's two answers, file by file, in order.

    Rows longer than the policy's context are left out.

    Args:
        folder: for files that are needed meanwhile.
    """
    launch = program.launch
    plugin = DeepSpeedPlugin(hf_ds_config=_deepspeed(program))
    # Accelerator(cpu=True) would not use DeepSpeed.
    PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(seconds=PATIENCE))
    accelerator = Accelerator(deepspeed_plugin=plugin)
    tokenizer = load_tokenizer(program.policy, program.model_code, model_max_length=sys.maxsize)
    model = load_policy(program.policy, program.dtype, program.quantize, program.model_code, launch.attention)
    context = room_of(program.policy, program.model_code)
    add_fused_lm_head(model)
    model = prepare_deepspeed(model, accelerator)

    def rows() -> Iterator[dict[str, Any]]:
        """Each answer with its prompt, and the file of its likelihood."""
        read = [(gold_answers, path) for path in program.gold] + [(pair_answers, path) for path in program.pairs]
        for number, (answers_of, path) in enumerate(read):
            for row in answers_of(tokenizer, path, context):
                known = {"output": number, "problem_id": row.problem_id, "index": row.index, "prompt": row.prompt}
                for answer in row.answers:
                    yield known | {"answer": answer, "tokens": len(answer), "length": len(row.prompt) + len(answer)}

    sequences = rows_on_disk(folder, rows, FEATURES, accelerator.local_main_process_first)
    log_probs = _over_processes(accelerator, model, sequences, launch.micro_batch_size, pad_token_id(tokenizer))
    if accelerator.is_main_process:
        _write(program, sequences, log_probs)


def _over_processes(
    accelerator: Accelerator, model: Any, sequences: Dataset, micro_batch_size: int, padding: int
) -> list[float]:
    """`log_probs_of` all sequences, in order, computed in batches by all processes."""
    # Longest first: what does not fit into memory fails at once, and there is little padding.
    order = np.argsort(-np.asarray(sequences.data["length"]), kind="stable").tolist()
    size = 2 * micro_batch_size  # as many rows as in one forward pass of training on pairs
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    ranks = accelerator.num_processes
    dealt = [batch for rank in range(ranks) for batch in batches[rank::ranks]]  # each process gets long and short ones
    progress = Progress("likelihood", len(batches), "batch") if accelerator.is_main_process else None
    found: list[tuple[int, float]] = []
    if not dealt:
        return []
    # ZeRO 3 gathers weights in lockstep: every process makes the same number of passes, repeating one if needed.
    with accelerator.split_between_processes(dealt, apply_padding=True) as mine:
        for done, batch in enumerate(mine, start=1):
            taken = sequences[batch]
            rendered = list(zip(taken["prompt"], taken["answer"], strict=True))
            values = log_probs_of(model, rendered, padding, accelerator.device)
            found += zip(batch, values, strict=True)
            if progress:
                progress.update(min(done * ranks, len(batches)))
    by_number = dict(gather_object(found))
    return [by_number[number] for number in range(len(sequences))]


def _write(program: LikelihoodProgram, sequences: Dataset, log_probs: Sequence[float]) -> None:
    columns = (sequences.data[name].to_pylist() for name in ("output", "problem_id", "index", "tokens"))
    rows = iter(zip(*columns, log_probs, strict=True))
    by_output = {number: list(found) for number, found in groupby(rows, key=lambda row: row[0])}
    for number, output in enumerate(program.gold_outputs + program.outputs):
        measured = [row[1:] for row in by_output.get(number, [])]
        if number < len(program.gold_outputs):
            gold = (GoldLikelihood(problem, index, value, tokens) for problem, index, tokens, value in measured)
            write_rows(GoldLikelihood, output, gold)
        else:
            sides = zip(measured[::2], measured[1::2], strict=True)
            write_rows(PairLikelihood, output, (_of_pair(chosen, rejected) for chosen, rejected in sides))


def _of_pair(chosen: Measured, rejected: Measured) -> PairLikelihood:
    problem, index, tokens, value = chosen
    return PairLikelihood(problem, index, value, rejected[3], tokens, rejected[2])


def _deepspeed(program: LikelihoodProgram) -> dict[str, Any]:
    config = deepspeed_config(program.launch, program.dtype == "bfloat16")
    return config | {
        "train_micro_batch_size_per_gpu": program.launch.micro_batch_size,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 1.0,
    }


if __name__ == "__main__":
    enter()
    config = Path(sys.argv[1])
    measure(LikelihoodProgram.model_validate_json(config.read_text()), config.parent)
    leave()
