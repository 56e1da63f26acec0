import sys
import sysconfig

import pytest

from kiloworlds.core.errors import InvalidValueError, UnknownNameError
from kiloworlds.core.user_code import (
    UserCodeError,
    check_may_be_called,
    import_location,
    import_user_module,
    load_user_object,
)

_ENV = """
class MyEnv:
    def reset(self): ...
    def step(self, action): ...
    class Inner:
        def reset(self): ...
        def step(self, action): ...

class Config:
    pass

def make_env():
    return MyEnv()

LIMIT = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working directory of its own; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "kw_my_file.py").write_text(_ENV)
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("kw_")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("kw_my_file:MyEnv", "MyEnv"),
        ("kw_my_file.py:MyEnv", "MyEnv"),
        ("./kw_my_file.py:make_env", "make_env"),
        ("kw_my_file:MyEnv.Inner", "MyEnv.Inner"),
        ("kiloworlds.envs.classic.cartpole:CartPole", "CartPole"),
    ],
)
def test_finds_classes_and_functions(folder, name, found):
    assert load_user_object(name).__qualname__ == found


def test_file_elsewhere_can_be_imported_by_its_name_afterwards(folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "kw_other-name.py").write_text(_ENV)
    loaded = load_user_object("deep/kw_other-name.py:MyEnv")
    assert loaded.__module__ == "kw_other-name"
    assert sys.modules["kw_other-name"].MyEnv is loaded


def test_file_of_a_package_imports_its_neighbours(folder):
    (folder / "kw_package").mkdir()
    (folder / "kw_package" / "__init__.py").touch()
    (folder / "kw_package" / "base.py").write_text(_ENV)
    (folder / "kw_package" / "env.py").write_text("from .base import MyEnv\n")
    assert load_user_object("kw_package/env.py:MyEnv").__module__ == "kw_package.base"


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("kw_my_fiel:MyEnv", UnknownNameError, "no module 'kw_my_fiel'.* mean 'kw_my_file'"),
        ("kw_my_fiel.py:MyEnv", UnknownNameError, "no file 'kw_my_fiel.py'. .* 'kw_my_file.py'"),
        ("nowhere/at_all.py:MyEnv", UnknownNameError, "no file 'nowhere/at_all.py'"),
        ("kw_my_file:MyEvn", UnknownNameError, "kw_my_file has no 'MyEvn'. Did you mean 'MyEnv'"),
        ("kw_my_file:zzzz", UnknownNameError, "It defines MyEnv, Config, make_env"),
        ("kw_my_file:MyEnv.Outer", UnknownNameError, "has no 'MyEnv.Outer'"),
        ("kw_my_file:Config", InvalidValueError, "is a class without reset and step"),
        ("kw_my_file:LIMIT", InvalidValueError, "is a int|is an int"),
        ("kw_my_file:", InvalidValueError, "write it as kw_my_file:MyEnv"),
        ("kw_my_file", InvalidValueError, "write it as kw_my_file:MyEnv"),
        (":MyEnv", InvalidValueError, "names no object"),
    ],
)
def test_wrong_names(folder, name, error, words):
    with pytest.raises(error, match=words):
        load_user_object(name)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (
            "1 / 0\n",
            r"importing kw_broken failed: ZeroDivisionError: .* \(.*kw_broken.py, line 1\)",
        ),
        ("def f(:\n", "importing kw_broken failed: SyntaxError: .*line 1"),
        ("import kw_absent\n", "failed: ModuleNotFoundError: No module named 'kw_absent'"),
        ("raise SystemExit(3)\n", "failed: SystemExit: 3"),
    ],
)
def test_module_that_fails(folder, code, words):
    (folder / "kw_broken.py").write_text(code)
    with pytest.raises(UserCodeError, match=words):
        load_user_object("kw_broken:MyEnv")


def test_file_with_the_name_of_a_library_is_refused(folder):
    (folder / "json.py").write_text(_ENV)
    with pytest.raises(InvalidValueError, match=r"that of another module, .*rename the file"):
        load_user_object("json.py:MyEnv")


def test_what_a_stored_run_may_call(folder, monkeypatch):
    import_location("kw_my_file")
    for name in ("MyEnv", "MyEnv.Inner", "make_env"):
        check_may_be_called(f"kw_my_file:{name}")
    with pytest.raises(InvalidValueError, match="neither an environment class nor a function"):
        check_may_be_called("kw_my_file:LIMIT")
    # The same file, installed: its classes, and its functions once the user has named it.
    monkeypatch.setattr(sysconfig, "get_path", lambda kind: str(folder))
    check_may_be_called("kw_my_file:MyEnv")
    with pytest.raises(InvalidValueError, match="say so: --import kw_my_file"):
        check_may_be_called("kw_my_file:make_env")
    import_user_module("kw_my_file")
    check_may_be_called("kw_my_file:make_env")


def test_a_file_that_cannot_be_imported_changes_no_search_path(folder):
    (folder / "deep").mkdir()
    (folder / "deep" / "os.py").write_text(_ENV)
    with pytest.raises(InvalidValueError, match="is that of another module"):
        load_user_object("deep/os.py:MyEnv")
    assert str(folder / "deep") not in sys.path
