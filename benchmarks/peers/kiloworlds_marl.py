"""Worker: several agents trained by kiloworlds, the loop that `kiloworlds.train` runs."""

import time
from typing import Any

import numpy as np
from harness import serve
from peers.curves import means_by_part
from peers.kiloworlds_ppo import Trainings


def make(
    env: str,
    settings: dict[str, Any],
    algorithm: str = "ippo",
    use_preset: bool = False,
    devices: int | None = None,
):
    """A round makes one training; `settings` are those of `kiloworlds.train`."""
    trainings = Trainings(algorithm, env, settings, use_preset, devices)

    def one_round() -> dict[str, Any]:
        start = time.perf_counter()
        parts = trainings.train()
        seconds = time.perf_counter() - start
        sums = {
            "returns": np.concatenate([part.return_sum for part in parts], axis=1),
            **{
                name: np.concatenate([part.others[name] for part in parts], axis=1)
                for name in parts[0].others
            },
        }
        ended = np.concatenate([part.ended for part in parts], axis=1)
        curves = [
            means_by_part(
                count,
                {name: values[seed] for name, values in sums.items()},
                trainings.config.steps_per_update,
            )
            for seed, count in enumerate(ended)
        ]
        return {"steps": trainings.steps, "seconds": seconds, "curves": curves}

    return one_round, trainings.facts


if __name__ == "__main__":
    serve(make, ["jax", "jaxlib", "equinox", "optax", "numpy"])
