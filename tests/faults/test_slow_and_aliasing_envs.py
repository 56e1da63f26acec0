"""Environments that are slower than the others, or that hand out the same array each time."""

import functools
import time

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from pool_envs import SlowEnv

import kiloworlds

NUM_ENVS, MEDIAN = 8, 0.004


def steps_of_the_others(pool, slow: float, seconds: float = 2.0) -> int:
    """How many steps environments 1 to 7 take while environment 0 takes `slow` seconds for one."""
    functions = [functools.partial(SlowEnv, slow if i == 0 else MEDIAN) for i in range(NUM_ENVS)]
    envs = pool(functions, NUM_ENVS, num_workers=NUM_ENVS, batch_size=1)
    envs.async_reset(seed=0)
    count, started = 0, time.monotonic()
    while time.monotonic() - started < seconds:
        *_, infos = envs.recv()
        count += int(infos["env_id"][0] != 0)
        envs.send(np.ones(1, int), infos["env_id"])
    envs.close()
    return count


def test_a_slow_environment_does_not_hold_up_the_others(pool):
    ratios = []
    for _ in range(4):  # the machine may be busy with something else for a while
        evenly = steps_of_the_others(pool, MEDIAN)
        ratios.append(steps_of_the_others(pool, 50 * MEDIAN) / evenly)
        if ratios[-1] >= 0.9:
            break
    assert ratios[-1] >= 0.9, f"the others kept only {ratios} of their steps"


def test_in_lock_step_the_slow_one_is_named(pool):
    functions = [functools.partial(SlowEnv, 0.02 if i == 5 else 0.0004) for i in range(NUM_ENVS)]
    envs = pool(functions, NUM_ENVS, num_workers=2)
    envs.reset(seed=0)
    for _ in range(100):  # one step in sixteen is timed
        envs.step(np.ones(NUM_ENVS, int))
    row, share = envs.slowest()
    assert row == 5
    assert share > 0.5


class OneBuffer(gymnasium.Env):
    """Counts its steps in the one array that reset and step return; ends after three."""

    def __init__(self):
        self.observation_space = spaces.Box(-1, 100, (3,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.buffer = np.zeros(3, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.buffer[:] = 0
        return self.buffer, {"buffer": self.buffer}

    def step(self, action):
        self.buffer += 1
        return self.buffer, 1.0, bool(self.buffer[0] == 3), False, {"buffer": self.buffer}


@pytest.mark.parametrize("backend", ["process", "thread", "sync"])
@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_an_environment_that_reuses_one_buffer(backend, mode):
    options = {} if backend == "sync" else {"num_workers": 2}
    envs = kiloworlds.make(lambda: OneBuffer(), 4, backend=backend, autoreset_mode=mode, **options)
    with envs:
        seen = [envs.reset(seed=0)[0]]
        carried = []
        for step in range(1, 4):
            observations, _, terminated, _, infos = envs.step(np.zeros(4, int))
            seen.append(observations)
            carried.append(infos)
            assert terminated.all() == (step == 3)
        if mode == AutoresetMode.SAME_STEP:
            assert [batch[0, 0] for batch in seen] == [0, 1, 2, 0]
            for row in range(4):
                np.testing.assert_array_equal(carried[-1]["final_obs"][row], [3, 3, 3])
                np.testing.assert_array_equal(carried[-1]["final_info"]["buffer"][row], [3, 3, 3])
        else:
            assert [batch[0, 0] for batch in seen] == [0, 1, 2, 3]
        np.testing.assert_array_equal(carried[0]["buffer"][0], [1, 1, 1])
        np.testing.assert_array_equal(carried[1]["buffer"][0], [2, 2, 2])
