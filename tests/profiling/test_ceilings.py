import json

import pytest

from kiloworlds.profiling import ceilings, store


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KILOWORLDS_CACHE_DIR", str(tmp_path))
    return tmp_path / "measured"


def measured(monkeypatch, *answers):
    """Measurements give these, one after the other; returns those asked for."""
    asked = []

    def answer(variables):
        asked.append(variables)
        return answers[len(asked) - 1]

    monkeypatch.setattr(ceilings, "_in_another_process", answer)
    return asked


def test_measured_once_and_kept(cache, monkeypatch):
    asked = measured(monkeypatch, *[{"flops": 9.0, "bytes": 5.0}, {"flops": 4.0, "bytes": 6.0}] * 2)
    first = ceilings.ceilings()
    assert (first.flops, first.bytes) == (9.0, 6.0)  # what one core can do, all can
    assert (first.flops_of_one, first.bytes_of_one) == (4.0, 6.0)
    assert ceilings.ceilings() == first
    assert asked == [{}, {"PJRT_NPROC": "1"}]
    ceilings.ceilings(again=True)
    assert len(asked) == 4


def test_a_damaged_file_is_measured_again(cache, monkeypatch):
    measured(monkeypatch, *[{"flops": 9.0, "bytes": 5.0}] * 4)
    ceilings.ceilings()
    (cache / "ceilings.json").write_text("{")
    assert ceilings.ceilings().flops == 9.0
    assert json.loads((cache / "ceilings.json").read_text())


def test_no_cache_keeps_nothing(monkeypatch):
    monkeypatch.setenv("KILOWORLDS_CACHE_DIR", "")
    assert store.write("anything", "key", {}) is None
    assert store.read("anything", "key") is None


def test_measures_in_this_process(monkeypatch):
    monkeypatch.setattr(ceilings, "_SIZE", {"cpu": 64, "other": 64})
    monkeypatch.setattr(ceilings, "_NUMBERS", 1024)
    found = ceilings.measure()
    assert found["flops"] > 1e6
    assert found["bytes"] > 1e6


def test_a_process_that_fails_is_named(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "no_such_platform")
    with pytest.raises(ceilings.CeilingError, match=r"could not be measured: .*no_such_platform"):
        ceilings._in_another_process({})
