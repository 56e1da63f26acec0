"""The environment of the soak: a simulator that gives NaN when it is told to."""

import os
from pathlib import Path

import gymnasium
import numpy as np


class FlakyLander(gymnasium.Wrapper):
    """LunarLander, whose next observation is NaN once there is a file `nan-*` in a folder.

    Args:
        folder: where the files appear; whoever deletes one gives NaN.
    """

    def __init__(self, folder: str):
        super().__init__(gymnasium.make("LunarLander-v3"))
        self._folder = Path(folder)
        self._steps = 0

    def step(self, action):
        observation, *rest = self.env.step(action)
        self._steps += 1
        if self._steps % 64 == 0 and self._is_told():  # to look at a folder takes as long as a step
            observation = np.full_like(observation, np.nan)
        return observation, *rest

    def _is_told(self) -> bool:
        for name in os.listdir(self._folder):
            if name.startswith("nan-"):
                try:
                    (self._folder / name).unlink()
                except FileNotFoundError:  # another one was faster
                    continue
                return True
        return False
