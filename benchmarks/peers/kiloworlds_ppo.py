"""Worker: PPO of kiloworlds, the loop that `kiloworlds.train` runs, without writing files."""

import dataclasses
import time
from typing import Any

import numpy as np
from harness import AbsentError, serve
from peers.curves import summarise

from kiloworlds.core.devices import configure
from kiloworlds.core.registry import find_spec
from kiloworlds.training.algorithms import fused_training
from kiloworlds.training.config import build_config
from kiloworlds.training.loops.fused_loop import CHUNK, Episodes
from kiloworlds.training.placement import configure_devices
from kiloworlds.training.presets import preset


class Trainings:
    """Trainings one after another, with one seed after another.

    Without `devices` JAX is set up as `kiloworlds.train` does, with them it is left as it is.

    Args:
        settings: those of `kiloworlds.train`.
    """

    def __init__(
        self,
        algorithm: str,
        env: str,
        settings: dict[str, Any],
        use_preset: bool = False,
        devices: int | None = None,
    ):
        base = preset(algorithm, env) if use_preset else {}
        config = build_config(algorithm, env, {**base, **settings, "devices": devices})
        if devices is None:
            configure_devices(config)
        elif devices > 1:
            configure(cpu_devices=devices)
        spec = find_spec(env)
        if spec is None:
            raise AbsentError(f"kiloworlds has no {env}")
        kwargs = config.env_kwargs
        start = time.perf_counter()
        self._training = fused_training(config, spec.build(**kwargs), spec.build(**kwargs))
        state = self._training.init()
        self.facts = {
            "compile_seconds": time.perf_counter() - start,
            "num_envs": config.num_envs,
            "num_steps": config.settings.num_steps,
        }
        self._training.run(state, 1)
        self.config = config
        self._seed = config.seed

    @property
    def steps(self) -> int:
        """Environment steps of one training."""
        return self.config.num_seeds * self.config.num_updates * self.config.steps_per_update

    def train(self) -> list[Episodes]:
        """One training; returns what ended, call by call `[seed, update]`."""
        self._seed += self.config.num_seeds
        # Seeds enter as data, so the compiled program serves them all.
        self._training.config = dataclasses.replace(self.config, seed=self._seed)
        state, done, parts = self._training.init(), 0, []
        while done < self.config.num_updates:
            count = min(CHUNK, self.config.num_updates - done)
            state, metrics = self._training.run(state, count)
            parts.append(metrics.episodes)
            done += count
        return parts


def make(
    env: str,
    settings: dict[str, Any],
    use_preset: bool = False,
    runs: int = 1,
    devices: int | None = None,
):
    """A round makes `runs` trainings one after another."""
    trainings = Trainings("ppo", env, settings, use_preset, devices)

    def one_round() -> dict[str, Any]:
        start = time.perf_counter()
        done = [trainings.train() for _ in range(runs)]
        seconds = time.perf_counter() - start
        curves = []
        for parts in done:
            ended = np.concatenate([part.ended for part in parts], axis=1)
            sums = np.concatenate([part.return_sum for part in parts], axis=1)
            for count, total in zip(ended, sums, strict=True):
                curves.append(summarise(count, total, trainings.config.steps_per_update))
        return {"steps": runs * trainings.steps, "seconds": seconds, "curves": curves}

    return one_round, trainings.facts


if __name__ == "__main__":
    serve(make, ["jax", "jaxlib", "equinox", "optax", "numpy"])
