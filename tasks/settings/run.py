"""The settings that every run has."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, GetJsonSchemaHandler, field_validator, model_validator

from models.adapters.settings import SHARDED, UNMERGED, AdapterConfig
from models.config import LaunchConfig, TrainConfig, gradient_accumulation
from models.config_base import Config
from tasks.policies.base import PolicySource
from tasks.settings.leading import MACHINE, START, TRAINING
from tasks.stage.environment import ARTIFACTS, PREFECT, SERVICES, SQLITE
from tasks.stage.launch import Training

LONGEST_NAME = 100  # characters of a run's name: files, MLflow runs and Prefect artifacts are named after it


class RunName(Config):
    """The first setting of every form and every help text."""

    run: Annotated[
        str,
        Field(
            pattern=r"^([A-Za-z0-9]|%[YmdHMS])([A-Za-z0-9._-]|%[YmdHMS])*$",
            max_length=LONGEST_NAME,
            description="Name of the run. May contain the date, as in nightly-%Y-%m-%d; an unfinished run continues.",
        ),
    ] = "run"

    @field_validator("run")
    @classmethod
    def _is_not_taken(cls, run: str) -> str:
        if run.lower() in (PREFECT, SERVICES, ARTIFACTS) or run.lower().startswith(SQLITE):
            raise ValueError(f"the name {run} is reserved for a file in the folder of runs. Choose another name")
        return run


class RunConfig(PolicySource, RunName):
    """Settings that every run has."""

    leading_settings: ClassVar[tuple[str, ...]] = (*START, *TRAINING, *MACHINE)
    """Settings that --help shows, in this order (see `tasks/settings/leading.py`)."""

    runs_dir: Annotated[Path, Field(description="Folder that holds all runs.")] = Path("runs")
    registry: Annotated[
        str | None,
        Field(description="Registered model for the checkpoints. Default: the run's name without its date."),
    ] = None
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="Random seed.")] = 0
    train: Annotated[TrainConfig, Field(description="How the policy is trained.")] = TrainConfig()
    launch: Annotated[LaunchConfig, Field(description="How training runs.")] = LaunchConfig()

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """The schema of forms, where the leading settings come first."""
        found = handler(core_schema)
        properties = handler.resolve_ref_schema(found)["properties"]
        first = [name.partition(".")[0] for name in cls.leading_settings]
        for name in dict.fromkeys([*first, *properties]):
            if name in properties:
                properties[name] = properties.pop(name)
        return found

    @property
    def directory(self) -> Path:
        return self.runs_dir / self.run

    @property
    def registered(self) -> str:
        """The registered model; if the settings name none, `tasks.tracking.champion.resolve_settings` has set it."""
        assert self.registry is not None
        return self.registry

    @property
    def training(self) -> Training[Any]:
        """Settings of the stages that train."""
        return Training(self.train, self.launch)

    @property
    def trained(self) -> dict[str, TrainConfig]:
        """How models are trained in the run, by the setting that says it."""
        train: TrainConfig = self.train
        return {"train": train}

    @property
    def row_tokens(self) -> int:
        """Tokens of a training row, for estimates; 0 if the settings do not say."""
        return 0

    def input_files(self) -> dict[str, Path]:
        """Return every file that must exist before the run starts, by the setting that names it."""
        return {"adapter": self.adapter} if self.adapter else {}

    def check_inputs(self) -> None:
        """Read the run's own input files, if any, so that bad ones are refused before anything heavy starts."""

    @model_validator(mode="after")
    def _launch_fits(self) -> Self:
        for setting, config in self.trained.items():
            gradient_accumulation(config, self.launch, setting)
            if config.quantize and self.launch.zero_stage == 3:
                raise ValueError(
                    f"{setting}.adapter.quantize: ZeRO 3 cannot shard 4-bit weights across devices. Choose "
                    "launch.zero_stage 0, 1 or 2 (each device then holds all weights, at half a byte each), or do not "
                    "quantize."
                )
            kind = config.adapter.kind if config.adapter else SHARDED[0]
            if self.launch.zero_stage == 3 and kind not in SHARDED:
                raise ValueError(
                    f"{setting}.adapter.kind {kind} needs whole weights on each device, but launch.zero_stage is 3. "
                    f"Choose launch.zero_stage 0, 1 or 2, or a kind that works with 3: {', '.join(SHARDED)}."
                )
            if config.adapter is not None:
                self._check_virtual_tokens(setting, config.adapter, config)
        self._check_adapters_agree()
        return self

    def _check_virtual_tokens(self, setting: str, adapter: AdapterConfig, config: TrainConfig) -> None:
        if adapter.tokens and getattr(config, "pack_to", None):
            raise ValueError(
                f"{setting}.adapter.kind {adapter.kind} puts virtual tokens in front of a row, but with "
                f"{setting}.pack_to a row has several examples. Set {setting}.pack_to to none."
            )
        if adapter.kind == "prefix" and self.launch.gradient_checkpointing:
            raise ValueError(
                "launch.gradient_checkpointing recomputes layers without the keys and values that prefix tuning puts "
                "in front. Leave it out, or choose another adapter."
            )

    def _check_adapters_agree(self) -> None:
        """An adapter that stays beside the weights is gone on with, so there can be only one."""
        adapters = {setting: config.adapter for setting, config in self.trained.items()}
        beside = next((one for one in adapters.values() if one is not None and one.kind in UNMERGED), None)
        if beside is None or all(one == beside for one in adapters.values()):
            return
        raise ValueError(
            f"An adapter of the kind {beside.kind} stays beside the weights, and all training in the run goes on with "
            f"it. Give {', '.join(f'{setting}.adapter' for setting in adapters)} the same settings."
        )
