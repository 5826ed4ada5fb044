"""A language model with random weights that runs in milliseconds."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM


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
