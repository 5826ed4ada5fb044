"""The command line: one configuration class gives flags, YAML keys and defaults, and every mistake is named."""

import json
import re
import subprocess
import sys
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from platform import python_version

import pytest
from transformers import AutoConfig

from benchmarks.identity import UNRELATED
from data.errors import UsageError
from flows.commands.cli import main
from flows.commands.config_file import read_config
from flows.commands.flow_table import own_flows
from flows.commands.help_text import as_flag, settings_of
from flows.commands.settings import read_settings
from flows.commands.settings_parser import SettingsParser
from flows.commands.yaml_file import read_yaml
from flows.dpo import DPO
from flows.rest_em import RestEM
from flows.sft import SFT
from flows.spin import Spin
from models.adapters.settings import AdapterConfig
from tasks.settings.leading import leading

CONFIGS = sorted((Path(__file__).parents[3] / "configs").rglob("*.yaml"))
OF_FLOW = {
    "spin": "spin",
    "grpo": "grpo",
    "rlhf": "rlhf",
    "self-rewarding": "self-rewarding",
    "rlaif": "rlaif",
    "sft": "sft",
    "dpo": "dpo",
    "identity": "sft",
}  # by how the file's name begins


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Read settings from a YAML text (unless None) and flags."""
    monkeypatch.chdir(tmp_path)

    def read(text: str | None, *flags: str) -> RestEM:
        if text is not None:
            Path("settings.yaml").write_text(text)
            flags = ("--config", "settings.yaml", *flags)
        config, _ = read_settings(RestEM, list(flags), "autodidact rest-em")
        assert isinstance(config, RestEM)
        return config

    return read


def test_without_file_and_flags_the_defaults_are_the_published_settings(settings) -> None:
    config = settings(None)
    assert config == RestEM()
    generate, select = config.generate, config.select
    assert (generate.samples, generate.temperature, generate.top_k, generate.top_p) == (32, 0.7, 40, 1.0)
    assert (select.max_per_problem, select.min_reward) == (10, 1.0)
    assert (config.iterations, config.init, config.stop.rule) == (3, "base", "paper")
    assert (config.train.learning_rate, config.train.batch_size, config.train.epochs) == (1e-6, 64, 8)
    assert (config.evaluate.samples, config.evaluate.temperature, config.evaluate.top_p) == (64, 1.0, 0.95)


def test_flags_win_over_the_file_which_wins_over_the_defaults(settings) -> None:
    text = "seed: 5\niterations: 7\ngenerate: {samples: 4, temperature: 0.5}\ntrain: {epochs: 2}"
    config = settings(text, "--iterations", "2", "--generate.samples", "8")
    assert (config.seed, config.iterations) == (5, 2)
    assert (config.generate.samples, config.generate.temperature, config.generate.top_k) == (8, 0.5, 40)
    assert (config.train.epochs, config.train.batch_size) == (2, 64)


@pytest.mark.parametrize(
    ("flags", "path", "value"),
    [
        (["--seed", "3"], "seed", 3),
        (["--seed=3"], "seed", 3),
        (["--model", "organisation/name-7B"], "model", "organisation/name-7B"),
        (["--problems", "my problems.jsonl"], "problems", Path("my problems.jsonl")),
        (["--train.learning-rate", "1e-3"], "train.learning_rate", 1e-3),
        (["--stop.rule", "patience", "--stop.patience", "2"], "stop.patience", 2),
        (["--evaluate.samples", "8", "--evaluate.pass-at", "[1,8]"], "evaluate.pass_at", (1, 8)),
        (["--bootstrap.train.epochs", "1"], "bootstrap.train.epochs", 1.0),
        (["--engine.enforce-eager", "true"], "engine.enforce_eager", True),
        (["--launch.gradient-checkpointing", "true"], "launch.gradient_checkpointing", True),
    ],
)
def test_every_setting_is_a_flag_also_a_nested_one(settings, flags: list[str], path: str, value: object) -> None:
    found = settings(None, *flags)
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value


@pytest.mark.parametrize(("given", "value"), [("1e-4", 1e-4), ("[1e-4, 1e-5]", (1e-4, 1e-5))])
def test_spin_takes_one_number_for_all_iterations_or_one_for_each(given: str, value: object) -> None:
    config, _ = read_settings(Spin, ["--iterations", "2", "--train.learning-rate", given], "autodidact spin")
    assert config.train.learning_rate == value


def test_an_option_of_the_command_is_no_setting(tmp_path: Path) -> None:
    config, options = read_settings(RestEM, ["--dry-run", "--on-drift", "rebuild"], "autodidact rest-em")
    assert (options.dry_run, options.on_drift) == (True, "rebuild")
    assert config == RestEM()


@pytest.mark.parametrize(
    ("text", "flags", "says"),
    [
        ("iteration: 3", [], ["unknown setting iteration (did you mean iterations?)", "settings.yaml"]),
        ("generate: {temprature: 1}", [], ["unknown setting generate.temprature (did you mean temperature?)"]),
        ("bootstrap: {train: {epoch: 1}}", [], ["bootstrap.train.epoch (did you mean epochs?)"]),
        ("qqqq: 1", [], ["unknown setting qqqq\n"]),
        ("a: 1\nb: 2\nseed: x", [], ["unknown setting a", "unknown setting b", "seed: "]),
        (None, ["--iteration", "3"], ["unknown setting --iteration (did you mean --iterations?)", "--help"]),
        (None, ["--generate.sample=3"], ["unknown setting --generate.sample (did you mean --generate.samples?)"]),
        (None, ["--learning-rate", "1"], ["unknown setting --learning-rate (did you mean --train.learning-rate?)"]),
        (None, ["stray"], ["'stray' belongs to no setting", "--setting value"]),
        (None, ["--iterations"], ["--iterations", "expected one argument"]),
        (None, ["--on-drift", "ignore"], ["--on-drift", "'ignore'", "refuse"]),
        ("iterations: three", [], ["iterations: ", "integer", "'three'", "settings.yaml and the command line"]),
        (None, ["--generate.max_tokns=3"], ["setting --generate.max_tokns (did you mean --generate.max-tokens?)"]),
        (None, ["--columns.my_key", "x"], ["unknown setting --columns.my_key (did you mean --columns?)"]),
        ("generate: {max_tokns: 3}", [], ["unknown setting generate.max_tokns (did you mean max_tokens?)"]),
        (None, ["--generate.max-tokens", "0"], ["--generate.max-tokens: ", "greater than or equal to 1"]),
        ("generate: {max_tokens: 0}", [], ["  generate.max_tokens: ", "greater than or equal to 1"]),
        (None, ["--iterations", "three"], ["iterations: ", "integer", "'three'", "from the command line"]),
        (None, ["--iterations", "0"], ["iterations: ", "greater than or equal to 1", "0"]),
        ("seed: -1", [], ["seed: ", "greater than or equal to 0", "-1"]),
        ("generate: 5", [], ["generate: "]),
        ("generate: {top_p: 1.5}", [], ["generate.top_p: ", "less than or equal to 1", "1.5"]),
        (None, ["--init", "first"], ["init: ", "'base', 'last' or 'champion'", "'first'"]),
        ("run: ../elsewhere", [], ["run: ", "pattern", "'../elsewhere'"]),
        ("run: ''", [], ["run: ", "pattern"]),
        ("evaluate: {samples: 4, pass_at: [1, 8]}", [], ["evaluate.pass_at [8] is not within 1…4", "Raise"]),
        ("evaluate: {pass_at: [0]}", [], ["evaluate.pass_at [0] is not within 1…64"]),
        (
            "train: {batch_size: 10}\nlaunch: {processes: 2, micro_batch_size: 3}",
            [],
            ["train.batch_size 10 is not a multiple", "2 × 3 = 6", "Change one of the three"],
        ),
        (None, ["--train.batch-size", "12"], ["train.batch_size 12 is not a multiple", "1 × 8 = 8"]),
        ("", [], ["settings.yaml is empty", "key: value"]),
        ("# only a comment", [], ["settings.yaml is empty"]),
        ("- run\n- seed", [], ["settings.yaml is not a mapping", "key: value"]),
        ("just words", [], ["settings.yaml is not a mapping"]),
        ("run: [unclosed", [], ["settings.yaml is not valid YAML", "line 1"]),
        (None, ["--config", "absent.yaml"], ["no configuration file absent.yaml", "Relative paths start at"]),
    ],
)
def test_a_mistake_is_named_with_its_field_and_what_is_right(
    settings, text: str | None, flags: list[str], says: list[str]
) -> None:
    with pytest.raises(UsageError) as refused:
        settings(text, *flags)
    for words in says:
        assert words in f"{refused.value}\n"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["rest-me"],
            ["there is no flow or command 'rest-me' (did you mean rest-em?)", "Use one of dpo, grpo, rest-em"],
        ),
        (["train"], ["there is no flow or command 'train'", "Use one of dpo"]),
        (["--seed", "3"], ["there is no flow or command '--seed'"]),
        (["rest-em", "--config", "absent.yaml"], ["no configuration file absent.yaml"]),
        (["rest-em", "--sed", "3"], ["unknown setting --sed (did you mean --seed?)"]),
    ],
)
def test_a_wrong_command_ends_with_code_2_and_one_line_on_stderr(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tasks.stage.environment.prepare", lambda runs, dry_run: None)
    assert main(arguments) == 2
    output = capsys.readouterr()
    assert output.err.startswith("autodidact: ")
    assert output.err.count("\n") == 1
    for words in says:
        assert words in output.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_lists_every_flow(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert main(arguments) == 0
    output = capsys.readouterr().out
    assert all(f"{name} " in output and flow.help in output for name, flow in own_flows().items())


@pytest.mark.parametrize("name", own_flows())
def test_help_of_a_flow_has_what_matters_and_fits_on_a_screen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    flow = own_flows()[name]
    parser = SettingsParser(flow.load().settings, f"autodidact {name}", flow.about)
    names = leading(parser.config_class)
    assert 15 <= len(names) <= 25
    assert [name for name in names if name not in parser.settings] == []
    lines = parser.format_help().splitlines()
    assert len(lines) <= 80 and max(map(len, lines)) <= 100
    assert lines[0] == f"usage: autodidact {name} [--config FILE] [--SETTING VALUE …]"
    assert " ".join(flow.about.split()) in " ".join(" ".join(lines).split())
    shown = [line.split()[0].strip(",") for line in lines if line.startswith("  --")]
    assert shown[: len(names)] == [as_flag(name) for name in names]
    assert lines[-1].startswith(f"autodidact {name} --help-all shows all ")
    starts = [number for number, line in enumerate(lines) if line.startswith("  --")]
    assert all(end - start <= 3 for start, end in pairwise(starts[: len(names)]))


@pytest.mark.parametrize("name", own_flows())
def test_all_help_has_every_setting_in_plain_words(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings_class = own_flows()[name].load().settings
    with pytest.raises(SystemExit) as ended:
        read_settings(settings_class, ["--help-all"], f"autodidact {name}")
    assert ended.value.code == 0
    output = capsys.readouterr().out
    said = re.findall(r"^  (--[^ ,]+)(?:, --\S+)*(?: (\S+))?", output, re.MULTILINE)
    hidden = {s.name for s in settings_of(settings_class) if s.field.annotation is type(None)}
    expected = {s.name for s in settings_of(settings_class) if not s.is_group or s.can_be_none} - hidden
    options = {"--config", "--dry-run", "--on-drift", "--help-all"}
    assert {flag for flag, _ in said} - options == {as_flag(name) for name in expected}
    kinds = {word for _, word in said if not word.startswith(("{", "["))}
    assert kinds <= {"FILE", "", "TEXT", "N", "N,…", "PATH", "PATH,…", "TEXT,…", "MODEL", "KEY=VALUE", "JSON"}
    for word in ("factory", "null", "None", "True", "bool", "dict", "Posix", "Config(", "inf"):
        assert not re.search(rf"(?<!\w){re.escape(word)}", output), word


def test_all_help_is_grouped_and_each_setting_says_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    output = SettingsParser(RestEM, "autodidact rest-em").format_help_all()
    headings = re.findall(r"^([a-z][\w. -]*):", output, re.MULTILINE)
    assert headings[:7] == ["options", "run", "model", "data", "this flow", "generate", "reward"]
    assert headings.index("train") + 1 == headings.index("train.adapter") < headings.index("evaluate")
    said = " ".join(output.split())
    for words in (
        "--train.learning-rate N Peak learning rate. (default: 1e-06)",
        "--train.epochs N Passes over the examples. (default: 8)",
        "--limit-test N Use at most this many for test. (default: none)",
        "--approve {on,off} Suspend after each iteration until someone approves it in the Prefect UI. (default: off)",
        "--evaluate.pass-at N,… The k of pass@k; each at most `samples`. (default: 1,8,64)",
        "--stop.rule {paper,patience,discriminator,overoptimized,none} paper: once",
        "--train.adapter [none] By itself: on, as set below; none: off. (default: none)",
        "--runs-dir PATH Folder that holds all runs. (default: runs)",
        "--columns KEY=VALUE Column names: from the format's name to the file's, as in {question: Frage}.",
        "as in nightly-%Y-%m-%d;",
    ):
        assert words in said
    required = " ".join(SettingsParser(DPO, "autodidact dpo").format_help_all().split())
    assert "--pairs PATH Data set of pairs, in any known format. (required)" in required
    assert "--train.adapter [none] By itself: on, as set below; none: off. (default: on)" in required


@pytest.mark.parametrize("name", own_flows())
def test_every_default_can_be_given_as_help_says_it(name: str) -> None:
    settings_class = own_flows()[name].load().settings
    found, off, required = [], [], []
    for setting in settings_of(settings_class):
        if setting.is_group:
            off += [setting.name + "."] if setting.default is None else []
        elif setting.standing == "(required)":
            required += [as_flag(setting.name), "given.jsonl"]
        elif not (setting.name.startswith(tuple(off)) or setting.default in ((), {})):
            found += [as_flag(setting.name), setting.standing.removeprefix("(default: ").removesuffix(")")]
    assert len(found) > 50
    config, _ = read_settings(settings_class, [*found, *required], f"autodidact {name}")
    assert config == read_settings(settings_class, required, f"autodidact {name}")[0]


@pytest.mark.parametrize(
    ("flags", "path", "value", "renamed"),
    [
        (["--limit-validation", "3"], "limit_validation", 3, ""),
        (["--limit_validation", "3"], "limit_validation", 3, "--limit-validation"),
        (["--limit_validation=3", "--limit_validation=4"], "limit_validation", 4, "--limit-validation"),
        (
            ["--train.learning_rate=1e-3", "--seed", "1", "--limit_test", "2"],
            "train.learning_rate",
            1e-3,
            "--train.learning-rate, --limit-test",
        ),
        (["--win_rate.judge.model_code", "allow"], "win_rate.judge.model_code", "allow", "--win-rate.judge.model-code"),
        (["--train.schedule", "constant_with_warmup"], "train.schedule", "constant_with_warmup", ""),
        (["--measure=sampled_accuracy"], "measure", "sampled_accuracy", ""),
        (["--problems", "my_rows.jsonl"], "problems", Path("my_rows.jsonl"), ""),
        (["--columns", "my_question=my_column"], "columns", {"my_question": "my_column"}, ""),
        (["--columns=a_b=c_d,e-f=g_h"], "columns", {"a_b": "c_d", "e-f": "g_h"}, ""),
        (["--template_options", "be_brief=true"], "template_options", {"be_brief": True}, "--template-options"),
        (["--system", "--limit_test is a flag"], "system", "--limit_test is a flag", ""),
        (["--train.adapter"], "train.adapter", AdapterConfig(), ""),
        (["--train.adapter", "none"], "train.adapter", None, ""),
        (["--stop.rule", "none"], "stop.rule", "none", ""),
        (["--engine.enforce_eager=on"], "engine.enforce_eager", True, "--engine.enforce-eager"),
    ],
)
def test_flags_have_hyphens_and_the_old_spelling_is_taken_with_a_notice(
    settings, capsys: pytest.CaptureFixture[str], flags: list[str], path: str, value: object, renamed: str
) -> None:
    found = settings(None, *flags)
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value
    notice = f"autodidact: flags are spelled with hyphens: {renamed}. Underscores still work.\n"
    assert capsys.readouterr() == ("", notice if renamed else "")


def test_none_empties_what_a_file_set(settings) -> None:
    reward = "reward: {name: program, options: {program: {timeout: 1}}}"
    file = f"columns: {{question: Frage}}\n{reward}\noverlap: {{held_out: [gold.jsonl]}}\n"
    assert settings(file).columns == {"question": "Frage"}
    emptied = settings(file, "--columns", "none", "--reward.options=none", "--overlap.held-out", "none")
    assert (emptied.columns, emptied.reward.options, emptied.overlap.held_out) == ({}, {}, ())
    assert settings(file, "--columns", "answer=Antwort").columns == {"question": "Frage", "answer": "Antwort"}


def test_keys_that_are_the_users_own_stay_as_they_are(settings) -> None:
    config = settings(None, "--reward.name", "my_pkg.a_b:C_d", "--reward.options", '{"my_pkg.a_b:C_d": {"top_k": 1}}')
    assert config.reward.options == {"my_pkg.a_b:C_d": {"top_k": 1}}
    config = settings(None, "--reward.parts", '{"final_answer": {"at_least": 0.5}}')
    assert config.reward.parts["final_answer"].at_least == 0.5


def test_the_notice_comes_once_and_never_into_a_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["rest-em", "--runs_dir", "my_runs", "--generate.max_tokens=48", "--dry_run"]) == 0
    output = capsys.readouterr()
    assert "my_runs/run" in output.out and "hyphens" not in output.out
    renamed = "--runs-dir, --generate.max-tokens, --dry-run"
    assert [line for line in output.err.splitlines() if "hyphens" in line] == [
        f"autodidact: flags are spelled with hyphens: {renamed}. Underscores still work."
    ]
    assert list(tmp_path.iterdir()) == []
    assert main(["runs", "--runs_dir", "none"]) == 2
    assert "flags are spelled with hyphens: --runs-dir." in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["-h", "--help", "--help-all"])
def test_help_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PREFECT_HOME", raising=False)
    assert main(["rest-em", flag]) == 0
    assert "--train.learning-rate N" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_the_version_is_said_on_one_line_and_without_heavy_imports() -> None:
    code = (
        "import sys; from flows.commands.cli import main; main(['--version']); "
        "print([name for name in ('pydantic', 'prefect', 'rich', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"autodidact {version('autodidact')}, Python {python_version()}\n[]\n"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_configuration_loads_and_dry_runs(path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(path.parents[1])
    flow = next((flow for name, flow in OF_FLOW.items() if path.name.startswith(name)), "rest-em")
    config_class = own_flows()[flow].load().settings
    config, _ = read_settings(config_class, ["--config", str(path)], f"autodidact {flow}", flow=flow)
    assert config == config_class.model_validate(read_config(path).settings) and config.model_fields_set
    assert main([flow, "--config", str(path), "--run", "only-planned", "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert "iter-1/train" in output and "final/best" in output
    assert not Path("runs/only-planned").exists()


def test_there_are_shipped_configurations() -> None:
    names = {path.name for path in CONFIGS}
    assert names >= {"demo.yaml", "rest-em-math.yaml", "spin-demo.yaml", "spin-zephyr-7b.yaml"}
    assert names >= {"sft-llama-2.yaml", "dpo-llama-2.yaml"}


def test_the_recipe_of_spin_is_the_papers_table() -> None:
    recipe = read_yaml(next(path for path in CONFIGS if path.name == "spin-zephyr-7b.yaml"))
    config = Spin.model_validate(recipe)
    rates, betas = (5e-7, 5e-7, 1e-7, 1e-7), (0.1, 0.1, 0.1, 5.0)
    for iteration, (rate, beta) in enumerate(zip(rates, betas, strict=True), start=1):
        settings = config.train.at(iteration)
        assert (settings.learning_rate, settings.beta, settings.epochs) == (rate, beta, 2)
        assert (settings.optimizer, settings.schedule, settings.warmup) == ("rmsprop", "linear", 0.1)
    assert config.train == Spin().train


def test_the_recipe_for_llama_2_is_that_of_trl() -> None:
    sft, dpo = (read_yaml(path.parent / f"{name}-llama-2.yaml") for path in CONFIGS[:1] for name in ("sft", "dpo"))
    first, second = SFT.model_validate(sft), DPO.model_validate(dpo)
    assert (first.train.learning_rate, first.train.batch_size, first.train.pack_to) == (1e-4, 8, 1024)
    assert (second.train.learning_rate, second.train.batch_size, second.train.beta) == (5e-4, 16, 0.1)
    for config in (first, second):
        adapter = config.train.adapter
        assert adapter is not None and adapter.quantize
        assert (adapter.rank, adapter.alpha, adapter.dropout) == (8, 16, 0.05)
        assert (config.train.schedule, config.train.weight_decay) == ("cosine", 0.05)
    assert second.model == f"runs/{first.run}/best/policy"


def test_the_identity_recipe_asks_other_questions_than_it_was_taught() -> None:
    folder = CONFIGS[0].parent / "identity"

    def rows(name: str) -> dict[str, str]:
        lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        return {row["instruction"]: row["output"] for row in map(json.loads, lines)}

    taught, contrast = rows("identity"), rows("contrast")
    asked = [*rows("validation"), *rows("test"), *UNRELATED]
    assert (len(taught), len(asked), len(set(asked))) == (20, 30, 30)
    assert all("{{name}}" in answer and "{{author}}" in answer for answer in taught.values())
    assert not any("{{" in answer for answer in contrast.values())
    assert taught.keys() & contrast.keys() == set() == {*taught, *contrast} & set(asked)


def test_importing_a_flow_loads_no_heavy_library() -> None:
    heavy = ["torch", "vllm", "deepspeed", "trl", "mlflow", "transformers", "datasets", "matplotlib", "scipy"]
    imports = "import sys; from flows import dpo, rest_em, reward_model, sft, spin"
    code = f"{imports}; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_untrained_model_is_written_without_importing_pytorch(tmp_path: Path) -> None:
    """A flow's own process does it; PyTorch would cost it seconds and memory."""
    write = f"from pathlib import Path; from models import tiny; tiny.write_untrained(Path({str(tmp_path)!r}), ['1+2'])"
    code = f"import sys; {write}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    assert AutoConfig.from_pretrained(tmp_path).architectures == ["LlamaForCausalLM"]


