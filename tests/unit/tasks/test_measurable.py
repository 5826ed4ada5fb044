"""What can be measured on held-out rows, told from the first of them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data.prepare.prepare import prepare
from data.prepare.sources import DataFileError
from flows.dpo import DPO
from flows.rest_em import RestEM
from flows.sft import SFT
from flows.spin import Spin
from models import tiny
from tasks.datasets.held_out import Measurable
from tasks.datasets.problems import note_further, require_problems

CHAT = [{"instruction": f"Say {n} in words.", "output": f"It is called n{n} there."} for n in range(60)]
SILENT = [{"instruction": f"Say {n} in words.", "output": ""} for n in range(60, 63)]
WORKED = [{"question": f"{n} + 1?", "answer": f"{n}+1={n + 1} #### {n + 1}"} for n in range(60)]
BARE = [{"question": f"{n} + 2?", "solution": "", "answer": str(n + 2)} for n in range(20)]
ASKED = [{"question_id": n, "category": "writing", "turns": [f"Write about {n}.", "Shorter."]} for n in range(20)]
SPLIT = {"problems": CHAT, "validation": ASKED[:5], "test": ASKED[5:]}
PROGRAMS = [{"text": f"Write f{n}.", "code": "def f(): pass", "test_list": ["assert f() is None"]} for n in range(20)]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("demonstrations", "held_out", "settings", "expected"),
    [
        (CHAT, None, {}, Measurable(verified=False, gold=True)),
        (WORKED, None, {}, Measurable(verified=True, gold=True)),
        (WORKED, None, {"verify": False}, Measurable(verified=False, gold=True)),
        (WORKED[:57] + CHAT[:3], None, {}, Measurable(verified=True, gold=True)),  # mistakes, which reading reports
        (WORKED[:40] + CHAT[:20], None, {}, Measurable(verified=False, gold=True)),
        (CHAT[:57] + SILENT, None, {}, Measurable(verified=False, gold=True)),
        (CHAT, WORKED, {}, Measurable(verified=True, gold=True)),
        (CHAT, BARE, {}, Measurable(verified=True, gold=False)),
        (CHAT, ASKED, {}, Measurable(verified=False, gold=False)),
        (CHAT, ASKED, {"reward": {"name": "judge", "judge": {"model": "m"}}}, Measurable(verified=True, gold=False)),
        (PROGRAMS, None, {"reward": {"name": "program"}}, Measurable(verified=True, gold=True)),
    ],
)
def test_what_the_first_rows_say(tmp_path, demonstrations, held_out, settings, expected):
    told: dict[str, Any] = {"problems": write(tmp_path / "gold.jsonl", demonstrations), **settings}
    if held_out:
        told |= {name: write(tmp_path / f"{name}.jsonl", held_out) for name in ("validation", "test")}
    assert SFT.model_validate(told).measurable == expected
    assert Spin.model_validate(told).measurable == expected


def read(config: Any, folder: Path) -> dict[str, int]:
    _, found = prepare(replace(config.preparation(0), rules=config.overlap.rules), folder, note_further)
    return {split: counts.total() for split, counts in found.sources.items() if counts}


def test_chat_is_split_and_held_out_without_a_verifier(tmp_path):
    config = SFT(problems=write(tmp_path / "gold.jsonl", CHAT))
    counts = read(config, tmp_path / "rows")
    assert set(counts) == {"train", "validation", "test"} and sum(counts.values()) == 60


def test_a_mistake_among_verifiable_rows_is_reported_and_no_reason_to_verify_none(tmp_path):
    config = SFT(problems=write(tmp_path / "gold.jsonl", [*WORKED[:59], CHAT[0]]))
    with pytest.raises(DataFileError, match="line 60"):
        read(config, tmp_path / "rows")


def test_prompts_alone_can_be_held_out(tmp_path):
    rows = write(tmp_path / "bench.jsonl", ASKED)
    config = Spin(
        problems=write(tmp_path / "gold.jsonl", CHAT), validation=rows, test=rows.rename(tmp_path / "b.jsonl")
    )
    config = config.model_copy(update={"validation": write(tmp_path / "c.jsonl", ASKED[:5])})
    assert read(config, tmp_path / "rows")["test"] == 20


@pytest.mark.parametrize(
    ("flow", "says"), [(SFT, "--demonstrations"), (Spin, "--demonstrations"), (RestEM, "--problems")]
)
def test_the_embedded_problems_are_for_the_embedded_model(tmp_path, flow, says):
    require_problems(flow())
    tiny.write_untrained(tmp_path / "policy", ["Ada has 4 books."])
    require_problems(flow(model=str(tmp_path / "policy")))  # one that descends from it
    with pytest.raises(DataFileError, match=f"for the embedded model only.*{says}"):
        require_problems(flow(model="owner/other-1B"))


def test_dpo_needs_no_problems_but_those_that_it_is_given(tmp_path):
    pairs = {"pairs": tmp_path / "pairs.jsonl"}
    assert DPO(**pairs).has_problems
    assert not DPO(**pairs, model="owner/other-1B").has_problems
    config = DPO(**pairs, model="owner/other-1B", validation=write(tmp_path / "v.jsonl", WORKED))
    require_problems(config)
    assert config.has_problems and read(config, tmp_path / "rows") == {"validation": 60}
