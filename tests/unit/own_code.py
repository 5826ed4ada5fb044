"""Model folders that come with Python code of their own, which leaves a mark when it runs."""

import json
import struct
from pathlib import Path

from models import tiny

CODE = """
from pathlib import Path

from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

Path({mark!r}).touch()


class OwnConfig(LlamaConfig):
    model_type = {model_type!r}


class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig


class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""
CONFIG = {"AutoConfig": "own.OwnConfig"}
MODEL = {"AutoModelForCausalLM": "own.OwnModel"}
TOKENIZER = {"AutoTokenizer": ["own.OwnTokenizer", None]}


def write(
    folder: Path,
    model_type: str,
    config: dict[str, object] | None = None,
    tokenizer: dict[str, object] | None = None,
    tokenizer_class: str = "OwnTokenizer",
    **changes: object,
) -> Path:
    """Write a model folder with `own.py`; return the file that appears if that ever runs.

    Args:
        folder: of a name of its own: Python imports a module of one name once.
        model_type: one that Transformers knows, or another.
        config, tokenizer: `auto_map` of either file.
        tokenizer_class: what it is called for whoever runs no code.
        changes: other settings of `config.json`.
    """
    mark = folder.with_name(f"{folder.name}-has-run")
    tiny.write_untrained(folder, ["Ada has 4 books.", "4+17=21 #### 21"] * 4)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    (folder / "own.py").write_text(CODE.format(mark=str(mark), model_type=model_type))
    _change(folder / "config.json", model_type=model_type, **({"auto_map": config} if config else {}), **changes)
    if tokenizer:
        _change(folder / "tokenizer_config.json", tokenizer_class=tokenizer_class, auto_map=tokenizer)
    return mark


def _change(file: Path, **changes: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
