"""Held-out rows in the training programs: when they are measured, and how, without a change to what is trained."""

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
    """A base class to stand before one of TRL's trainers: measures `eval_dataset` row by row.

    The Trainer's own loop averages over batches, however many answer tokens or rows each has, and TRL counts those
    rows twice with which the last batch is filled up for several processes. Here every row counts once.
    """

    @abstractmethod
    def row_values(self, model: Any, inputs: dict[str, Any]) -> dict[str, torch.Tensor]:
        """What is measured of each row of a batch, each of shape (rows,)."""

    @abstractmethod
    def figures(self, values: Mapping[str, Sequence[float]]) -> dict[str, float]:
        """What the values of all rows come to."""

    def evaluate(self, *arguments: Any, **options: Any) -> dict[str, float]:
        """The Trainer's, but that no random number is taken from those of the training: its data loader draws one."""
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices=devices):
            return dict(super().evaluate(*arguments, **options))  # type: ignore[misc]

    def evaluation_loop(self, dataloader: Any, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> EvalLoopOutput:
        """In place of the Trainer's: every process makes the same number of passes, and has all figures."""
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
    """Has the Trainer evaluate so many times, at equal distances and last at the end."""

    def __init__(self, count: int) -> None:
        self.count = count

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_evaluate = state.global_step in evaluation_steps(state.max_steps, self.count)


def evaluation_steps(steps: int, count: int) -> set[int]:
    """After which of a training's steps held-out rows are measured; at most once after each."""
    return {-(-steps * number // count) for number in range(1, count + 1)}


def held_out_set(file: Path | None, rows: Sequence[dict[str, Any]], column: str) -> Dataset | None:
    """Rows as an `eval_dataset`, longest first by a column, so that little is padded. None without any.

    Args:
        file: which they are from. That it has more is printed.
    """
    given = count_rows(file) if file else 0
    if len(rows) < given:
        print(f"{given - len(rows):,} of {given:,} held-out rows have no answer that fits: left out", flush=True)
    ordered = sorted(rows, key=lambda row: -len(row[column]))
    return Dataset.from_list(ordered) if ordered else None


def held_out_figures(logs: Mapping[str, Any]) -> dict[str, float]:
    """The figures of held-out rows in what the Trainer logs, by the names they have in metrics.jsonl."""
    speed = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")
    found = {name: float(value) for name, value in logs.items() if name.startswith("eval_") and name not in speed}
    return {f"{PREFIX}/{name.removeprefix('eval_')}": value for name, value in found.items()}
