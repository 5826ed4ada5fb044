"""Held-out rows in the training programs: when and how they are measured, without affecting training."""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from transformers.trainer_utils import EvalLoopOutput

from data.storage import count_rows

PREFIX = "held_out"


class MeasuresHeldOut(ABC):
    """A mixin for TRL's trainers, before the trainer in the bases: measures `eval_dataset` row by row.

    The Trainer's own loop averages over batches, regardless of their answer tokens or rows, and TRL counts the rows
    that fill up the last batch for several processes twice. Here every row counts once.
    """

    @abstractmethod
    def row_values(self, model: Any, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The measured values of each row in a batch, each of shape (rows,)."""

    @abstractmethod
    def figures(self, values: Mapping[str, Sequence[float]]) -> dict[str, float]:
        """Combine the values of all rows."""

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """The Trainer's, but without using training's random numbers: its data loader draws one."""
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices=devices):
            return dict(super().evaluate(*arguments, **options))  # type: ignore[misc]

    def evaluation_loop(self, dataloader: Any, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> EvalLoopOutput:
        """Replaces the Trainer's: every process makes the same number of passes, and gets all values."""
        trainer: Any = self
        trainer.model_wrapped.eval()
        found: dict[str, list[float]] = defaultdict(list)
        for inputs in dataloader:
            with torch.no_grad(), trainer.compute_loss_context_manager():
                values = self.row_values(trainer.model_wrapped, trainer._prepare_inputs(inputs))
            for name, gathered in trainer.accelerator.gather_for_metrics(values).items():
                found[name] += gathered.tolist()
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in self.figures(found).items()}
        return EvalLoopOutput(None, None, metrics, num_samples=len(next(iter(found.values()), [])))


class Evaluations(TrainerCallback):  # type: ignore[misc]
    """Makes the Trainer evaluate `count` times, evenly spaced, the last time at the end."""

    def __init__(self, count: int) -> None:
        self.count = count

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_evaluate = state.global_step in evaluation_steps(state.max_steps, self.count)


def evaluation_steps(steps: int, count: int) -> set[int]:
    """The training steps after which held-out rows are measured, at most once each."""
    return {-(-steps * number // count) for number in range(1, count + 1)}


def held_out_set(file: Path | None, rows: Sequence[dict[str, Any]], column: str) -> Dataset | None:
    """Rows as an `eval_dataset`, longest first by a column, for little padding. None if there are no rows.

    Args:
        file: their source. If it has more rows, a message says so.
    """
    given = count_rows(file) if file else 0
    if len(rows) < given:
        print(f"{given - len(rows):,} of {given:,} held-out rows have no answer that fits: left out", flush=True)
    ordered = sorted(rows, key=lambda row: -len(row[column]))
    return Dataset.from_list(ordered) if ordered else None


def held_out_figures(logs: Mapping[str, Any]) -> dict[str, float]:
    """The values of held-out rows in the Trainer's logs, by their names in metrics.jsonl."""
    speed = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
    found = {name: float(value) for name, value in logs.items() if name.startswith("eval_") and name not in speed}
    return {f"{PREFIX}/{name.removeprefix('eval_')}": value for name, value in found.items()}
