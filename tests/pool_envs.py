"""Gymnasium environments that workers of pools run in tests."""

import copy
import os
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class CountingEnv(gymnasium.Env):
    """Observes how many steps the episode has; ends after `length` steps.

    Infos: "steps" (int), "half" (float, only on even steps), "name" (str), "pair" (array).
    """

    def __init__(self, length: int = 5, truncates: bool = False, space: Any = None):
        self.observation_space = space or spaces.Box(-1e6, 1e6, (2,), np.float64)
        self.action_space = spaces.Discrete(3)
        self.length, self.truncates = length, truncates
        self.steps = 0
        self.start = 0.0

    def _result(self) -> tuple[np.ndarray, dict]:
        info: dict[str, Any] = {"steps": self.steps, "name": f"step {self.steps}"}
        info["pair"] = np.array([self.steps, -self.steps], np.int32)
        if self.steps % 2 == 0:
            info["half"] = self.steps / 2
        return np.array([self.start, self.steps], np.float64), info

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        self.start = float(self.np_random.integers(0, 1000)) + 1000 * (options or {}).get("k", 0)
        return self._result()

    def step(self, action):
        self.steps += 1
        over = self.steps >= self.length
        observation, info = self._result()
        reward = float(action) + self.steps / 10
        return observation, reward, over and not self.truncates, over and self.truncates, info

    def double(self, value: int) -> int:
        """For `call`."""
        return 2 * value


class EchoEnv(gymnasium.Env):
    """Observes a sample of its space drawn from its own generator; the last action is the reward."""

    def __init__(self, observation_space: Any, action_space: Any):
        # Copies: every environment draws from a generator of its own.
        self.observation_space = copy.deepcopy(observation_space)
        self.action_space = copy.deepcopy(action_space)
        self.last_action: Any = None
        self.steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        assert action in self.action_space, action
        self.last_action = action
        self.steps += 1
        return self.observation_space.sample(), 1.0, self.steps == 4, False, {}


class FaultyEnv(CountingEnv):
    """Does `fault(self)` once, at step `at_step` of its life.

    A file says whether the fault has happened: a new process must not have it again. With no file it
    happens each time.
    """

    def __init__(self, fault: Any, at_step: int = 3, once: Path | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.fault, self.at_step, self.once = fault, at_step, once
        self.life = 0

    def step(self, action):
        self.life += 1
        if self.life == self.at_step and self._is_first():
            changed = self.fault(self)
            if changed is not None:
                return changed
        return super().step(action)

    def _is_first(self) -> bool:
        if self.once is None:
            return True
        try:
            self.once.open("x").close()
        except FileExistsError:
            return False
        return True


class SlowEnv(CountingEnv):
    """Sleeps in every step."""

    def __init__(self, seconds: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.seconds = seconds

    def step(self, action):
        time.sleep(self.seconds)
        return super().step(action)


def process_id(env: Any) -> int:
    """The process an environment lives in."""
    return os.getpid()
