"""Merges an adapter into the weights that it was trained on, for engines without adapter support.

    python -m models.training.merge CONFIG.json

An adapter trained on 4-bit weights is merged into exactly those weights, dequantized: the merged policy answers like
the trained one.
"""

import gc
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    gc.disable()  # until `quiet`

import torch

from models.adapters.kinds import merge_trained
from models.config import MergeProgram
from models.loading import load_tokenizer, load_weights
from models.training.common import leave, load_policy, load_reward_model, quiet


def merge(program: MergeProgram) -> None:
    """Write the merged policy and its tokenizer to `program.output`."""
    model, dtype = _frozen(program)
    model = model.to(torch.float32)
    merged = model if program.adapter is None else merge_trained(model, program.adapter)
    merged.to(dtype).save_pretrained(program.output)
    load_tokenizer(program.policy, program.model_code).save_pretrained(program.output)


def _frozen(program: MergeProgram) -> tuple[Any, torch.dtype]:
    """The weights to merge into, and the number format to write."""
    folder, code = program.policy, program.model_code
    if program.reward:
        tokenizer = load_tokenizer(folder, code)
        model = load_reward_model(folder, tokenizer, program.dtype or "float32", program.quantize, code, bare=True)
    elif program.dtype is None:
        model = load_weights("AutoModelForCausalLM", folder, code, dtype="auto")
    else:
        model = load_policy(folder, program.dtype, program.quantize, code, bare=True)
    dtype = model.dtype
    if program.quantize:
        model = model.dequantize()
        model.is_loaded_in_4bit = False  # or peft would not merge rescaling vectors
    return model.cpu(), dtype


if __name__ == "__main__":
    quiet()
    merge(MergeProgram.model_validate_json(Path(sys.argv[1]).read_text()))
    leave()
