"""Merging a LoRA adapter into the model that it was trained on.

python -m models.merge CONFIG.json
"""

import sys
from pathlib import Path

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from models.config import MergeProgram
from models.training import quiet


def merge(program: MergeProgram) -> None:
    """Write the merged model, in the model's own number format, and its tokenizer to `program.output`."""
    model = AutoModelForCausalLM.from_pretrained(program.policy, dtype="auto")
    dtype = model.dtype
    merged = PeftModel.from_pretrained(model.to(torch.float32), str(program.adapter)).merge_and_unload()
    merged.to(dtype).save_pretrained(program.output)
    AutoTokenizer.from_pretrained(program.policy).save_pretrained(program.output)


if __name__ == "__main__":
    quiet()
    merge(MergeProgram.model_validate_json(Path(sys.argv[1]).read_text()))
