"""Scripts written for Gymnasium run on our vectors as they are, and learn.

Set KILOWORLDS_CLEANRL_PPO to the path of CleanRL's `cleanrl/ppo.py` to run that one as well; it needs
the packages tensorboard and tyro.
"""

import os
import runpy
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest

import kiloworlds as kw
from kiloworlds.compat.gymnasium import AsyncVectorEnv, SyncVectorEnv, replacing_gymnasium

pytest.importorskip("torch")

import torch

OURS = Path(__file__).parent / "gymnasium_ppo.py"
CLEANRL = os.environ.get("KILOWORLDS_CLEANRL_PPO")


def compiled(env_fns):
    """Compiled environments where a script asks for a list of them."""
    return gymnasium.wrappers.vector.RecordEpisodeStatistics(
        kw.make("CartPole-v1", len(env_fns), autoreset_mode="next_step", episode_statistics=False)
    )


VECTORS = {"compiled": compiled, "process": AsyncVectorEnv, "sync": SyncVectorEnv}


def run(script, arguments, kind, monkeypatch):
    """Runs a script with vectors of that kind; the returns of all its episodes."""
    returns: list[float] = []

    def make_recording(env_fns):
        envs = VECTORS[kind](env_fns)
        step = envs.step

        def recording_step(actions):
            result = step(actions)
            infos = result[-1]
            if "episode" in infos:
                returns.extend(np.asarray(infos["episode"]["r"])[infos["_episode"]].tolist())
            return result

        envs.step = recording_step
        return envs

    torch.set_num_threads(1)  # the workers are what fills the cores
    monkeypatch.setattr(sys, "argv", [str(script), *arguments])
    with replacing_gymnasium():
        monkeypatch.setattr(gymnasium.vector, "SyncVectorEnv", make_recording)
        runpy.run_path(str(script), run_name="__main__")
        monkeypatch.undo()
    return returns


@pytest.mark.parametrize("kind", VECTORS)
def test_a_script_with_ppo_learns(kind, monkeypatch):
    returns = run(OURS, ["--total-steps", "20000"], kind, monkeypatch)
    first, last = np.mean(returns[:50]), np.mean(returns[-20:])
    assert first < 40
    assert last > 2.5 * first, (first, last)


@pytest.mark.skipif(not CLEANRL, reason="KILOWORLDS_CLEANRL_PPO does not name CleanRL's ppo.py")
@pytest.mark.filterwarnings("ignore")  # those of another project's script
@pytest.mark.parametrize("kind", VECTORS)
def test_cleanrls_ppo_learns(kind, monkeypatch, tmp_path):
    script = Path(str(CLEANRL)).resolve()
    monkeypatch.chdir(tmp_path)  # it writes its logs where it runs
    arguments = ["--total-timesteps", "30720", "--num-envs", "8", "--no-cuda"]
    arguments += ["--learning-rate", "1e-3"]
    returns = run(script, arguments, kind, monkeypatch)
    first, last = np.mean(returns[:50]), np.mean(returns[-20:])
    assert first < 40
    assert last > 2.5 * first, (first, last)
