"""P-tuning (arXiv 2103.10385): virtual tokens whose vectors a small network makes, while they are trained."""

from typing import Any

from peft import PromptEncoder, PromptEncoderConfig
from torch import nn

from models.adapters.virtual_tokens import VirtualTokens, sizes


class PTuning(VirtualTokens):
    """Virtual tokens from a perceptron or an LSTM with random weights. They are no identity."""

    def as_peft(self, model: Any) -> PromptEncoderConfig:
        told, known = self.config.p_tuning, sizes(model, self.config.p_tuning.tokens)
        return PromptEncoderConfig(
            encoder_reparameterization_type=told.encoder.upper(),
            encoder_hidden_size=told.hidden or known["token_dim"],
            encoder_dropout=0.0,
            **known,
        )

    def encoder(self, model: Any) -> nn.Module:
        return PromptEncoder(self.as_peft(model))
