"""SPIN with the real engines on chats alone: nothing can be verified, and any text is trained on, as bytes."""

import json
import re
from pathlib import Path

import pytest

from tests.byte_model import write_byte_model
from tests.e2e.conftest import autodidact

SETTINGS = """
iterations: 1
generate: {samples: 1, temperature: 1.0, top_k: 0, max_tokens: 16, dtype: float32}
train: {learning_rate: 1.0e-3, beta: 0.1, epochs: 1, batch_size: 16, dtype: float32}
launch: {micro_batch_size: 8}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chats")
    write_byte_model(folder / "bytes")
    (folder / "settings.yaml").write_text(SETTINGS)
    answer = "In Ort {n} ist es jetzt kurz nach zwölf. 现在是中午。"
    said = [{"instruction": f"Wie spät ist es in Ort {n}?", "output": answer.format(n=n)} for n in range(120)]
    (folder / "chats.json").write_text(json.dumps(said))
    given = ("--config", "settings.yaml", "--demonstrations", "chats.json", "--model", "bytes")
    autodidact(folder, "spin", *given, "--run", "chats")
    return folder / "runs" / "chats"


def test_held_out_gold_answers_are_measured_and_nothing_is_verified(run):
    assert not (run / "final" / "base").exists()
    page = (run / "report.html").read_text().replace("\u00a0", " ")
    (first,) = re.findall(r"<h1>(.*?)</h1>", page)
    assert re.match(r"SPIN lowered the test loss per token of gold answers .* \[.*\], n = \d+", first)


def test_the_policy_tells_gold_answers_from_its_opponents(run):
    found = json.loads((run / "iter-1" / "likelihood" / "validation" / "measures.json").read_text())
    played = found["discriminator_accuracy"]
    assert played["rows"] > 0 and 0 <= played["value"]["low"] <= played["value"]["high"] <= 1
    assert played["details"]["rewards/margins"] > 0
