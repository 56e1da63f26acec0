"""Worker: PPO of kiloworlds, the loop that `kiloworlds.train` runs, without writing files."""

import dataclasses
import time
from typing import Any

import numpy as np
from harness import serve
from peers.curves import summarise

from kiloworlds.core.devices import configure
from kiloworlds.core.registry import find_spec
from kiloworlds.training.config import build_config
from kiloworlds.training.fused import CHUNK, Episodes, FusedTraining
from kiloworlds.training.placement import configure_devices
from kiloworlds.training.presets import preset


def make(
    env: str,
    settings: dict[str, Any],
    use_preset: bool = False,
    runs: int = 1,
    devices: int | None = None,
):
    """`settings` are those of `kiloworlds.train`; a round makes `runs` trainings one after another.

    Without `devices` JAX is set up as `kiloworlds.train` does, with them it is left as it is.
    """
    base = preset("ppo", env) if use_preset else {}
    config = build_config("ppo", env, {**base, **settings, "devices": devices})
    if devices is None:
        configure_devices(config)
    elif devices > 1:
        configure(cpu_devices=devices)
    spec = find_spec(env)
    assert spec is not None, env
    start = time.perf_counter()
    training = FusedTraining(config, spec.build(), spec.build())
    training.run(training.init(), 1)
    facts = {
        "compile_seconds": time.perf_counter() - start,
        "num_envs": config.num_envs,
        "num_steps": config.settings.num_steps,
    }
    seed = config.seed

    def train() -> list[Episodes]:
        nonlocal seed
        seed += config.num_seeds
        # Seeds enter as data, so the compiled program serves them all.
        training.config = dataclasses.replace(config, seed=seed)
        state, done, parts = training.init(), 0, []
        while done < config.num_updates:
            count = min(CHUNK, config.num_updates - done)
            state, metrics = training.run(state, count)
            parts.append(metrics.episodes)
            done += count
        return parts

    def one_round() -> dict[str, Any]:
        start = time.perf_counter()
        trainings = [train() for _ in range(runs)]
        seconds = time.perf_counter() - start
        curves = []
        for parts in trainings:
            ended = np.concatenate([part.ended for part in parts], axis=1)
            sums = np.concatenate([part.return_sum for part in parts], axis=1)
            for count, total in zip(ended, sums, strict=True):
                curves.append(summarise(count, total, config.steps_per_update))
        steps = runs * config.num_seeds * config.num_updates * config.steps_per_update
        return {"steps": steps, "seconds": seconds, "curves": curves}

    return one_round, facts


if __name__ == "__main__":
    serve(make, ["jax", "jaxlib", "equinox", "optax", "numpy"])
