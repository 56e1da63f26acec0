"""Environments that do nothing but take time, or give large observations."""

import time

import gymnasium
import numpy as np
from gymnasium import spaces


class WaitingEnv(gymnasium.Env):
    """A step waits `wait` seconds, as for a simulator that runs elsewhere.

    Args:
        wait: seconds of a step.
        spread: of the waiting times; 0 for none, 1 for exponential ones with that mean.
        size: numbers in an observation.
    """

    observation_space: spaces.Space = spaces.Box(-1, 1, (8,), np.float32)
    action_space = spaces.Discrete(4)

    def __init__(self, wait: float, spread: float = 0.0, length: int = 1000, size: int = 8):
        self.observation_space = spaces.Box(-1, 1, (size,), np.float32)
        self._wait, self._spread, self._length, self._steps = wait, spread, length, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._steps = 0
        return self._observe(), {}

    def step(self, action):
        wait = self._wait * (1 - self._spread + self._spread * self.np_random.exponential())
        time.sleep(wait)
        self._steps += 1
        return self._observe(), 1.0, self._steps >= self._length, False, {}

    def _observe(self) -> np.ndarray:
        return self.np_random.uniform(-1, 1, self.observation_space.shape).astype(np.float32)


class BusyEnv(gymnasium.Env):
    """A step computes for `work` seconds."""

    observation_space = spaces.Box(-1, 1, (8,), np.float32)
    action_space = spaces.Discrete(4)

    def __init__(self, work: float):
        self._work = work
        self._observation = np.zeros(8, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._observation, {}

    def step(self, action):
        # Processor time, not the clock's: what another process takes does not count as work.
        until = time.thread_time() + self._work
        while time.thread_time() < until:
            pass
        return self._observation, 1.0, False, False, {}


# The same for all environments of a process: a simulator has just drawn its picture, and what is to be
# measured is how fast it gets to the caller, not how fast it is read back from main memory.
_FRAMES = np.random.default_rng(0).integers(0, 255, (4, 4, 84, 84), np.uint8)


class FrameEnv(gymnasium.Env):
    """Gives one of a few ready frames, `[4, 84, 84]` of uint8."""

    observation_space = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    action_space = spaces.Discrete(4)

    def __init__(self):
        self._steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return _FRAMES[0], {}

    def step(self, action):
        self._steps += 1
        return _FRAMES[self._steps % 4], 0.0, False, False, {}
