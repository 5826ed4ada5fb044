"""Short forms: few fields, and the order of recipe, fields and overrides."""

import inspect
from pathlib import Path
from typing import Any

import pytest
from jsonschema import validate
from prefect.utilities.callables import parameter_schema

from data.errors import UsageError
from flows.commands import forms
from flows.commands.flow_table import own_flows
from flows.commands.forms import DEFAULTS, UNCHANGED, overrides, resolve, short_form

MOST_INPUTS = 20  # more make Prefect's page longer than 3,000 pixels
FLOWS = own_flows()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", FLOWS)
def test_a_form_has_few_fields_each_of_one_kind_that_may_be_empty(name: str) -> None:
    schema = parameter_schema(short_form(FLOWS[name]).fn).model_dump()
    properties: dict[str, dict[str, Any]] = schema["properties"]
    assert list(properties)[:3] == ["recipe", "run", "model"]
    assert {"overrides", "on_drift"} <= properties.keys() and len(properties) <= MOST_INPUTS
    for field in properties.values():
        assert field["type"] == "string" and field["description"], "no switch between kinds of input"
    assert not schema["required"]
    untouched = {field: told["default"] for field, told in properties.items()}
    validate(untouched, schema)  # what Prefect's page sends and its server checks; null would be no string
    filled = {field for field, value in untouched.items() if value not in ("", UNCHANGED)}
    assert filled == {"recipe", "on_drift"}, "a default here would count more than the recipe"


def test_a_flow_is_found_by_its_name_and_keeps_it() -> None:
    assert forms.rest_em.name == "rest-em"
    with pytest.raises(AttributeError):
        _ = forms.no_such_flow
    assert next(iter(inspect.signature(forms.spin.fn).parameters)) == "recipe"


def test_overrides_count_more_than_fields_and_those_more_than_the_recipe() -> None:
    found = resolve(FLOWS["rest-em"], {"recipe": "demo", "train_epochs": None, "run": "", "approve": UNCHANGED})
    assert (found.run, found.train.epochs, found.generate.samples) == ("demo", 5, 4)
    fields = {"recipe": "demo", "run": "mine", "train_epochs": 3, "generate_samples": 8}
    found = resolve(FLOWS["rest-em"], fields | {"overrides": "generate.samples = 2\n\n--train.warmup 0.1\nkeep: best"})
    assert (found.run, found.train.epochs, found.generate.samples) == ("mine", 3, 2)
    assert (found.train.warmup, found.keep) == (0.1, "best")
    found = resolve(
        FLOWS["spin"], {"recipe": DEFAULTS, "model": "owner/model", "train_learning_rate": "1e-6,1e-7", "iterations": 2}
    )
    assert found.train.learning_rate == (1e-6, 1e-7)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "neither a model nor a recipe"),
        ({"recipe": DEFAULTS, "overrides": "seed = 1"}, "neither a model nor a recipe"),
        ({"recipe": "demo", "overrides": "seed"}, "'seed' in the overrides is not a setting"),
        ({"recipe": "demo", "overrides": "sead = 1"}, "unknown setting --sead .did you mean --seed"),
        ({"recipe": "demo", "train_epochs": "many"}, "--train.epochs"),
        ({"recipe": "spin-demo"}, "is for the flow spin"),
        ({"recipe": "demo", "evaluate_samples": 2, "overrides": "evaluate.pass_at = 1,4"}, "pass_at.*samples"),
    ],
)
def test_a_form_that_cannot_be_used_is_refused_in_plain_words(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=f"(?s){said}"):
        resolve(FLOWS["rest-em"], fields)


@pytest.mark.parametrize(
    ("fields", "name"),
    [({"run": "mine"}, "mine"), ({}, "rest-em"), ({"recipe": "demo", "overrides": "run = theirs"}, "theirs")],
)
def test_the_flow_run_has_a_name_also_if_its_form_cannot_be_used(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], name: str
) -> None:
    monkeypatch.setattr("prefect.runtime.flow_run.parameters", fields, raising=False)
    assert short_form(FLOWS["rest-em"]).flow_run_name() == name


def test_a_line_of_the_overrides_may_be_written_in_several_ways() -> None:
    text = "train.epochs=2\n  --train.learning_rate 1e-4\nreward.options: {program: {timeout: 5}}\n"
    expected = ["--train.epochs=2", "--train.learning-rate=1e-4", "--reward.options={program: {timeout: 5}}"]
    assert overrides(text) == expected
