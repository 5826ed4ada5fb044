"""The embedded tiny model: a tokenizer made from the demonstrations, and a Llama architecture with 0.9 M weights.

The bootstrap trains it from scratch with the project's own trainer.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

VERSION = 2
VOCABULARY = 640
CONTEXT = 1024
PARAMETERS = 935_040
END, USER, ASSISTANT = "<|end|>", "<|user|>", "<|assistant|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|assistant|>' if message['role'] == 'assistant' else '<|user|>' }}{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ '<|end|>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


# Distinguishes the embedded model and its descendants from others.
ARCHITECTURE = {
    "model_type": "llama",  # for other architectures AutoTokenizer replaces parts of a custom tokenizer
    "vocab_size": VOCABULARY,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}

# Shapes of the weights of a layer, by module.
LINEAR_SHAPES = {name: [128, 128] for name in ("q_proj", "k_proj", "v_proj", "o_proj")}
LINEAR_SHAPES |= {"gate_proj": [384, 128], "up_proj": [384, 128], "down_proj": [128, 384]}


def is_of_the_family(model: Path) -> bool:
    """Whether a folder holds the embedded model, or a policy that descends from it."""
    try:
        config = json.loads((model / "config.json").read_text())
        return isinstance(config, dict) and ARCHITECTURE.items() <= config.items()
    except (OSError, ValueError):
        return False


def tiny_tokenizer(texts: Iterable[str]) -> Any:
    """A byte-level BPE tokenizer: each word and number in the texts is one token, and any text can be encoded."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=False), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END, USER, ASSISTANT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=END,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def write_untrained(path: Path, texts: Iterable[str]) -> None:
    """Write the tokenizer and the architecture to `path`, without weights: training starts from random ones."""
    tokenizer = tiny_tokenizer(texts)
    # As JSON instead of LlamaConfig, which would import PyTorch into the flow's process.
    config = {
        **ARCHITECTURE,
        "architectures": ["LlamaForCausalLM"],
        "max_position_embeddings": CONTEXT,
        "tie_word_embeddings": True,
        "initializer_range": 0.08,  # ≈ 1/√hidden_size: at 0.02 such a narrow model learns several times slower
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokenizer.save_pretrained(path)
