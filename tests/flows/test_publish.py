"""`autodidact publish`: what is published loads and answers as the policy does, and nothing is half published."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, ModelCard, snapshot_download
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from data.metrics import SetMetrics
from flows import rest_em
from flows.commands.cli import main
from tasks.loop.loop import run_loop
from tasks.policies.shipped import BASES
from tasks.stage.contract import MANIFEST, OnDrift, digest_of, load_finished
from tasks.stage.freed import free
from tests.flows import test_reward_model
from tests.flows.conftest import make_config, make_history, prepared
from tests.flows.stubs import common
from tests.hub import TOKEN, Hub, Repository, serving

SHIPPED = BASES / "half-bare" / "policy"
PROMPT = [{"role": "user", "content": "Anna has 12 apples and gets 5 more. How many apples does Anna have?"}]
Text = pytest.CaptureFixture[str]


def write_real_weights(policy: Path) -> None:
    """A policy that answers: the shipped base, with an adapter merged if the stage trains one."""
    adapter = policy.with_name("adapter")
    if not adapter.is_dir():
        shutil.copytree(SHIPPED, policy, dirs_exist_ok=True)
        return
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    settings = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(SHIPPED), settings)
    model.save_pretrained(adapter)
    shutil.copytree(SHIPPED, policy, dirs_exist_ok=True)
    model.merge_and_unload().save_pretrained(policy)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A runs folder with a finished run of one iteration that trained an adapter. Only to be read."""
    folder = tmp_path_factory.mktemp("home")
    with prepared(cache), pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "write_weights", write_real_weights)
        config = make_config(folder, run="em", iterations=1, train={"adapter": {"rank": 4}})
        run_loop("ReST-EM", rest_em.loop, config, OnDrift.REFUSE)
    return folder / "runs"


@pytest.fixture
def copy(home: Path, tmp_path: Path) -> Path:
    """A copy of the run, alone in its runs folder, to be changed."""
    return Path(shutil.copytree(home / "em", tmp_path / "runs" / "em"))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as found:
        found.use(monkeypatch, tmp_path / "hub-cache")
        yield found


def publish(runs: Path, *arguments: str, code: int = 0) -> None:
    assert main(["publish", "em", "ada/em", *arguments, "--runs-dir", str(runs)]) == code


def refused(runs: Path, capsys: Text, *arguments: str, code: int = 2) -> str:
    publish(runs, *arguments, code=code)
    error = capsys.readouterr().err
    assert error.startswith("autodidact: ") and "Traceback" not in error
    return error


def answer(folder: str | Path, **told: Any) -> str:
    from transformers import AutoModelForCausalLM

    return answer_of(AutoModelForCausalLM.from_pretrained(folder, **told), folder)


def answer_of(model: Any, tokenizer: str | Path) -> str:
    from transformers import AutoTokenizer

    reader = AutoTokenizer.from_pretrained(tokenizer)
    prompt = reader.apply_chat_template(PROMPT, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    return str(reader.decode(model.generate(**prompt, max_new_tokens=32, do_sample=False)[0]))


def change_manifest(stage: Path, **changes: Any) -> None:
    file = stage / MANIFEST
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def begin_with(run: Path, model: str, commit: str = "") -> None:
    """Make it a run that began with that model."""
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"model": model}))
    if commit:
        change_manifest(run / "base", origin={"model": model, "commit": commit})


# --- a folder


def test_the_folder_has_the_policys_bytes_and_answers_as_it_does(home, tmp_path, capsys):
    publish(home, "--to", str(tmp_path / "out"))
    assert f"em, iteration 1, is in {tmp_path / 'out'}." in capsys.readouterr().out
    policy = home / "em" / "best" / "policy"
    written = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    assert written.pop("README.md")
    assert written == {file.name: file.read_bytes() for file in policy.iterdir()}
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja", "config.json"} <= written.keys()
    assert [file for file in (tmp_path / "out").iterdir() if file.is_symlink()] == []
    assert answer(tmp_path / "out") == answer(policy) != answer(SHIPPED)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"], "nothing partial is left"


def test_the_cards_figures_are_those_of_the_runs_files(home, tmp_path):
    publish(home, "--to", str(tmp_path / "out"))
    card = ModelCard.load(tmp_path / "out" / "README.md")
    summary, text = json.loads((home / "em" / "summary.json").read_text()), card.text.replace("\\", "")
    found = {(one.dataset_split, one.metric_type): one for one in card.data.eval_results or ()}
    for name in ("test", "transfer"):
        file = home / "em" / "final" / "best" / name / "metrics.json"
        metrics = SetMetrics.model_validate_json(file.read_text())
        for metric, told in (("accuracy", metrics.greedy), ("sampled_accuracy", metrics.pass_at[1])):
            one = found.pop((name, metric))
            assert one.metric_value == told.value
            assert one.metric_args == {"low": told.low, "high": told.high, "rows": metrics.problems}
        row = summary["final"][name]
        said = f"| {name} | greedy pass@1 | {row['n']} problems | {row['base']} | {row['best']} | {row['gain']} |"
        assert said in text
    assert found == {}
    for sentence in summary["findings"]:
        assert sentence in text
    problems = load_finished(home / "em" / "problems")
    assert problems
    for name, record in problems.manifest.outputs.items():
        assert name == "data.json" or (f"| problems/{name} | " in text and record.sha256 in text)
    kept = json.loads((home / "em" / "iter-1" / "select" / "selection.json").read_text())["kept"]
    assert f"| iter-1/select/examples.parquet | {kept} | arithmetic: {kept} |" in text
    assert (card.data.license, card.data.library_name, card.data.base_model) == ("apache-2.0", "transformers", None)
    assert "learning_rate:" in text and "arXiv 2312.06585" in text and "'ada/em'" in text
    assert str(home) not in card.content and "runs_dir" not in card.content


