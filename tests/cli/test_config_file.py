from typing import Any

import pytest

from kiloworlds.cli.config_file import convert, read_config_file
from kiloworlds.core.errors import InvalidValueError, UnknownNameError

KINDS = {
    "total_steps": int,
    "seed": int,
    "learning_rate": float,
    "clip_range_value": float | None,
    "hidden_sizes": tuple[int, ...],
    "normalize_rewards": bool,
    "backend": str,
    "env_kwargs": dict[str, Any],
}


def write(tmp_path, text, name="settings.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_reads_yaml(tmp_path):
    text = """
        total_steps: 5e5
        learning_rate: 1e-3
        clip_range_value: null
        hidden_sizes: [32, 16]
        normalize_rewards: true
        backend: sync
        env_kwargs: {length: 0.7}
    """
    values = read_config_file(write(tmp_path, text), KINDS)
    assert values == {
        "total_steps": 500_000,
        "learning_rate": 0.001,
        "clip_range_value": None,
        "hidden_sizes": (32, 16),
        "normalize_rewards": True,
        "backend": "sync",
        "env_kwargs": {"length": 0.7},
    }
    assert isinstance(values["total_steps"], int)


def test_reads_json(tmp_path):
    path = write(tmp_path, '{\n\t"learning_rate": 0.5\n}', "settings.json")
    assert read_config_file(path, KINDS) == {"learning_rate": 0.5}


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("a.yaml", "learning_rate: fast", "learning_rate: 'fast' is not a number"),
        ("a.yaml", "learning_rate: true", "learning_rate: True is not a number"),
        ("a.yaml", "total_steps: 1.5", "total_steps: 1.5 is not a whole number"),
        ("a.yaml", "total_steps: .inf", "total_steps: inf is not a whole number"),
        ("a.yaml", "normalize_rewards: 3", "normalize_rewards: 3 is not true or false"),
        ("a.yaml", "env_kwargs: 3", "env_kwargs: 3 is not a mapping"),
        ("a.yaml", "backend: sync\nbackend: auto", "the key 'backend' is there twice"),
        ("a.yaml", "env_kwargs: {a: 1, a: 2}", "the key 'a' is there twice"),
        ("a.yaml", "env_kwargs:\n\tlength: 1", "line 2: YAML does not allow tabs"),
        ("a.yaml", "backend: [", "line 1"),
        ("a.yaml", "", "holds nothing"),
        ("a.yaml", "- 3", "holds list"),
        ("a.json", '{"backend": "sync", "backend": "auto"}', "the key 'backend' is there twice"),
        ("a.json", '{"backend": }', "line 1"),
        ("a.yaml", "seed: true", "seed: True is not a whole number"),
        ("a.yaml", "total_steps: 2024-13-45", "line 1: '2024-13-45' is no valid timestamp"),
        ("a.yaml", "backend: !!timestamp x", "'x' is no valid timestamp"),
        ("a.yaml", "seed: 1\nbackend: !!int zz", "line 2: 'zz' is no valid int"),
        ("a.yaml", "backend: !!float x", "'x' is no valid float"),
        ("a.yaml", "backend: !!bool x", "'x' is no valid bool"),
        ("a.yaml", "? [a, b]\n: 1", "line 1: found unhashable key"),
        ("a.yaml", "env_kwargs: {[1]: 2}", "line 1: found unhashable key"),
        ("a.yaml", "env_kwargs: &a {x: *a}", "line 1: found unconstructable recursive node"),
        ("a.yaml", "env_kwargs: &a [*a]", "line 1: found unconstructable recursive node"),
        ("a.yaml", "backend: " + "[" * 5000, "nested too deeply"),
        ("a.json", '{"backend": ' + "[" * 500_000, "nested too deeply"),
        ("a.yaml", "seed: " + "9" * 5000, "9999' is no valid int"),
        ("a.json", '{"seed": ' + "9" * 5000 + "}", "a number has too many digits"),
        ("a.yaml", "learning_rate: " + "9" * 400, "the number is too large"),
        ("a.json", '{"learning_rate": ' + "9" * 400 + "}", "the number is too large"),
        ("a.yaml", "backend: \0", "special characters are not allowed"),
        ("a.yaml", "<<: 3", "line 1: << takes mappings, not a scalar"),
    ],
)
def test_bad_files_say_what_is_wrong(tmp_path, name, text, complaint):
    path = write(tmp_path, text, name)
    with pytest.raises(InvalidValueError) as error:
        read_config_file(path, KINDS)
    assert complaint in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", ["a.yaml", "a.json"])
def test_a_whole_number_may_have_many_digits(tmp_path, name):
    path = write(tmp_path, '{"seed": ' + "9" * 400 + "}", name)
    assert read_config_file(path, KINDS) == {"seed": 10**400 - 1}


def test_mappings_are_merged(tmp_path):
    text = """
        env_kwargs:
            base: &base {length: 0.7, gravity: 9.8}
            <<: [*base, {length: 1, mass: 2}]
            gravity: 1.6
        <<: {seed: 3}
    """
    values = read_config_file(write(tmp_path, text), KINDS)
    assert values["seed"] == 3
    base = values["env_kwargs"].pop("base")
    assert base == {"length": 0.7, "gravity": 9.8}
    assert values["env_kwargs"] == {"length": 0.7, "mass": 2, "gravity": 1.6}


def test_a_mapping_may_not_merge_itself(tmp_path):
    path = write(tmp_path, "env_kwargs: &a {<<: *a, x: 1}")
    assert read_config_file(path, KINDS) == {"env_kwargs": {"x": 1}}


def test_unknown_key_suggests(tmp_path):
    with pytest.raises(UnknownNameError, match=r"'learnin_rate'. Did you mean 'learning_rate'"):
        read_config_file(write(tmp_path, "learnin_rate: 1"), KINDS)


def test_missing_file(tmp_path):
    with pytest.raises(InvalidValueError, match="No such file"):
        read_config_file(tmp_path / "none.yaml", KINDS)


def test_binary_file(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidValueError, match="it is not text"):
        read_config_file(path, KINDS)


def test_one_size_makes_a_tuple():
    assert convert(64, tuple[int, ...]) == (64,)