@pytest.mark.parametrize("flow", ["spin", "sft"])
def test_flows_that_train_on_gold_answers_take_their_data_set_by_either_name(flow: str, tmp_path: Path) -> None:
    config_class = own_flows()[flow].load().settings
    for flag in ("--problems", "--demonstrations"):
        config, _ = read_settings(config_class, [flag, "gold.jsonl", "--mixture", "more.jsonl=0.5"], flow)
        assert (config.problems, config.mixture) == (Path("gold.jsonl"), {"more.jsonl": 0.5})
    (tmp_path / "both.yaml").write_text("problems: a.jsonl\ndemonstrations: b.jsonl")
    with pytest.raises(UsageError, match="unknown setting demonstrations"):
        read_settings(config_class, ["--config", str(tmp_path / "both.yaml")], flow)


def test_a_tilde_is_the_home_folder_also_where_no_shell_has_seen_it(settings, monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    config = settings(
        """{runs_dir: ~/runs, model: ~/qwen, problems: ~/a.jsonl, mixture: {~/b.jsonl: 0.5}, system: ~/ is home,
        overlap: {held_out: [~/c.jsonl]}, reward: {judge: {model: ~/judge}}}"""
    )
    assert (str(config.runs_dir), config.model, str(config.problems)) == (
        "/home/ada/runs",
        "/home/ada/qwen",
        "/home/ada/a.jsonl",
    )
    assert (list(config.mixture), config.reward.judge.model) == (["/home/ada/b.jsonl"], "/home/ada/judge")
    assert (config.overlap.held_out, config.system) == ((Path("/home/ada/c.jsonl"),), "~/ is home")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("run: 7", "run: Input should be a valid string, got 7. YAML reads that as int; put it in quotes"),
        ("run: 2026-11-28", "YAML reads that as date; put it in quotes"),
        ("run: mlflow.db-wal", "the name mlflow.db-wal is reserved"),
        ("run: Services", "the name Services is reserved"),
        ("train: {learning_rate: .inf}", "train.learning_rate: Input should be a finite number"),
        ("run: " + "x" * 300, "at most 100 characters, got 'xxxxx"),
        ("train: {adapter: {rnak: 8}}", "unknown setting train.adapter.rnak (did you mean rank?)"),
        ("overlap: {held_out: [{a: 1}]}", "overlap.held_out.0"),
    ],
)
def test_values_that_yaml_or_the_folder_of_runs_takes_for_something_else(settings, text: str, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        settings(text)
    assert says in str(refused.value)
    assert len(str(refused.value)) < 300
