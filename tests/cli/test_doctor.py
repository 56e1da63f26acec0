import errno
import os

import pytest

from kiloworlds.cli import doctor
from kiloworlds.cli.doctor import PACKAGES, Package
from kiloworlds.core import machine
from kiloworlds.vector.native import engines


@pytest.fixture
def facts_of(monkeypatch):
    """The facts of one part only, by name."""

    def look(part):
        monkeypatch.setattr(doctor, "_PARTS", {part: doctor._PARTS[part]})
        return {fact.name: fact for fact in doctor.examine()}

    return look


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_sound_machine(here, json_of):
    told = json_of("doctor")
    assert told["ok"] is True
    seen = {(fact["part"], fact["name"]): fact["seen"] for fact in told["facts"]}
    assert "million steps/s" in seen["self-test", "compiled environments"]
    assert "2 started in" in seen["self-test", "worker processes"]
    assert seen["kernel", "pidfd"] == "works"
    assert str(len(os.sched_getaffinity(0))) in seen["cores", "cores"]
    assert list(here.iterdir()) == []  # it leaves nothing behind


def test_problem_is_told_with_advice(here, monkeypatch, command):
    monkeypatch.setattr(
        doctor,
        "_PARTS",
        {name: doctor._PARTS[name] for name in ("system", "memory", "packages")},
    )
    monkeypatch.setattr(machine, "memory", lambda: (2**33, 2**28))
    code, out, _ = command("doctor")
    assert code == 1
    assert "✗ 1 problem" in out
    assert "256.0 MiB available of 8.0 GiB" in out
    assert "→ free some" in out


@pytest.mark.parametrize(
    ("quota", "result", "seen"),
    [(None, "ok", "no quota"), (0.5, "note", "time of 0.5"), (1000.0, "ok", "quota 1000")],
)
def test_cores(monkeypatch, facts_of, quota, result, seen):
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    fact = facts_of("cores")["cores"]
    assert fact.result == result
    assert seen in fact.seen
    assert bool(fact.advice) == (result != "ok")


def test_limit_of_the_container(monkeypatch, facts_of):
    monkeypatch.setattr(machine, "memory_limit", lambda: 2**29)
    fact = facts_of("memory")["limit of the container"]
    assert (fact.result, fact.seen) == ("problem", "512.0 MiB")


@pytest.mark.parametrize(
    ("files", "result"), [(64, "problem"), (512, "note"), (4096, "ok"), (-1, "ok")]
)
def test_open_files(monkeypatch, facts_of, files, result):
    import resource

    limits = {resource.RLIMIT_NOFILE: (files, 4096)}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits.get(kind, (-1, -1)))
    fact = facts_of("limits")["open files (ulimit -n)"]
    assert fact.result == result
    assert ("ulimit -n 4096" in fact.advice) == (result != "ok")


def test_kernel_that_forbids_a_call(monkeypatch, facts_of):
    def forbidden(*arguments):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "pidfd_open", forbidden)
    facts = facts_of("kernel")
    assert facts["pidfd"].result == "problem"
    assert "backend='sync'" in facts["pidfd"].advice
    assert facts["eventfd"].result == "ok"


def test_cache_that_is_a_file(here, monkeypatch, facts_of):
    (here / "cache").touch()
    monkeypatch.setenv("KILOWORLDS_CACHE_DIR", str(here / "cache"))
    fact = facts_of("folders")["compilation cache"]
    assert fact.result == "problem"
    assert "is no folder" in fact.seen
    assert "KILOWORLDS_CACHE_DIR" in fact.advice


def test_cache_is_measured(here, monkeypatch, facts_of):
    (here / "cache").mkdir()
    (here / "cache" / "program").write_bytes(bytes(3 * 2**20))
    monkeypatch.setenv("KILOWORLDS_CACHE_DIR", str(here / "cache"))
    assert "3.0 MiB in 1 files" in facts_of("folders")["compilation cache"].seen


def test_runs_that_cannot_be_written(here, monkeypatch, facts_of):
    (here / "runs").touch()
    fact = facts_of("folders")["./runs"]
    assert fact.result == "problem"
    assert "--run-dir" in fact.advice


def test_packages_tell_how_to_get_what_is_missing(monkeypatch, facts_of):
    absent = Package("kw-absent", "nothing", "pip install kw-absent")
    monkeypatch.setattr(doctor, "PACKAGES", (*PACKAGES, absent))
    facts = facts_of("packages")
    assert facts["kw-absent"].seen == "not installed: nothing"
    assert facts["kw-absent"].advice == "pip install kw-absent"
    assert facts["kw-absent"].result == "ok"  # it is optional


def test_an_engine_that_cannot_be_loaded(monkeypatch, facts_of):
    reason = "libOpenGL.so.0: cannot open shared object file"
    monkeypatch.setattr(
        engines, "_load_error", lambda module: reason if module == "mujoco" else None
    )
    facts = facts_of("packages")
    assert facts["mujoco"].result == "note"
    assert facts["mujoco"].seen.endswith(f"cannot be loaded: {reason}")
    assert facts["ale-py"].result == "ok"


def test_workers_that_cannot_start(monkeypatch, facts_of):
    import kiloworlds

    def broken(*arguments, **options):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(kiloworlds, "make", broken)
    fact = facts_of("worker processes")["worker processes"]
    assert fact.result == "problem"
    assert "Too many open files" in fact.seen
    assert "backend='sync'" in fact.advice


def test_look_that_fails_is_a_problem_and_not_the_end(monkeypatch):
    def broken():
        raise RuntimeError("no such device")

    monkeypatch.setattr(doctor, "_PARTS", {"jax": broken, "system": doctor._PARTS["system"]})
    facts = list(doctor.examine())
    assert (facts[0].result, facts[0].seen) == ("problem", "RuntimeError: no such device")
    assert facts[1].name == "kiloworlds"
