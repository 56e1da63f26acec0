"""PPO for several agents: what independent and centralised training share.

Every kind of agents has a policy of its own, which its agents share or of which each has a copy to
itself. All of them are learners of `kiloworlds.algorithms.ppo`: agents that share a policy are so many
more environments to it.

Letters in shapes: T steps, N environments, A agents, K agents of one kind.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, PyTree

from kiloworlds.algorithms.experience import (
    AgentsExperience,
    AgentsSeen,
    KindLayout,
    Team,
    fold_agents,
    side_by_side,
    unfold_agents,
    width_side_by_side,
)
from kiloworlds.algorithms.ppo import PPO, PPOState, Rollout
from kiloworlds.algorithms.ppo_config import PPOConfig
from kiloworlds.algorithms.shaping import ShapedRewards
from kiloworlds.core.checks import require_choice, require_flag, require_number
from kiloworlds.core.spaces import Box, Space


@dataclass(frozen=True)
class AgentsPPOConfig(ShapedRewards, PPOConfig):
    """Settings of PPO for several agents."""

    networks: ClassVar[tuple[str, ...]] = ("auto", "mlp", "cnn", "gru")
    is_centralised: ClassVar[bool] = False
    """Whether value functions see the global state (where there is none, what all agents observe), or
    each what its policy sees."""

    network: str = "auto"
    """What reads observations: "mlp", hidden layers; "cnn", convolutions; "gru", a recurrent network
    that remembers (Cho et al. 2014); or "auto": cnn for images of uint8, else mlp."""
    recurrent_size: int = 128
    """gru: numbers of the memory, and width of the layers before and after it."""
    share_parameters: bool = True
    """Whether the agents of one kind share their networks, or each has its own."""

    def __post_init__(self):
        super().__post_init__()
        require_number("recurrent_size", self.recurrent_size, 1, whole=True)
        require_flag("share_parameters", self.share_parameters)
        self.check_shaping()
        require_choice("network", self.network, self.networks)


class AgentsCarried(NamedTuple):
    """What goes on from one rollout into the next, by kind."""

    return_so_far: dict[str, Float[Array, "..."]]
    critic_memory: dict[str, Float[Array, "..."] | None]


class Drawn(NamedTuple):
    """What a policy kept of its acting: raw actions, and their log-probabilities."""

    raw: PyTree
    log_prob: PyTree


class AgentsPPO:
    """The pure functions of PPO for several agents.

    Args:
        config: the settings.
        team: the agents.
        environment_axis, network_axis: see `PPO`.
    """

    replays: ClassVar[bool] = False

    def __init__(
        self,
        config: AgentsPPOConfig,
        team: Team,
        environment_axis: str | None = None,
        network_axis: str | None = None,
    ):
        self.config = config
        self.layout = KindLayout(team.kinds)
        critic_space = _joint_view(team) if config.is_centralised else None
        # A team's return goes on after the death of one.
        self._outlives_death = team.reward_is_shared
        self._views_per_agent = isinstance(critic_space, Box) and len(critic_space.shape) > 1
        self._learners = {
            kind.name: PPO(
                config,
                kind.observation_space,
                kind.action_space,
                environment_axis,
                network_axis,
                critic_space=self._critic_space(critic_space, len(kind.agents)),
                recurrent_size=config.recurrent_size if config.network == "gru" else 0,
            )
            for kind in team.kinds
        }

    def _critic_space(self, space: Space | None, count: int) -> Box | None:
        """What the value function of one agent sees: the view, and which of `count` agents it is."""
        if space is None:
            return None
        assert isinstance(space, Box)
        width = space.shape[-1] + (count if self._tells_agents_apart(count) else 0)
        return Box(-jnp.inf, jnp.inf, (width,))

    def _tells_agents_apart(self, count: int) -> bool:
        return self.config.share_parameters and count > 1

    def init(self, key: Key[Array, ""]) -> dict[str, PPOState]:
        """Fresh learners, by kind; where agents share nothing with a leading axis of agents."""
        keys = jax.random.split(key, len(self._learners))
        states = {}
        for index, (name, learner) in enumerate(self._learners.items()):
            if self.config.share_parameters:
                states[name] = learner.init(keys[index])
            else:
                count = self.layout.sizes[index]
                states[name] = jax.vmap(learner.init)(jax.random.split(keys[index], count))
        return states

    def begin(self, num_envs: int) -> dict[str, Any]:
        """The memory policies act with before the first step, `[N, K, H]`; None of networks without."""
        memory = {}
        for name, size in zip(self.layout.names, self.layout.sizes, strict=True):
            empty = self._learners[name].empty_memory(num_envs * size)
            memory[name] = None if empty is None else unfold_agents(empty, 0, size)
        return memory

    def carry(self, num_envs: int, experience: AgentsExperience) -> AgentsCarried:
        """What learning carries on, before the first rollout."""
        empty = self.begin(num_envs)
        critics = {
            name: None if learner.shares_network else empty[name]
            for name, learner in self._learners.items()
        }
        returns = {
            name: jnp.zeros((num_envs, size))
            for name, size in zip(self.layout.names, self.layout.sizes, strict=True)
        }
        return AgentsCarried(returns, critics)

    def policy(self, state: dict[str, PPOState], progress: Any = None) -> dict[str, Any]:
        """What acting needs."""
        policies = {}
        for name, learner in self._learners.items():
            of = learner.policy if self.config.share_parameters else jax.vmap(learner.policy)
            policies[name] = of(state[name])
        return policies

    def act(
        self,
        policy: dict[str, Any],
        key: Key[Array, ""],
        seen: AgentsSeen,
        memory: dict[str, Any],
        greedy: bool = False,
    ) -> tuple[PyTree, Drawn, dict[str, Any]]:
        """Chooses actions for all agents.

        Returns:
            The actions for the environments, what is to be kept of them, and the new memory.
        """
        observations = self.layout.blocks(seen.observation)
        masks = self.layout.blocks(seen.legal) if seen.legal is not None else {}
        keys = jax.random.split(key, len(self._learners))
        actions, raws, kept, memories = {}, {}, {}, {}
        for index, (name, learner) in enumerate(self._learners.items()):

            def choose(policy, key, observation, legal, memory, learner=learner):
                outputs, memory = learner.outputs(policy, observation, legal, memory)
                raw = learner.head.mode(outputs) if greedy else learner.draw(policy, key, outputs)
                return raw, outputs, memory

            given = (observations[name], masks.get(name), memory[name])
            count = self.layout.sizes[index]
            if self.config.share_parameters:
                chosen = choose(policy[name], keys[index], *fold_agents(given, 0))
                chosen = unfold_agents(chosen, 0, count)
            else:
                agent_keys = jax.random.split(keys[index], count)
                chosen = jax.vmap(choose, (0, 0, 1, 1, 1), 1)(policy[name], agent_keys, *given)
            raws[name], kept[name], memories[name] = chosen
            actions[name] = learner.head.to_environment(raws[name])
        return self.layout.joined(actions), Drawn(raws, kept), memories

    def settle(self, policy: dict[str, Any], drawn: Drawn) -> Drawn:
        """Turns the networks' outputs, kept by `act`, into log-probabilities: once for a whole rollout
        `[T, N, K, ...]` is faster than in every step of it."""
        log_probs = {}
        for name, learner in self._learners.items():
            arguments = (drawn.log_prob[name], drawn.raw[name])
            if self.config.share_parameters:
                log_probs[name] = learner.log_prob(policy[name], *arguments)
            else:
                of_agent = jax.vmap(learner.log_prob, (0, 2, 2), 2)
                log_probs[name] = of_agent(policy[name], *arguments)
        return Drawn(drawn.raw, log_probs)

    def forget(
        self,
        memory: dict[str, Any],
        finished: Bool[Array, "N A"],
        episode_finished: Bool[Array, " N"],
    ) -> dict[str, Any]:
        """Clears the memory of agents whose episode is over."""
        over = episode_finished[:, None]
        if not self._outlives_death:
            over = over | finished
        over = self.layout.split(jnp.broadcast_to(over, finished.shape), 1)
        return {
            name: None if kept is None else jnp.where(over[name][..., None], 0.0, kept)
            for name, kept in memory.items()
        }

    def update(
        self,
        state: dict[str, PPOState],
        experience: AgentsExperience,
        carried: AgentsCarried,
        key: Key[Array, ""],
        progress: Float[Array, ""],
    ) -> tuple[dict[str, PPOState], AgentsCarried, dict[str, Array]]:
        """Learns from one rollout.

        Args:
            progress: the share of the training that is done.

        Returns:
            The new state, what is carried on, and metrics (scalars).
        """
        learning_rate = jnp.float32(self.config.learning_rate)
        if self.config.anneal_learning_rate:
            learning_rate = learning_rate * (1.0 - progress)
        rollouts = self._rollouts(experience, carried)
        keys = jax.random.split(key, len(rollouts))
        states, returns, critics = {}, {}, {}
        metrics = {"learning_rate": learning_rate}
        for index, (name, rollout) in enumerate(rollouts.items()):
            learner, count = self._learners[name], self.layout.sizes[index]

            def learn(state, rollout, so_far, key, learner=learner):
                return learner.learn(state, rollout, so_far, key, learning_rate)

            so_far = carried.return_so_far[name]
            if self.config.share_parameters:
                result = learn(state[name], rollout, fold_agents(so_far, 0), keys[index])
                states[name], after, losses = result
                after = unfold_agents(after, 0, count)
            else:
                agent_keys = jax.random.split(keys[index], count)
                result = jax.vmap(learn, (0, 0, 1, 0), (0, 1, 0))(
                    state[name], rollout, so_far, agent_keys
                )
                states[name], after, losses = result
                losses = jax.tree.map(jnp.mean, losses)
            returns[name], critics[name] = after
            one_kind = len(self._learners) == 1
            metrics |= {f"{what}{'' if one_kind else '/' + name}": x for what, x in losses.items()}
        return states, AgentsCarried(returns, critics), metrics

    def _rollouts(self, experience: AgentsExperience, carried: AgentsCarried) -> dict[str, Rollout]:
        """Each kind's share of the experience, agents folded into environments or on a leading axis."""
        layout = self.layout
        seen = experience.seen
        if self._outlives_death:
            ends = experience.episode_terminated, experience.episode_finished
            terminated, finished = (
                jnp.broadcast_to(end[..., None], seen.alive.shape) for end in ends
            )
            valid = jnp.ones_like(finished)
        else:
            terminated, finished, valid = experience.terminated, experience.finished, seen.alive
        if experience.lost is not None:
            valid = valid & ~experience.lost[..., None]
        flags = {
            "terminated": layout.split(terminated, 2),
            "finished": layout.split(finished, 2),
            "valid": layout.split(valid, 2),
            "chose": layout.split(seen.alive & seen.acting, 2),
            "reward": layout.split(experience.reward, 2),
        }
        observations = layout.blocks(seen.observation)
        following = layout.blocks(experience.next_observation)
        masks = layout.blocks(seen.legal) if seen.legal is not None else {}
        rollouts, first = {}, 0
        for name, count in zip(layout.names, layout.sizes, strict=True):
            views = (None, None)
            if self.config.is_centralised:
                views = tuple(
                    self._views(view, observation, first, count)
                    for view, observation in (
                        (seen.global_state, seen.observation),
                        (experience.next_global_state, experience.next_observation),
                    )
                )
            first += count
            rollout = Rollout(
                observation=observations[name],
                raw_action=experience.drawn.raw[name],
                log_prob=experience.drawn.log_prob[name],
                next_observation=following[name],
                legal=masks.get(name),
                critic_observation=views[0],
                next_critic_observation=views[1],
                **{flag: values[name] for flag, values in flags.items()},
            )
            memories = experience.memory[name], carried.critic_memory[name]
            if self.config.share_parameters:
                rollout, memories = fold_agents(rollout, 1), fold_agents(memories, 0)
            else:
                rollout = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 2, 0), rollout)
                memories = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), memories)
            rollouts[name] = rollout._replace(memory=memories[0], critic_memory=memories[1])
        return rollouts

    def _views(
        self, view: Array | None, observation: PyTree, first: int, count: int
    ) -> Float[Array, "T N K width"]:
        """What the value functions of `count` agents see."""
        if view is None:
            view = side_by_side(self.layout, observation, 2)
        if self._views_per_agent:
            views = view[:, :, first : first + count]
        else:
            views = jnp.repeat(view[:, :, None], count, 2)
        if self._tells_agents_apart(count):
            which = jnp.broadcast_to(jnp.eye(count), (*views.shape[:3], count))
            views = jnp.concatenate((views, which), -1)
        return views


def _joint_view(team: Team) -> Box:
    """The space of the global state; of all agents' observations side by side where there is none."""
    if team.global_state_space is not None:
        return team.global_state_space
    return Box(-jnp.inf, jnp.inf, (width_side_by_side(team.kinds),))
