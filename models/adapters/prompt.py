"""Prompt tuning (arXiv 2104.08691): vectors in place of the words of an instruction, which begin as those of words."""

from typing import Any

from peft import PromptEmbedding, PromptTuningConfig
from torch import nn

from models.adapters.virtual_tokens import VirtualTokens, sizes


class Prompt(VirtualTokens):
    """Virtual tokens that begin as the embeddings of words drawn from the vocabulary. They are no identity."""

    undecayed = ("virtual_tokens.embedding",)

    def as_peft(self, model: Any) -> PromptTuningConfig:
        told = sizes(model, self.config.prompt.tokens)
        return PromptTuningConfig(prompt_tuning_init="SAMPLE_VOCAB", **told)

    def encoder(self, model: Any) -> nn.Module:
        return PromptEmbedding(self.as_peft(model), model.get_input_embeddings())
