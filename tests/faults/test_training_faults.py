"""Training goes on when workers die under it."""

import functools
import logging
import os
import signal
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import training_settings
from pool_envs import FaultyEnv

import kiloworlds as kw

TINY = training_settings.TINY | {"num_workers": 2}


def killed(env):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture
def faulty(tmp_path):
    """The id of an environment whose worker is killed, once, in the 30th step of the first copy to
    get there."""
    make = functools.partial(FaultyEnv, killed, 30, tmp_path / "once", length=9)
    gymnasium.register("Faulty-v0", make)
    yield "Faulty-v0"
    del gymnasium.registry["Faulty-v0"]


def test_a_killed_worker_costs_its_episodes_and_no_more(faulty, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "kiloworlds.vector"):
        run = kw.train("ppo", faulty, run_dir=tmp_path / "run", **TINY)
    assert Path(tmp_path / "once").exists()
    metrics = run.metrics
    np.testing.assert_array_equal(metrics["step"], np.arange(64, 641, 64))
    assert metrics["environments/restarts"][-1] == 1
    assert metrics["environments/lost"][-1] == 2
    assert len(caplog.records) == 1
    for name, values in metrics.items():
        if name.startswith("train/"):
            assert np.isfinite(values).all()
    # Every counted episode is a whole one; the lost ones are not among them.
    np.testing.assert_array_equal(np.unique(metrics["rollout/ep_len_mean"]), [9.0])
    assert run.policy is not None
