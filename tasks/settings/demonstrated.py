"""Settings of loops that may learn demonstrations first, and the stages that do."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from data.prepare.reading import Reading
from data.prepare.splits import HELD_OUT
from models.config import Schedule, SupervisedConfig
from models.config_base import Config
from tasks.datasets.demonstrations import Demonstrations, demonstration_examples
from tasks.datasets.select import EXAMPLES
from tasks.policies.train import train
from tasks.stage.contract import Artifact
from tasks.stage.launch import Training
from tasks.stage.run import Place, Result


class SFTTrainConfig(SupervisedConfig):
    """Training on demonstrations as in InstructGPT (arXiv 2203.02155, appendix C.1), for up to 6 B weights."""

    learning_rate: Annotated[float, Field(gt=0, description="Peak learning rate.")] = 9.65e-6
    epochs: Annotated[float, Field(gt=0, description="Passes over the demonstrations.")] = 16.0
    batch_size: Annotated[int, Field(ge=1, description="Demonstrations per optimizer step, over all devices.")] = 32
    schedule: Annotated[Schedule, Field(description="Learning-rate schedule.")] = "cosine"
    warmup: Annotated[float, Field(ge=0, lt=1, description="Share of steps spent on learning-rate warmup.")] = 0.0


class Demonstrated(Config):
    """Demonstrations that a policy learns before the loop begins. Mixed into the settings of a loop."""

    demonstrations: Annotated[
        Path | None, Field(description="Data set of gold answers to learn before anything else, in any known format.")
    ] = None
    sft_train: Annotated[SFTTrainConfig, Field(description="How the policy is trained on them.")] = SFTTrainConfig()

    def shown(
        self, path: Path, apart: Mapping[str, Artifact] | None = None, longest: int | None = None
    ) -> Demonstrations:
        """A data set of demonstrations: read as problems are, but by the columns that it has.

        Args:
            apart: sets of problems whose prompts none may repeat.
            longest: most tokens of a row; if given, the rows are learned beside answers, and may be texts.
        """
        loop: Any = self
        as_problems: Reading = loop.reading(path)
        told = replace(as_problems, format=None, columns={}, every_answer=self.sft_train.loss_on == "all")
        setting = "demonstrations" if path == self.demonstrations else "mix"
        rest = loop.system, apart or {}, loop.overlap.rules, longest or self.sft_train.pack_to, longest is not None
        return Demonstrations(told, setting, *rest)

    def unseen(self, problems: Result) -> dict[str, Artifact]:
        """The sets of problems whose prompts no demonstration may repeat."""
        loop: Any = self
        found: dict[str, Artifact] = loop.held_out(problems, "validation", "test", "transfer")
        return found | ({HELD_OUT: problems.artifact(f"{HELD_OUT}.parquet")} if loop.overlap.held_out else {})


def demonstrated(
    at: Place, config: Any, base: Result, unseen: Mapping[str, Artifact]
) -> tuple[Result, Artifact | None]:
    """Learn the demonstrations, if there are any.

    Args:
        config: settings of a loop with `Demonstrated`.
        unseen: sets of problems whose prompts no demonstration may repeat, by name.

    Returns:
        What comes of it, which the loop starts from, and the rows that were learned.
    """
    if config.demonstrations is None:
        return base, None
    start = base.artifact("policy")
    examples = demonstration_examples(at, config.shown(config.demonstrations, unseen), start).artifact(EXAMPLES)
    return train(at, start, examples, Training(config.sft_train, config.launch)), examples
