"""Kinds that peft has: attaching, saving, loading and merging are peft's."""

import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model

from models.adapters.adapter import CONFIG, Adapter


class PeftAdapter(Adapter):
    """An adapter whose module peft provides; a subclass says how it is configured."""

    @property
    @abstractmethod
    def peft_config(self) -> PeftConfig: ...

    @property
    def task(self) -> dict[str, Any]:
        """The part of peft's configuration that says what kind of model is trained."""
        return {"task_type": "SEQ_CLS" if self.training.reward else "CAUSAL_LM"}

    def attach(self, model: Any) -> Any:
        self.model = get_peft_model(model, self.peft_config)
        return self.model

    def save(self, folder: Path, weights: Mapping[str, torch.Tensor]) -> None:
        self.model.save_pretrained(folder, state_dict=dict(weights))
        forget_base(folder)


def forget_base(adapter: Path) -> None:
    """Remove the base's path from an adapter's configuration: it depends on the run's location, not on the base."""
    file = adapter / CONFIG
    settings = json.loads(file.read_text())
    for names in ("target_modules", "modules_to_save", "feedforward_modules"):  # sets, whose order changes between runs
        if names in settings:
            settings[names] = sorted(set(settings[names])) if settings[names] else None
    settings["base_model_name_or_path"] = None
    file.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
    (adapter / "README.md").unlink(missing_ok=True)


def load_peft(model: Any, folder: Path) -> Any:
    """The model with the adapter in `folder`."""
    return PeftModel.from_pretrained(model, str(folder))
