"""What loops collect and algorithms of several agents learn from.

Letters in shapes: T steps, N environments, A agents, K agents of one kind.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from kiloworlds.core.environment import AgentKind, MultiAgentEnvironment, check_kinds
from kiloworlds.core.spaces import Box


class Team(NamedTuple):
    """The agents of an environment, as algorithms see them.

    Attributes:
        kinds: see `MultiAgentEnvironment`.
        reward_is_shared: whether all get the same reward, dead or alive.
        global_state_space: what a centralised critic sees; None where the observations of all agents
            stand for it.
    """

    kinds: tuple[AgentKind, ...]
    reward_is_shared: bool
    global_state_space: Box | None

    @classmethod
    def of(cls, env: MultiAgentEnvironment) -> "Team":
        """The agents of a compiled environment."""
        return cls(env.kinds, env.team_reward, env.global_state_space)


class AgentsSeen(NamedTuple):
    """What agents act on.

    Observations `[N, A, ...]` and masks of legal actions `[N, A, n]` are dictionaries of blocks
    `[N, K, ...]` where agents are of several kinds. `acting` are those whose action is read: all that
    live, or in turn-based games the one whose turn it is.
    """

    observation: PyTree
    alive: Bool[Array, "N A"]
    acting: Bool[Array, "N A"]
    legal: PyTree | None
    global_state: Float[Array, "N ..."] | None


class AgentsExperience(NamedTuple):
    """T steps of N environments of A agents, axes `[T, N, ...]`.

    Attributes:
        seen: what was acted on.
        drawn: what the algorithm kept of its acting.
        action: what the environments were given.
        reward: of each agent.
        terminated: for which agents nothing follows: the task ended, or they died in the step.
        finished: whose own part ended in the step: terminated, or cut off.
        episode_terminated, episode_finished: the same of the episode of all.
        next_observation, next_global_state, next_alive, next_legal: what the step itself led to, the
            end of an episode included.
        lost: whether the environment was lost in the step, which is then not learnt from; or None.
        own_reward: the environment's, where `reward` holds hints besides; else None.
        memory: of the policies before the first step.
    """

    seen: AgentsSeen
    drawn: PyTree
    action: PyTree
    reward: Float[Array, "T N A"]
    terminated: Bool[Array, "T N A"]
    finished: Bool[Array, "T N A"]
    episode_terminated: Bool[Array, "T N"]
    episode_finished: Bool[Array, "T N"]
    next_observation: PyTree
    next_global_state: Float[Array, "T N ..."] | None
    next_alive: Bool[Array, "T N A"]
    next_legal: PyTree | None
    lost: Bool[Array, "T N"] | None
    memory: PyTree
    own_reward: Float[Array, "T N A"] | None = None


class KindLayout:
    """Where the agents of each kind lie on the axis of all agents."""

    def __init__(self, kinds: tuple[AgentKind, ...]):
        check_kinds(kinds)
        self.kinds = kinds
        self.names: tuple[str, ...] = tuple(kind.name for kind in kinds)
        self.sizes: tuple[int, ...] = tuple(len(kind.agents) for kind in kinds)

    def blocks(self, tree: PyTree) -> dict[str, Any]:
        """Values laid out in blocks where agents are of several kinds, as a dictionary always."""
        return tree if len(self.kinds) > 1 else {self.names[0]: tree}

    def joined(self, blocks: Mapping[str, Any]) -> PyTree:
        """The opposite: the only block stands for itself."""
        return dict(blocks) if len(self.kinds) > 1 else blocks[self.names[0]]

    def split(self, values: Array, axis: int) -> dict[str, Array]:
        """Values with an axis of all agents, by kind."""
        ends, total = [], 0
        for size in self.sizes[:-1]:
            total += size
            ends.append(total)
        return dict(zip(self.names, jnp.split(values, ends, axis), strict=True))


def fold_agents(tree: PyTree, axis: int) -> PyTree:
    """Agents as so many more environments: `[..., N, K, ...]` to `[..., N * K, ...]`.

    Args:
        axis: the place of N.
    """

    def fold(leaf: Array) -> Array:
        return leaf.reshape(*leaf.shape[:axis], -1, *leaf.shape[axis + 2 :])

    return jax.tree.map(fold, tree)


def unfold_agents(tree: PyTree, axis: int, count: int) -> PyTree:
    """The opposite of `fold_agents`, for `count` agents."""

    def unfold(leaf: Array) -> Array:
        return leaf.reshape(*leaf.shape[:axis], -1, count, *leaf.shape[axis + 1 :])

    return jax.tree.map(unfold, tree)


def side_by_side(layout: KindLayout, observation: PyTree, lead: int) -> Float[Array, "..."]:
    """All agents' observations as one vector, `[*lead, features]`.

    Args:
        lead: how many axes lead before the agents'.
    """
    blocks = layout.blocks(observation)
    parts = [
        leaf.reshape(*leaf.shape[:lead], -1).astype(jnp.float32)
        for name in layout.names
        for leaf in jax.tree.leaves(blocks[name])
    ]
    return jnp.concatenate(parts, -1)


def width_side_by_side(kinds: tuple[AgentKind, ...]) -> int:
    """How many numbers all agents observe together."""
    samples = [jax.eval_shape(kind.observation_space.sample, jax.random.key(0)) for kind in kinds]
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(sample)) for sample in samples]
    return sum(len(kind.agents) * size for kind, size in zip(kinds, sizes, strict=True))
