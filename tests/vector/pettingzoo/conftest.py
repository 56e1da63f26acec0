import pytest

from kiloworlds.vector.pettingzoo import PettingZooVectorEnv

_WORKERS = {"sync": {}, "process": {"num_workers": 2}, "thread": {"num_workers": 2}}


@pytest.fixture
def make():
    """Makes vectors and closes them."""
    made = []

    def make(make_env, num_envs=1, *, backend="sync", **options):
        given = _WORKERS[backend] | options if num_envs > 1 else options
        made.append(PettingZooVectorEnv(make_env, num_envs, backend=backend, **given))
        return made[-1]

    yield make
    for envs in made:
        envs.close()
