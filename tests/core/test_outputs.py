from pathlib import Path

import pytest

from kiloworlds.core import outputs
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.outputs import check_output_directory, check_output_file


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "file"
    file.touch()
    return file


def test_what_can_be_written_passes(tmp_path, file, monkeypatch):
    check_output_file(file, "a.html")
    check_output_file(tmp_path / "new" / "newer" / "a.html", "a.html")
    check_output_directory(tmp_path)
    check_output_directory(tmp_path / "new" / "newer")
    assert list(tmp_path.iterdir()) == [file]  # nothing was made
    monkeypatch.chdir(tmp_path)
    check_output_file(Path("a.html"), "a.html")
    check_output_directory(Path("new"))


def test_a_directory_is_no_file(tmp_path):
    with pytest.raises(
        InvalidValueError, match=r"is a directory; name a file, such as .*/a\.html'"
    ):
        check_output_file(tmp_path, "a.html")


def test_a_file_is_no_directory(file):
    words = rf"cannot be written: '{file}' is a file; name a directory\.$"
    with pytest.raises(InvalidValueError, match=words):
        check_output_directory(file)
    with pytest.raises(InvalidValueError, match=words):
        check_output_directory(file / "a" / "b")
    with pytest.raises(InvalidValueError, match=words):
        check_output_file(file / "a.html", "a.html")


def test_where_nothing_may_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(outputs.os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(InvalidValueError, match=rf"nothing may be written into '{tmp_path}'"):
        check_output_file(tmp_path / "a.html", "a.html")
