"""Language models with random weights that run in milliseconds."""

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from models import tiny
from models.training.common import load_policy


def toy_llama(vocabulary: int, seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.8,
    )
    return LlamaForCausalLM(config).eval()


def write_tiny(folder: Path, texts: list[str]) -> None:
    """The embedded model with random weights, as a folder, with a tokenizer made of these texts."""
    tiny.write_untrained(folder, texts)
    torch.manual_seed(0)
    load_policy(folder, "float32").save_pretrained(folder)
