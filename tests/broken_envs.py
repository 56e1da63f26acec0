"""Environments with one fault each, for the tests of what finds it."""

import ctypes
import os
import threading
import time

import gymnasium
import numpy as np
from gymnasium import spaces


class Fine(gymnasium.Env):
    """Two numbers, random at the start; ends after `length` steps. Has no fault."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 30}  # noqa: RUF012 (Gymnasium's form)

    def __init__(self, length: int = 5, render_mode=None):
        self.observation_space = spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.length, self.render_mode = length, render_mode
        self.steps = 0

    def observation(self):
        return np.array([self.start, self.steps / self.length], np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        self.start = self.np_random.uniform(-1, 1)
        return self.observation(), {}

    def step(self, action):
        self.steps += 1
        return self.observation(), float(action), self.steps >= self.length, False, {}

    def render(self):
        picture = np.zeros((20, 30, 3), np.uint8)
        picture[self.steps] = 255
        return picture


class OldGym(Fine):
    def reset(self):
        return super().reset()[0]

    def step(self, action):
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, info


class FourValues(Fine):
    def step(self, action):
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, info


class NoSpaces(gymnasium.Env):
    def reset(self, *, seed=None, options=None):
        return np.zeros(1), {}

    def step(self, action):
        return np.zeros(1), 0.0, False, False, {}


class OutOfBounds(Fine):
    def observation(self):
        observation = super().observation()
        if self.steps == 3:
            observation[1] = 2.5
        return observation


class WrongDtype(Fine):
    def observation(self):
        return super().observation().astype(np.float64)


class WrongShape(Fine):
    def observation(self):
        return super().observation()[:, None]


class NestedOutOfBounds(Fine):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.observation_space = spaces.Dict(
            {"where": spaces.Tuple((spaces.Discrete(6), spaces.Box(-1, 1, (2,), np.float32)))}
        )

    def observation(self):
        return {"where": (6 if self.steps == 2 else 5, super().observation())}


class MissingKey(NestedOutOfBounds):
    def observation(self):
        return {} if self.steps else {"where": (0, Fine.observation(self))}


class ChangingDtype(Fine):
    def observation(self):
        observation = super().observation()
        return observation.astype(np.float16) if self.steps == 2 else observation


class NaNObservation(Fine):
    def observation(self):
        observation = super().observation()
        return observation * np.float32(np.nan) if self.steps == 2 else observation


class InfiniteReward(Fine):
    def step(self, action):
        return super().step(action)[0], -np.inf, self.steps >= self.length, False, {}


class ArrayReward(Fine):
    def step(self, action):
        observation, reward, *rest = super().step(action)
        return observation, np.array([reward]), *rest


class NoReward(Fine):
    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, None, *rest


class Aliased(Fine):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.buffer = np.zeros(2, np.float32)

    def observation(self):
        self.buffer[:] = super().observation()
        return self.buffer


class SharedConstant(Fine):
    zeros = np.zeros(2, np.float32)

    def observation(self):
        return self.zeros


class ChangesAction(Fine):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.action_space = spaces.Box(-1, 1, (3,), np.float32)

    def step(self, action):
        action *= 0.5
        return super().step(action[0])


class IntegerFlags(Fine):
    def step(self, action):
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, int(terminated), 0, info


class MergedFlags(Fine):
    def step(self, action):
        observation, reward, terminated, _, info = super().step(action)
        return observation, reward, terminated, terminated, info


class Endless(Fine):
    def step(self, action):
        observation, reward, _, _, info = super().step(action)
        self.steps = 1
        return observation, reward, False, False, info


class HugeInfo(Fine):
    def step(self, action):
        *rest, _ = super().step(action)
        return *rest, {"frame": np.zeros((100, 100, 3), np.uint8), "small": 1}


class UnpicklableInfo(Fine):
    def step(self, action):
        *rest, _ = super().step(action)
        return *rest, {"lock": threading.Lock()}


class RaisesLater(Fine):
    life = 0

    def step(self, action):
        self.life += 1
        if self.life == 8:
            raise ValueError("no goal")
        return super().step(action)


class RaisesAlways(Fine):
    def step(self, action):
        raise ValueError("no goal")


class NoResetAfterEnd(Fine):
    over = False

    def reset(self, *, seed=None, options=None):
        if self.over:
            raise RuntimeError("it is over")
        return super().reset(seed=seed)

    def step(self, action):
        self.over = self.steps >= self.length
        return super().step(action)


class Unseeded(Fine):
    def reset(self, *, seed=None, options=None):
        result = super().reset(seed=seed)
        self.start = np.random.default_rng().uniform(-1, 1)
        return self.observation(), result[1]


class GlobalRandom(Fine):
    def reset(self, *, seed=None, options=None):
        if seed is not None:
            np.random.seed(seed)
        self.steps, self.start = 0, np.random.uniform(-1, 1)
        return self.observation(), {}


class NewSeedEachReset(Fine):
    def reset(self, *, seed=None, options=None):
        self.steps, self.start = 0, np.random.default_rng(seed).uniform(-1, 1)
        return self.observation(), {}


class SameStartForEver(Fine):
    seed = 0

    def reset(self, *, seed=None, options=None):
        self.seed = self.seed if seed is None else seed
        return super().reset(seed=self.seed)


class SeedIgnored(Fine):
    def reset(self, *, seed=None, options=None):
        self.steps = 0
        if seed is not None:
            self.generator = np.random.default_rng(7)
        self.start = self.generator.uniform(-1, 1)
        return self.observation(), {}


class KeepsState(Fine):
    """What was before a seeded reset shows after it."""

    carried = 0.0

    def reset(self, *, seed=None, options=None):
        result = super().reset(seed=seed)
        self.start = self.start / 2 + self.carried
        self.carried = min(0.4, self.carried + 0.01)
        return self.observation(), result[1]


class NoRandomness(Fine):
    def reset(self, *, seed=None, options=None):
        self.steps, self.start = 0, 0.5
        return self.observation(), {}


class SharedState(Fine):
    """Its position is an attribute of the class."""

    position = np.zeros(1, np.float32)

    def reset(self, *, seed=None, options=None):
        result = super().reset(seed=seed)
        self.position[:] = 0.1
        return result

    def step(self, action):
        self.position *= 1 - 0.5 * action
        observation, _, *rest = super().step(action)
        return observation, float(self.position[0]), *rest


class WrongPicture(Fine):
    def render(self):
        return np.zeros((20, 30), np.float32)


class NeedsOpenGL(Fine):
    def render(self):
        raise RuntimeError("no OpenGL context")


class RaisesInRender(Fine):
    def render(self):
        raise ValueError("no colour")


class NoRenderMode(Fine):
    def __init__(self):
        super().__init__()


class ForgetsRenderMode(Fine):
    def __init__(self, render_mode=None):
        super().__init__()


class ClosesOnce(Fine):
    closed = False

    def close(self):
        if self.closed:
            raise RuntimeError("closed already")
        self.closed = True


class ClosesOnlyAfterReset(Fine):
    def close(self):
        assert self.start is not None


class OnlyInThisProcess(Fine):
    """Raises where a certain environment variable is not that of this process."""

    def __init__(self, process_id: int, **kwargs):
        super().__init__(**kwargs)
        if os.getpid() != process_id:
            raise FileNotFoundError("map.txt")


class KnowsItsProcess(Fine):
    def step(self, action):
        observation, _, *rest = super().step(action)
        return observation, float(os.getpid()), *rest


class Leaks(Fine):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.history = []

    def step(self, action):
        self.history.append(np.ones(4000))
        return super().step(action)


class LeavesFilesOpen(Fine):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.descriptor = os.open(os.devnull, os.O_RDONLY)


class Segfaults(Fine):
    """In the eighth step of its life."""

    life = 0

    def step(self, action):
        self.life += 1
        if self.life == 8:
            ctypes.string_at(0)
        return super().step(action)


class Exits(Segfaults):
    def step(self, action):
        self.life += 1
        if self.life == 8:
            os._exit(3)
        return Fine.step(self, action)


class Hangs(Segfaults):
    def step(self, action):
        self.life += 1
        if self.life == 8:
            time.sleep(1000)
        return Fine.step(self, action)


class SegfaultsInConstructor(Fine):
    def __init__(self, **kwargs):
        ctypes.string_at(0)


class RaisesInConstructor(Fine):
    def __init__(self, **kwargs):
        raise ValueError("no map")


class Prints(Fine):
    def step(self, action):
        print("x" * 1000, flush=True)
        return super().step(action)


_ONE = Fine()


def always_the_same():
    """A factory that builds one environment only."""
    return _ONE


def builds_nothing():
    """A factory that forgets to return."""
