"""PPO's gradient steps: epochs of shuffled minibatches.

The parameters are rows, one per network; Adam steps over all of them at once.
"""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, ArrayLike, Float, Key, PyTree

from kiloworlds.algorithms.minibatches import nearest_divisor, row_taker
from kiloworlds.algorithms.normalization import mean_over_devices
from kiloworlds.algorithms.ppo_config import PPOConfig
from kiloworlds.algorithms.ppo_losses import LOSSES, POLICY, VALUE, Minibatch, PPOLosses
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.random import permutation


class GradientSteps:
    """Learns from batches of rows.

    Args:
        config: the settings.
        losses: of the networks.
        shares_network: whether one network is policy and value function.
        environment_axis, network_axis: see `kiloworlds.algorithms.ppo.PPO`.
    """

    def __init__(
        self,
        config: PPOConfig,
        losses: PPOLosses,
        shares_network: bool,
        environment_axis: str | None,
        network_axis: str | None,
    ):
        self._config = config
        self._losses = losses
        self._shares_network = shares_network
        self._environment_axis = environment_axis
        self._network_axis = network_axis
        self._optimizer = optax.scale_by_adam(eps=config.adam_epsilon)

    def init(self, parameters: Float[Array, "networks width"]) -> optax.ScaleByAdamState:
        """The optimiser's state before the first step."""
        optimizer = self._optimizer.init(parameters)
        assert isinstance(optimizer, optax.ScaleByAdamState)
        return optimizer

    def run(
        self,
        parameters: Float[Array, "networks width"],
        optimizer: optax.ScaleByAdamState,
        batch: Minibatch,
        key: Key[Array, ""],
        learning_rate: Float[ArrayLike, ""],
    ) -> tuple[Float[Array, "networks width"], optax.ScaleByAdamState, dict[str, Array]]:
        """Epochs of minibatch steps over the rows of a batch.

        Returns:
            The new parameters and state of the optimiser, and the mean of each of the losses.
        """
        config = self._config
        size = batch.value.shape[0]
        if size % config.num_minibatches:
            raise InvalidValueError(
                f"num_minibatches={config.num_minibatches} does not divide the {size} "
                f"{'transitions' if batch.starts is None else 'sequences'} of a rollout; the nearest "
                f"that does is {nearest_divisor(size, config.num_minibatches)}."
            )
        take = row_taker(batch)

        def minibatch_step(carry, minibatch):
            parameters, optimizer = carry
            gradient, losses = self.gradient(parameters, minibatch)
            direction, optimizer = self._optimizer.update(self._clip(gradient), optimizer)
            return (
                parameters - jnp.asarray(learning_rate) * jnp.asarray(direction),
                optimizer,
            ), losses

        def epoch(carry, order):
            # All minibatches of the epoch at once: many small kernels less in the inner loop.
            minibatches = take(order)
            weight = minibatches.policy_weight
            weight = minibatches.weight if weight is None else weight
            advantage = self.standardize(minibatches.advantage, weight)
            minibatches = minibatches._replace(advantage=advantage)
            return jax.lax.scan(minibatch_step, carry, minibatches)

        keys = jax.random.split(key, config.num_epochs)
        orders = jax.vmap(lambda epoch_key: permutation(epoch_key, size))(keys)
        orders = orders.reshape(config.num_epochs, config.num_minibatches, -1)
        mine = self._take_network((parameters, optimizer))
        learnt, losses = jax.lax.scan(epoch, mine, orders)
        parameters, optimizer = self._put_networks_together(learnt)
        losses = losses.mean((0, 1))
        if self._network_axis is not None:
            losses = jax.lax.psum(losses, self._network_axis)
        return parameters, optimizer, dict(zip(LOSSES, losses, strict=True))

    def _take_network(self, rows: PyTree) -> PyTree:
        """The rows of the networks that this device learns: with no network axis, both."""
        if self._network_axis is None:
            return rows
        index = jax.lax.axis_index(self._network_axis)
        return jax.tree.map(
            lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, index, 1) if leaf.ndim else leaf, rows
        )

    def _put_networks_together(self, rows: PyTree) -> PyTree:
        """Undoes `_take_network`: every device then has the rows of both networks."""
        axis = self._network_axis
        if axis is None:
            return rows
        return jax.tree.map(
            lambda leaf: jax.lax.all_gather(leaf, axis, tiled=True) if leaf.ndim else leaf, rows
        )

    def gradient(
        self, rows: Float[Array, "networks width"], batch: Minibatch
    ) -> tuple[Float[Array, "networks width"], Float[Array, " losses"]]:
        """The gradient of this device's networks, and the losses, of which others are zero."""
        policy = jax.grad(self._losses.policy, has_aux=True)
        value = jax.grad(self._losses.value, has_aux=True)
        if self._shares_network:
            gradient, losses = jax.grad(self._losses.shared, has_aux=True)(rows[0], batch)
            gradient = gradient[None]
        elif self._network_axis is not None:
            index = jax.lax.axis_index(self._network_axis)
            gradient, losses = jax.lax.switch(index, (policy, value), rows[0], batch)
            gradient = gradient[None]
        else:
            policy_gradient, policy_losses = policy(rows[POLICY], batch)
            value_gradient, value_losses = value(rows[VALUE], batch)
            gradient = jnp.stack((policy_gradient, value_gradient))
            losses = policy_losses + value_losses
        if self._environment_axis is not None:
            gradient = jax.lax.pmean(gradient, self._environment_axis)
        return gradient, losses

    def _clip(self, gradient: Float[Array, "networks width"]) -> Float[Array, "networks width"]:
        """Scales the gradient down to the largest norm allowed for both networks together."""
        square = (gradient**2).sum(-1).sum()
        if self._network_axis is not None:
            square = jax.lax.psum(square, self._network_axis)
        return gradient * jnp.minimum(1.0, self._config.max_grad_norm / (jnp.sqrt(square) + 1e-6))

    def standardize(
        self, advantage: Float[Array, "M ..."], weight: Float[Array, "M ..."] | None = None
    ) -> Float[Array, "M ..."]:
        """Zero mean and unit deviation within each of M minibatches."""
        if not self._config.normalize_advantage:
            return advantage
        rows = advantage.reshape(advantage.shape[0], -1)
        weights = None if weight is None else weight.reshape(rows.shape)

        def mean(values):
            return mean_over_devices(values, -1, self._environment_axis, weights)[:, None]

        centred = rows - mean(rows)
        return (centred / (jnp.sqrt(mean(centred**2)) + 1e-8)).reshape(advantage.shape)
