"""Lines that libraries print and that tell whoever runs a loop nothing. They stay in the stage's own log.

Only known messages are listed: any other line, and so every real warning or error, passes.
"""

import logging
import re

# What the programs of stages print.
_PRINTED = re.compile(
    "|".join(
        (
            # vLLM: that the CPU has no Triton, how its memory is bound, the loading of weights and CUDA graphs.
            r"Triton is installed, but doesn't include CPU backend",
            r"\[W\S* \S+ utils\.cpp:\d+\] Warning: NUMA binding: Using",
            r"(\([^)]*pid=\d+\) *)?(Loading safetensors checkpoint shards|Capturing CUDA graphs[^:]*): +\d+%",
            # Transformers: a kernel for 4-bit weights on a CPU that is not installed; it has another one.
            r"Failed to load CPU gemm_4bit_forward from kernels-community",
            r"`torch_dtype` is deprecated! Use `dtype` instead!",
            r"The tokenizer has new PAD/BOS/EOS tokens that differ from the model config",
            r"Loading weights: +\d+%",
            # DeepSpeed: all that it logs as information.
            r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+\] \[INFO\] ",
            # PyTorch: how many processes Gloo connected; that a client tries IPv4 after IPv6; torchrun's advice.
            r"\[Gloo\] Rank \d+ is connected to \d+ peer ranks",
            r"\[W\S* \S+ socket\.cpp:\d+\] .* The client socket cannot be initialized to connect to \[\S+\]:\d+ ",
            r"W\d{4} \S+ +\d+ \S+run\.py:\d+\] ($|\*+$|Setting OMP_NUM_THREADS environment variable )",
        )
    )
)

# What Prefect says of its own bookkeeping. The log has a line of ours for each of these, or none is needed.
_PREFECT = re.compile(
    r"Beginning flow run |Created (task|subflow) run |Finished in state Completed\("
    r"|(Starting|Stopping) temporary server on "
)
PREFECT_LOGGERS = ("prefect", "prefect.flow_runs", "prefect.task_runs")


def is_noise(line: str) -> bool:
    """Whether a line that a stage's program printed tells its user nothing."""
    return _PRINTED.match(line) is not None


def tells_something(record: logging.LogRecord) -> bool:
    """A filter of Prefect's loggers: whether a record is more than its bookkeeping."""
    return record.levelno > logging.INFO or _PREFECT.match(record.getMessage()) is None
