"""What all algorithms share that learn the values of actions: settings, networks, and acting by them.

Letters in shapes: N environments, A agents.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Key, PyTree

from kiloworlds.algorithms.experience import AgentsSeen, Team
from kiloworlds.algorithms.q_agents import Networks, QAgents
from kiloworlds.algorithms.shaping import ShapedRewards
from kiloworlds.core.checks import require_choice, require_flag, require_number, require_sizes
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.networks.mlp import activation


@dataclass(frozen=True)
class QLearnerConfig(ShapedRewards):
    """Settings of learning the values of actions."""

    networks: ClassVar[tuple[str, ...]] = ("mlp", "gru")

    num_steps: int = 25
    """Steps each environment takes per update."""
    learning_rate: float = 5e-4
    """Step size of Adam."""
    anneal_learning_rate: bool = True
    """Whether the learning rate falls linearly to zero over the training."""
    gamma: float = 0.99
    """Discount per step."""
    reward_scale: float = 1.0
    """What rewards are multiplied by. Values far from zero are hard to learn."""
    epsilon_start: float = 1.0
    """Share of random actions at the start."""
    epsilon_end: float = 0.05
    """Share of random actions once exploration has fallen."""
    epsilon_fraction: float = 0.2
    """Share of the training over which it falls."""
    max_grad_norm: float = 10.0
    """Gradients are scaled down to this norm."""
    network: str = "gru"
    """What reads observations: "mlp", hidden layers; "gru", with a memory after them."""
    hidden_sizes: tuple[int, ...] = (64,)
    """Widths of the hidden layers."""
    recurrent_size: int = 64
    """gru: numbers of the memory."""
    activation: str = "relu"
    """Activation of the hidden layers: tanh, relu, elu, gelu or silu."""
    layer_norm: bool = False
    """Whether hidden layers are normalised."""

    def __post_init__(self):
        for name in ("num_steps", "recurrent_size"):
            require_number(name, getattr(self, name), 1, whole=True)
        self.check_shaping()
        for name in ("gamma", "epsilon_start", "epsilon_end", "epsilon_fraction"):
            require_number(name, getattr(self, name), 0.0, 1.0)
        for name in ("learning_rate", "max_grad_norm", "reward_scale"):
            require_number(name, getattr(self, name), 0.0)
        for name in ("anneal_learning_rate", "layer_norm"):
            require_flag(name, getattr(self, name))
        require_choice("network", self.network, self.networks)
        activation(self.activation)
        object.__setattr__(self, "hidden_sizes", require_sizes("hidden_sizes", self.hidden_sizes))
        if not self.hidden_sizes:
            raise InvalidValueError(
                "hidden_sizes=() has no layer; give one or more, such as (64,)."
            )

    def epsilon(self, progress: Any) -> Float[Array, ""]:
        """The share of random actions after a share `progress` of the training."""
        gone = jnp.clip(progress / max(self.epsilon_fraction, 1e-6), 0.0, 1.0)
        return self.epsilon_start + gone * (self.epsilon_end - self.epsilon_start)

    def rate(self, progress: Any) -> Float[Array, ""]:
        """The learning rate after a share `progress` of the training."""
        rate = jnp.float32(self.learning_rate)
        return rate * (1.0 - progress) if self.anneal_learning_rate else rate


class QLearner:
    """Agents that act by the values of their actions.

    Args:
        config: the settings.
        team: the agents.
        name: of the algorithm, for errors.
    """

    replays: ClassVar[bool] = False

    def __init__(self, config: QLearnerConfig, team: Team, name: str):
        self._team = team
        self._epsilon = config.epsilon
        self._agents = QAgents(
            team,
            name,
            config.hidden_sizes,
            config.recurrent_size if config.network == "gru" else 0,
            config.activation,
            config.layer_norm,
        )
        self.layout = self._agents.layout
        self._optimizer = optax.chain(
            optax.clip_by_global_norm(config.max_grad_norm), optax.scale_by_adam(eps=1e-5)
        )

    @abstractmethod
    def _networks(self, state: Any) -> Networks:
        """What is acted by, of all that is learnt."""

    def begin(self, num_envs: int) -> dict[str, Any]:
        """The memory before the first step."""
        return self._agents.begin(num_envs)

    def policy(self, state: Any, progress: Any = None) -> tuple[Networks, Float[Array, ""]]:
        """The networks and the share of random actions."""
        epsilon = self._epsilon(1.0 if progress is None else progress)
        return self._networks(state), jnp.float32(epsilon)

    def act(
        self,
        policy: tuple[Networks, Float[Array, ""]],
        key: Key[Array, ""],
        seen: AgentsSeen,
        memory: dict[str, Any],
        greedy: bool = False,
    ) -> tuple[PyTree, None, dict[str, Any]]:
        """Chooses actions for all agents."""
        networks, epsilon = policy
        epsilon = jnp.zeros_like(epsilon) if greedy else epsilon
        actions, memory = self._agents.act(networks, key, seen, memory, epsilon)
        return actions, None, memory

    def settle(self, policy: PyTree, drawn: None) -> None:
        """Nothing is kept of acting."""

    def forget(
        self,
        memory: dict[str, Any],
        finished: Bool[Array, "N A"],
        episode_finished: Bool[Array, " N"],
    ) -> dict[str, Any]:
        """Clears the memory of agents whose own part, or whose episode, is over."""
        return self._agents.forget(memory, finished | episode_finished[:, None])
