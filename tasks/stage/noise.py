"""Lines printed by libraries that do not help the user of a loop. They stay in the stage's own log.

Only known messages are listed: any other line passes, and so does every real warning or error.
"""

import logging
import re

# Lines printed by the stages' programs.
_PRINTED = re.compile(
    "|".join(
        (
            # vLLM: that the CPU has no Triton, how its memory is bound, the loading of weights and CUDA graphs.
            r"Triton is installed, but doesn't include CPU backend",
            r"(\[rank\d+\]:)?\[W\S* \S+ utils\.cpp:\d+\] Warning: NUMA binding: Using",
            r"(\([^)]*pid=\d+\) *)?(Loading safetensors checkpoint shards|Capturing CUDA graphs[^:]*): +\d+%",
            # Transformers: a kernel for 4-bit weights on CPU that is not installed; it uses another one.
            r"Failed to load CPU gemm_4bit_forward from kernels-community",
            r"`torch_dtype` is deprecated! Use `dtype` instead!",
            r"The tokenizer has new PAD/BOS/EOS tokens that differ from the model config",
            r"Loading weights: +\d+%",
            # Accelerate: that DeepSpeed's configuration has the steps of gradient accumulation, and counts.
            r"\[RANK \d+\] Gradient accumulation steps mismatch: .* Using DeepSpeed's value",
            # DeepSpeed: everything it logs at level INFO.
            r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+\] \[INFO\] ",
            # PyTorch: how many processes Gloo connected; that a client tries IPv4 after IPv6; torchrun's advice.
            r"\[Gloo\] Rank \d+ is connected to \d+ peer ranks",
            r"\[W\S* \S+ socket\.cpp:\d+\] .* The client socket cannot be initialized to connect to \[\S+\]:\d+ ",
            r"W\d{4} \S+ +\d+ \S+run\.py:\d+\] ($|\*+$|Setting OMP_NUM_THREADS environment variable )",
        )
    )
)

# Prefect's bookkeeping messages. Our log has its own line for each of these, or needs none.
_PREFECT = re.compile(
    r"Beginning flow run |Created (task|subflow) run |Finished in state Completed\("
    r"|(Starting|Stopping) temporary server on "
)
PREFECT_LOGGERS = ("prefect", "prefect.flow_runs", "prefect.task_runs")


def is_noise(line: str) -> bool:
    """Whether a line printed by a stage's program is of no use to the user."""
    return _PRINTED.match(line) is not None


def tells_something(record: logging.LogRecord) -> bool:
    """A filter for Prefect's loggers: whether a record is more than bookkeeping."""
    return record.levelno > logging.INFO or _PREFECT.match(record.getMessage()) is None
