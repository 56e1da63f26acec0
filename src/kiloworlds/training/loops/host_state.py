"""What the loops on the host share: many updates in one call, what they save and go on from."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from kiloworlds.training.config import TrainConfig
from kiloworlds.training.storage.arrays import Arrays, from_arrays

LEARNER, UPDATES, NUM_ENVS, ENVIRONMENTS = "learner", "updates", "num_envs", "environments"
KEY = "key"


def run_updates(
    one_update: Callable[[Any], tuple[Any, Any]], state: Any, count: int, stop: Callable[[], bool]
) -> tuple[Any, Any]:
    """`count` updates, or fewer where `stop()` after one: the state, and metrics `[1, U]`."""
    rows = []
    for _ in range(count):
        state, row = one_update(state)
        rows.append(row)
        if stop():
            break
    return state, jax.tree.map(lambda *leaves: np.stack(leaves)[None], *rows)


def restored_learner(init: Callable[[Any], Any], key: jax.Array, arrays: Arrays | None) -> Any:
    """A learner as it was saved, without the seed axis of one.

    Args:
        init: makes a fresh one from `key`.
        arrays: that were saved; None: a fresh one is wanted.

    Raises:
        InvalidValueError: it is of other settings.
    """
    if arrays is None:
        return jax.jit(init)(key)
    like = jax.eval_shape(lambda key: jax.tree.map(lambda leaf: leaf[None], init(key)), key)
    stored = from_arrays({LEARNER: like}, arrays, "the checkpoint")[LEARNER]
    return jax.tree.map(lambda leaf: jax.numpy.asarray(leaf[0]), stored)


def restored_key(like: jax.Array, arrays: Arrays) -> jax.Array:
    """The key of the loop as it was saved: ways back have changed it."""
    return from_arrays({KEY: like}, arrays, "the checkpoint")[KEY]


def restart(config: TrainConfig, arrays: Arrays, say: Callable[[str], None]) -> tuple[int, int]:
    """How many updates there were, and a seed for environments that start new episodes.

    With another number of environments updates are counted as if they had always been as many.

    Args:
        say: hears that episodes start over.
    """
    updates, stored = int(arrays[UPDATES][0]), int(arrays[NUM_ENVS][0])
    say(
        f"the environments of {config.env_id} have not saved their states: {config.num_envs} episodes "
        f"start over{f' instead of {stored}' if stored != config.num_envs else ''}."
    )
    seed = np.random.SeedSequence([config.seed, updates]).generate_state(1)[0]
    return round(updates * stored / config.num_envs), int(seed)
