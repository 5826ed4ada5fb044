"""A tiny random model that can be trained on any text: each token is a byte, and its context holds 8,192 of them.

`python -m tests.byte_model FOLDER` writes one, for trying a flow on data of one's own.
"""

import sys
from pathlib import Path

CONTEXT = 8192


def write_byte_model(folder: Path) -> None:
    """Write the model, its tokenizer and its chat template to `folder`."""
    import torch
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from models import tiny

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token) for token in (tiny.END, tiny.USER, tiny.ASSISTANT)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=tiny.END,
        pad_token=tiny.END,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = tiny.CHAT_TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(fast),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=0.08,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


if __name__ == "__main__":
    write_byte_model(Path(sys.argv[1]))
