"""Prefix tuning (arXiv 2101.00190): keys and values in front of those of every layer, for all tokens to attend to."""

from typing import Any

from peft import PrefixEncoder, PrefixTuningConfig
from torch import nn

from models.adapters.virtual_tokens import KeysInFront, VirtualTokens, sizes


class Prefix(VirtualTokens):
    """Keys and values from a perceptron with random weights, or by themselves. They are no identity."""

    hooks = KeysInFront

    def as_peft(self, model: Any) -> PrefixTuningConfig:
        hidden, known = self.config.prefix.hidden, sizes(model, self.config.prefix.tokens)
        config = model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        known |= {"token_dim": heads * width, "num_attention_heads": heads}
        return PrefixTuningConfig(prefix_projection=hidden is not None, encoder_hidden_size=hidden, **known)

    def encoder(self, model: Any) -> nn.Module:
        return PrefixEncoder(self.as_peft(model))
