"""`autodidact serve` before its engine starts: what is refused, and what vLLM is told."""

import json
import shutil
from pathlib import Path

import pytest

from data.errors import AutodidactError
from deployments.serve import serve, server_command
from models.config import EngineConfig, SamplingConfig
from tasks.history.checkpoint import Checkpoint
from tasks.policies.shipped import BASES, POLICY
from tasks.tracking.guard import KEY

BASE = next(iter(sorted(BASES.iterdir()))) / POLICY
SAMPLING = SamplingConfig(samples=4, temperature=0.0, top_k=0, max_tokens=48, dtype="float32")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(KEY, raising=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "::", "a-name"])
def test_another_address_than_loopback_needs_a_key(host: str) -> None:
    with pytest.raises(AutodidactError, match=f"there is no key. Set {KEY}"):
        serve([str(BASE), "--host", host])


def test_an_address_of_another_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "secret")
    with pytest.raises(AutodidactError, match="is not an address of this machine"):
        serve([str(BASE), "--host", "192.0.2.1"])


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1"])
def test_a_port_is_a_number(port: str) -> None:
    with pytest.raises(AutodidactError, match="is not a port"):
        serve([str(BASE), f"--port={port}"])


def test_vllm_answers_as_the_run_generates(tmp_path: Path) -> None:
    engine = EngineConfig(max_model_len=512, max_num_seqs=32)
    checkpoint = Checkpoint(BASE, "demo", "the best", None, SAMPLING, "refuse", engine)
    command = server_command(checkpoint, "demo", "127.0.0.1", 8000, tmp_path)
    flags = dict(flag.removeprefix("--").partition("=")[::2] for flag in command if flag.startswith("--"))
    assert json.loads((tmp_path / "generation_config.json").read_text()) == {"eos_token_id": [0]}
    assert flags["generation-config"] == str(tmp_path)
    drawn = json.loads(flags["override-generation-config"])
    assert drawn == {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 48}
    assert (flags["model"], flags["served-model-name"], flags["max-model-len"]) == (str(BASE), "demo", "512")
    assert (flags["dtype"], flags["load-format"], flags["max-num-seqs"]) == ("float32", "safetensors", "32")
    assert "trust-remote-code" not in flags


def test_a_model_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    bare = Path(shutil.copytree(BASE, tmp_path / "bare"))
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(AutodidactError, match="chat template"):
        serve([str(bare)])
