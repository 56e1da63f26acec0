import pytest

from kiloworlds.training.loggers.choice import NAME, Choice, choose
from kiloworlds.training.run_errors import RunDirectoryError


def test_without_loggers_nothing_is_kept(tmp_path):
    assert choose(None, None) is None
    assert choose((), None) is None
    assert choose(None, tmp_path) is None


def test_a_resumed_run_keeps_its_loggers_and_its_identity(tmp_path):
    first = choose("tensorboard", None)
    assert first is not None
    assert first.names == ("tensorboard",)
    (tmp_path / NAME).write_text(first.text())
    assert choose(None, tmp_path) == first
    assert choose((), tmp_path) == Choice((), first.identity)


def test_runs_have_identities_of_their_own():
    assert choose("tensorboard", None) != choose("tensorboard", None)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"identity": 3}'])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / NAME).write_text(text)
    with pytest.raises(RunDirectoryError, match=r"loggers\.json' is damaged"):
        choose(None, tmp_path)