def test_what_others_wrote_has_no_meaning_in_the_card(copy, tmp_path):
    hostile = "```\n# forged\n![x](https://example.org/x.png) <script>alert(1)</script> \x1b[2J {{ 7 * 7 }} \ud800|"
    config = json.loads((copy / "config.json").read_text())
    config |= {"system": hostile, "algorithm": hostile, "problems": "/home/ada/secret/rows.jsonl"}
    config["reward"]["judge"]["endpoint"] = "http://10.0.0.7/v1"
    (copy / "config.json").write_text(json.dumps(config))
    summary = json.loads((copy / "summary.json").read_text())
    (copy / "summary.json").write_text(json.dumps(summary | {"findings": [hostile]}))
    publish(copy.parent, "--to", str(tmp_path / "out"))
    card = ModelCard.load(tmp_path / "out" / "README.md")
    outside = card.text.partition("````yaml")[0] + card.text.partition("\n````\n")[2]
    assert "````yaml" in card.text, "a longer fence than any in the settings"
    assert "<script>" not in outside and "![x]" not in outside and "\n# forged" not in outside
    assert "\x1b" not in card.content and "{{ 7 * 7 }}" in card.content.replace("\\", "")
    assert "secret" not in card.content and "10.0.0.7" not in card.content and "problems: rows.jsonl" in card.content


# --- a hub


