"""Packed rows: a training step's time and memory with SDPA and its square mask, and example by example.

Each is a program of its own: forward and backward of one row through a small Llama with random weights.
"""

import subprocess
import sys
import time

from benchmarks.measure import peak_memory, show
from tasks.stage.environment import child_environment

LENGTHS, EXAMPLE = (2048, 8192, 16384), 512
WAYS = {"sdpa": "SDPA with a mask", "packed_sdpa": "example by example"}


def main() -> None:
    rows = []
    for length in LENGTHS:
        first: list[float] = []
        for way, label in WAYS.items():
            command = [sys.executable, "-m", "benchmarks.attention", way, str(length)]
            done = subprocess.run(command, env=child_environment(), check=True, capture_output=True, text=True)
            seconds, peak = map(float, done.stdout.split()[-2:])
            first = first or [seconds, peak]
            ratios = [f"{seconds / first[0]:.2f}", f"{peak / first[1]:.2f}"]
            rows.append([f"{length:,}", label, f"{seconds:.1f}", f"{peak / 2**20:,.0f}", *ratios])
    columns = ["tokens in a row", "attention", "seconds", "MiB at the peak", "÷ seconds", "÷ memory"]
    show(f"A row of examples of {EXAMPLE} tokens, forward and backward", columns, rows)


def measure(way: str, length: int) -> None:
    """Print seconds, and bytes of peak memory, which only grows by what the step needs."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    import models.training.attention  # noqa: F401  registers packed_sdpa

    torch.manual_seed(0)
    shape = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 4}
    config = LlamaConfig(vocab_size=1000, num_attention_heads=4, num_key_value_heads=4, **shape)
    model = LlamaForCausalLM(config)
    model.set_attn_implementation(way)
    positions = torch.arange(length)[None] % EXAMPLE
    start = time.perf_counter()
    hidden = model.model(input_ids=torch.randint(0, 1000, (1, length)), position_ids=positions, use_cache=False)
    hidden.last_hidden_state.sum().backward()
    print(time.perf_counter() - start, peak_memory())


if __name__ == "__main__":
    measure(sys.argv[1], int(sys.argv[2]))
