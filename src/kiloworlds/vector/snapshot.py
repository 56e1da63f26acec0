"""The state of many compiled environments as a value: to go back to, to copy, to try things out from."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import FAST_IMPL
from kiloworlds.vector.functional import VectorState


class VectorSnapshot(NamedTuple):
    """What `CompiledVectorEnv.snapshot` gives: a pytree that nothing changes.

    From the same snapshot the same actions lead to the same steps, as random numbers are a part of it;
    `with_seed` gives it others.

    Attributes:
        state: of all environments, with their parameters.
        observation: what to act on next, `[N, ...]`.
    """

    state: VectorState
    observation: PyTree

    @property
    def num_envs(self) -> int:
        """How many environments there are, N."""
        return self.state.finished.shape[0]

    def take(self, indices: Sequence[int] | np.ndarray) -> "VectorSnapshot":
        """Some of the environments, in that order; one may be there many times.

        Raises:
            InvalidValueError: a number of no environment.
        """
        rows = np.asarray(indices)
        if rows.ndim != 1 or rows.dtype.kind not in "iu" or not rows.size:
            raise InvalidValueError(f"indices={indices!r} must be numbers of environments.")
        wrong = rows[(rows < 0) | (rows >= self.num_envs)]
        if wrong.size:
            raise InvalidValueError(
                f"indices holds {wrong[0]}; there are environments 0 to {self.num_envs - 1}."
            )
        clock = self.state.clock
        taken = jax.tree.map(lambda leaf: leaf[rows], self._replace(state=self._without_clock))
        return taken._replace(state=taken.state._replace(clock=clock))

    @property
    def _without_clock(self) -> VectorState:
        """The state without what all environments share."""
        nothing: PyTree = None
        return self.state._replace(clock=nothing)

    def with_seed(self, seed: int) -> "VectorSnapshot":
        """The same environments with random numbers of their own, different in each."""
        base = jax.random.key(np.uint32(seed), impl=FAST_IMPL)
        numbers = jnp.arange(self.num_envs, dtype=jnp.uint32)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(base, numbers)
        return self._replace(state=self.state._replace(keys=keys))