def test_upload_and_download_give_equal_bytes_and_mlflow_has_the_address(home, hub, tmp_path, capsys):
    publish(home)
    out = capsys.readouterr().out
    assert f"em, iteration 1, is published at {hub.address}/ada/em\n" in out
    assert "The address is noted with version 2 of autodidact-em in MLflow." in out
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    assert client.get_model_version("autodidact-em", "2").tags["published"] == f"{hub.address}/ada/em"
    (begun, files), policy = hub.repositories["ada/em"].branches["main"], home / "em" / "best" / "policy"
    assert begun == {} and hub.tokens == {None, f"Bearer {TOKEN}"} and TOKEN not in out
    publish(home, "--to", str(tmp_path / "out"))
    assert files == {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    there = Path(snapshot_download("ada/em"))
    assert {f.name: f.read_bytes() for f in there.iterdir()} == files
    assert answer("ada/em") == answer(policy)


def test_without_mlflow_it_is_published_and_what_is_missing_is_said(home, hub, monkeypatch, capsys):
    def away(runs: Path) -> None:
        raise MlflowException("it does not answer")

    monkeypatch.setattr("flows.commands.publish.open_registry", away)
    publish(home, code=1)
    found = capsys.readouterr()
    assert f"is published at {hub.address}/ada/em" in found.out and "it does not answer" in found.err
    assert "run the same command again" in found.err and len(hub.repositories["ada/em"].branches["main"]) == 2


# --- an adapter


def test_an_adapter_with_its_base_answers_as_the_merged_policy(copy, hub, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    shipped = {file.name: file.read_bytes() for file in SHIPPED.iterdir()}
    hub.repositories["eve/base"] = Repository(branches={"main": [shipped]})
    begin_with(copy, "eve/base", str(HfApi().model_info("eve/base").sha))
    publish(copy.parent, "--adapter", "--license", "mit")
    files = hub.repositories["ada/em"].branches["main"][-1]
    assert {"adapter_model.safetensors", "tokenizer.json", "chat_template.jinja"} <= files.keys()
    assert not {"model.safetensors", "config.json"} & files.keys()
    card = ModelCard(files["README.md"].decode())
    assert (card.data.base_model, card.data.license, card.data.library_name) == ("eve/base", "mit", "peft")
    assert "PeftModel.from_pretrained(base, 'ada/em')" in card.text
    told = json.loads(files["adapter_config.json"])
    base = snapshot_download(told["base_model_name_or_path"], revision=told["revision"])
    adapter = snapshot_download("ada/em")
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    assert answer_of(adapted, adapter) == answer(copy / "best" / "policy") != answer(base)


def test_an_adapter_that_nobody_could_load_is_refused(home, copy, capsys, tmp_path):
    error = refused(home, capsys, "--adapter", "--to", str(tmp_path / "out"))
    assert "It belongs to the embedded tiny model" in error and "Leave out --adapter" in error
    train = load_finished(copy / "iter-1" / "train")
    assert train
    outputs = {name: record for name, record in train.manifest.outputs.items() if not name.startswith("adapter/")}
    digest = digest_of({name: record.sha256 for name, record in outputs.items()})
    change_manifest(train.path, outputs={n: r.model_dump() for n, r in outputs.items()}, digest=digest)
    error = refused(copy.parent, capsys, "--adapter", "--to", str(tmp_path / "out"))
    assert "has no adapter. Iteration 1 trained all weights. Leave out --adapter" in error
    assert not (tmp_path / "out").exists()


# --- a reward model


def test_a_reward_model_has_its_own_figures_and_no_adapter_alone(cache, tmp_path, capsys):
    make_history(tmp_path / "runs")
    with prepared(cache):
        config = test_reward_model.configure(tmp_path, test_reward_model.rows(200), train={"adapter": {"rank": 4}})
        metrics = test_reward_model.start(config)["held_out"]
    publish_it = ["publish", "rm", "ada/rm", "--runs-dir", str(tmp_path / "runs"), "--to", str(tmp_path / "out")]
    assert main([*publish_it, "--adapter"]) == 2
    assert "made a reward model" in capsys.readouterr().err
    assert main(publish_it) == 0
    card = ModelCard.load(tmp_path / "out" / "README.md")
    text = card.text.replace("\\", "")
    assert f"| pairs | {metrics['pairs']:,} |" in text and f"{metrics['accuracy']['value']:.1%} [" in text
    assert "AutoModelForSequenceClassification" in text and card.data.pipeline_tag == "text-classification"
    assert "| pairs | pairs.jsonl | " in text and str(tmp_path) not in text


# --- licenses


def test_a_license_comes_from_the_bases_card_or_must_be_given(copy, hub, tmp_path, capsys):
    def license_of(*arguments: str) -> dict[str, Any]:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        publish(copy.parent, "--to", str(tmp_path / "out"), *arguments)
        told = ModelCard.load(tmp_path / "out" / "README.md").data.to_dict()
        return {name: told[name] for name in told if name.startswith(("license", "base_model"))}

    begin_with(copy, str(tmp_path / "own"))
    error = refused(copy.parent, capsys, "--to", str(tmp_path / "out"))
    assert "It began with a model in the folder own" in error and "--license apache-2.0" in error
    assert license_of("--license", "mit") == {"license": "mit"}
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "README.md").write_text("---\nlicense: [\n---\nbroken")
    assert "The license of em is not known" in refused(copy.parent, capsys, "--to", str(tmp_path / "out2"))
    (tmp_path / "own" / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# mine")
    assert license_of() == {"license": "cc-by-4.0"}

    card = b"---\nlicense: other\nlicense_name: research\nlicense_link: LICENSE\n---\n"
    hub.repositories["eve/base"] = Repository(branches={"main": [{"README.md": card}]})
    commit = str(HfApi().model_info("eve/base").sha)
    begin_with(copy, "eve/base", commit)
    assert "The license of em is not known" in refused(copy.parent, capsys, "--to", str(tmp_path / "out2"))
    snapshot_download("eve/base", revision=commit)
    assert license_of() == {
        "license": "other",
        "license_name": "research",
        "license_link": f"https://huggingface.co/eve/base/blob/{commit}/LICENSE",
        "base_model": "eve/base",
        "base_model_relation": "finetune",
    }
    later = Path(shutil.copytree(copy, copy.with_name("later")))
    change_manifest(later / "base", origin={})
    begin_with(later, str(copy / "best" / "policy"))
    assert main(["publish", "later", "ada/later", "--to", str(tmp_path / "l"), "--runs-dir", str(copy.parent)]) == 0
    told = ModelCard.load(tmp_path / "l" / "README.md")
    assert (told.data.base_model, told.data.license_name) == ("eve/base", "research")
    assert "the policy of the run em, which began with eve/base" in told.text.replace("\\", "")


# --- runs that cannot be published


def test_a_run_without_a_policy(copy, tmp_path, capsys):
    to = ["--to", str(tmp_path / "out")]
    assert main(["publish", "none", "ada/em", *to, "--runs-dir", str(copy.parent)]) == 2
    assert "has no run 'none'" in capsys.readouterr().err
    (copy / "summary.json").unlink()
    assert "It is unfinished: the report is next. Let it finish" in refused(copy.parent, capsys, *to)
    shutil.rmtree(copy / "best")
    assert "has no policy to publish yet" in refused(copy.parent, capsys, *to)


def test_weights_that_are_gone_or_changed(copy, tmp_path, capsys):
    to, weights = ["--to", str(tmp_path / "out")], copy / "best" / "policy" / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "was changed after it was written" in refused(copy.parent, capsys, *to)
    weights.write_bytes(content)
    free(copy / "best", "clean --keep best")
    error = refused(copy.parent, capsys, *to)
    assert "1 file freed on" in error and "--on-drift rebuild" in error
    assert not (tmp_path / "out").exists()
