"""What can be done with the result of a run, as text that can be pasted."""

import shlex
from pathlib import Path

ANSWERING = """\
messages = [{{"role": "user", "content": "…"}}]
prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
answer = model.generate(**prompt, max_new_tokens=256)[0, prompt["input_ids"].shape[1] :]
print(tokenizer.decode(answer, skip_special_tokens=True))"""
LOADING = (
    """\
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = {folder!r}
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
"""
    + ANSWERING
)


def loading_code(checkpoint: str) -> str:
    """Python code that loads a policy from its folder and answers with it."""
    return LOADING.format(folder=checkpoint)


def commands(directory: Path) -> dict[str, str]:
    """Commands that use the result of a run, by what they do."""
    where = "" if directory.parent == Path("runs") else f" --runs-dir {shlex.quote(str(directory.parent))}"
    run = shlex.quote(directory.name) + where
    return {
        "talk with it": f"autodidact chat {run} --against base",
        "serve it": f"autodidact serve {run}",
        "publish it": f"autodidact publish {run} OWNER/NAME",
    }
