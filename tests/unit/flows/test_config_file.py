"""A configuration file on top of another one, and what it says of its deployment."""

from pathlib import Path

import pytest

from data.errors import UsageError
from flows.commands.config_file import Deployment, read_config
from flows.commands.settings import read_settings
from flows.rest_em import RestEM


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / f"{next(iter(files))}.yaml"


def test_settings_go_over_those_of_the_file_that_is_extended_group_by_group(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    write(tmp_path / "below", base="run: base\ngenerate: {samples: 4, top_k: 0}\niterations: 2")
    write(tmp_path, middle="extends: below/base.yaml\ngenerate: {samples: 8}\nrun: middle")
    file = write(tmp_path, top="extends: middle.yaml\nrun: top")
    told = {"run": "top", "iterations": 2, "generate": {"samples": 8, "top_k": 0}}
    assert read_config(file).settings == told
    config, _ = read_settings(RestEM, ["--config", str(file), "--iterations", "5"], "autodidact rest-em")
    assert (config.run, config.iterations, config.generate.samples) == ("top", 5, 8)


def test_a_deployment_is_of_its_own_file_and_is_no_setting(tmp_path: Path) -> None:
    write(tmp_path, base="deployment: {flow: rest-em, name: demo, description: A demo.}\nrun: base")
    file = write(tmp_path, top="extends: base.yaml")
    assert read_config(file).deployment is None
    found = read_config(tmp_path / "base.yaml", "rest-em")
    assert found.deployment == Deployment(flow="rest-em", name="demo", description="A demo.")
    assert found.settings == {"run": "base"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"one": "extends: two.yaml", "two": "extends: one.yaml"}, "extends itself"),
        ({"one": "extends: [two.yaml]"}, "must be the name of a file"),
        ({"one": 'extends: "a\\0b"'}, "must be the name of a file"),
        ({"one": "extends: ~nobody-of-that-name/a.yaml"}, "there is no configuration file"),
        (
            {"one": "deployment: {flow: rest_em, name: a, description: b}"},
            "is for the flow rest_em, which does not exist",
        ),
        ({"one": "extends: none.yaml"}, "there is no configuration file .*none.yaml"),
        ({"one": "deployment: yes"}, "deployment cannot be used"),
        ({"one": "deployment: {flow: spin}"}, "name: Field required"),
        ({"one": "deployment: {flow: spin, name: a, description: b, corn: c}"}, "corn: Extra inputs"),
        ({"one": "deployment: {flow: spin, name: a, description: b}"}, "is for the flow spin. Run autodidact spin."),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_config(write(tmp_path, **files), "rest-em")
