"""Tag: slow adversaries hunt fast agents among obstacles."""

import operator
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Key, PyTree

from kiloworlds.core.checks import require_flag, require_numbers
from kiloworlds.core.environment import AgentKind
from kiloworlds.envs.multiagent.mpe.checks import require_crowd, require_neighbors
from kiloworlds.envs.multiagent.mpe.controls import Controls
from kiloworlds.envs.multiagent.mpe.environment import ParticleEnvironment
from kiloworlds.envs.multiagent.mpe.groups import Group, each, fill, join, least, total
from kiloworlds.envs.multiagent.mpe.observing import (
    Block,
    nearest,
    observation_box,
    observations,
    own,
    relative,
    table,
)
from kiloworlds.envs.multiagent.mpe.picture import BLUE, ORANGE, SLATE, Disc, draw
from kiloworlds.envs.multiagent.mpe.world import (
    Body,
    ParticleState,
    beyond_border,
    contact_forces,
    count_touching,
    move,
    scatter,
)


class SimpleTag(ParticleEnvironment):
    """mpe2's simple_tag_v3, state for state: adversaries, agents and obstacles, all of which collide.

    Observation, float32: velocity (2), position (2), the positions relative to oneself of the obstacles
    (2 each) and of all others, adversaries first (2 each), and the velocities of the other agents, not
    of adversaries (2 each). With `num_landmark_neighbors` or `num_agent_neighbors` only so many of the
    nearest, the nearest first, and zeros where there are fewer; their velocities are then in the same
    order, zeros for adversaries, and all observations are of one size, so that all are of one kind.
    Action: 0 nothing, 1 left, 2 right, 3 down, 4 up; continuous `[nothing, left, right, down, up]`,
    each between 0 and 1.
    Reward: each adversary gets 10 for each pair of an adversary and an agent that overlap. An agent
    gets -10 for each adversary that it overlaps and loses what it is outside: along each axis nothing
    up to 0.9 from the middle, then 10 times what it is beyond that, and from 1 on `exp(2 x - 2)`, at
    most 10.
    Episode end: never terminates; with `terminate_on_success` when every agent overlaps an adversary.

    mpe2's `curriculum` is the parameters `agent_max_speed` and `agent_accel`: half of them in its
    first stage, three quarters in its second. An episode that succeeds in its very last step is both
    terminated and truncated here, in mpe2 only truncated.

    Reference: R. Lowe et al., "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive
    Environments" (2017).
    """

    num_good: int = eqx.field(static=True, default=1)
    num_adversaries: int = eqx.field(static=True, default=3)
    num_obstacles: int = eqx.field(static=True, default=2)
    continuous_actions: bool = eqx.field(static=True, default=False)
    terminate_on_success: bool = eqx.field(static=True, default=False)
    num_agent_neighbors: int | None = eqx.field(static=True, default=None)
    num_landmark_neighbors: int | None = eqx.field(static=True, default=None)
    agent_size: Float[ArrayLike, ""] = 0.05
    adversary_size: Float[ArrayLike, ""] = 0.075
    obstacle_size: Float[ArrayLike, ""] = 0.2
    agent_accel: Float[ArrayLike, ""] = 4.0
    adversary_accel: Float[ArrayLike, ""] = 3.0
    agent_max_speed: Float[ArrayLike, ""] = 1.3
    adversary_max_speed: Float[ArrayLike, ""] = 1.0
    dt: Float[ArrayLike, ""] = 0.1
    damping: Float[ArrayLike, ""] = 0.25
    contact_force: Float[ArrayLike, ""] = 100.0
    contact_margin: Float[ArrayLike, ""] = 1e-3

    def __check_init__(self):
        require_crowd("num_good", self.num_good)
        require_crowd("num_adversaries", self.num_adversaries)
        require_crowd("num_obstacles", self.num_obstacles, fewest=0)
        require_flag("continuous_actions", self.continuous_actions)
        require_numbers("contact_margin", self.contact_margin, 1e-6)
        require_flag("terminate_on_success", self.terminate_on_success)
        require_neighbors("num_agent_neighbors", self.num_agent_neighbors)
        require_neighbors("num_landmark_neighbors", self.num_landmark_neighbors)

    @property
    def kinds(self) -> tuple[AgentKind, ...]:
        space, near = self._controls.space, self.num_agent_neighbors
        size = 4 + 2 * (
            self.num_obstacles
            if self.num_landmark_neighbors is None
            else self.num_landmark_neighbors
        )
        if near is not None:
            size += 4 * near
        else:
            size += 2 * (self.num_adversaries + 2 * self.num_good - 1)
        smaller = size if near is not None else size - 2
        kinds = (
            AgentKind.numbered("adversary", self.num_adversaries, observation_box(size), space),
            AgentKind.numbered("agent", self.num_good, observation_box(smaller), space),
        )
        if size != smaller:
            return kinds
        everyone = kinds[0].agents + kinds[1].agents
        return (AgentKind("agent", everyone, observation_box(size), space),)

    @property
    def _controls(self) -> Controls:
        return Controls(self.continuous_actions)

    def _each_has(self, state: ParticleState, adversary: Any, agent: Any) -> Group:
        """A number of each adversary, then one of each agent."""
        return fill(state.positions, (adversary, self.num_adversaries), (agent, self.num_good))

    def _start(self, key: Key[Array, ""]) -> ParticleState:
        return scatter(key, self.num_adversaries + self.num_good, self.num_obstacles, reach=0.9)

    def _act(self, state: ParticleState, action: PyTree) -> ParticleState:
        if isinstance(action, dict):
            action = jnp.concatenate([action["adversary"], action["agent"]])
        accelerations = self._each_has(state, self.adversary_accel, self.agent_accel)
        pushes = self._controls.pushes(action, accelerations)
        sizes = fill(state.landmarks, (self.obstacle_size, self.num_obstacles))
        obstacles = each(Body, state.landmarks, sizes)
        contacts = contact_forces(
            self._bodies(state), obstacles, self.contact_force, self.contact_margin
        )
        max_speeds = self._each_has(state, self.adversary_max_speed, self.agent_max_speed)
        forces = each(operator.add, pushes, contacts)
        return move(state, forces, self.dt, self.damping, max_speeds)

    def _bodies(self, state: ParticleState) -> Group:
        sizes = self._each_has(state, self.adversary_size, self.agent_size)
        return each(Body, state.positions, sizes)

    def _hits(self, state: ParticleState) -> Group:
        """How many adversaries each agent overlaps."""
        bodies = self._bodies(state)
        return count_touching(bodies[self.num_adversaries :], bodies[: self.num_adversaries])

    def _rewards(self, state: ParticleState) -> Group:
        hits = self._hits(state)
        agents = each(
            lambda hit, position: -10.0 * hit - beyond_border(position),
            hits,
            state.positions[self.num_adversaries :],
        )
        return join(fill(hits, (10.0 * total(hits), self.num_adversaries)), agents)

    def _is_over(self, state: ParticleState) -> Bool[Array, ""]:
        if not self.terminate_on_success:
            return super()._is_over(state)
        return least(self._hits(state)) > 0

    def observe(self, state: ParticleState) -> Any:
        """The observation of a state."""
        adversaries = self._observe_from(state, 0, self.num_adversaries)
        agents = self._observe_from(state, self.num_adversaries, len(state.positions))
        if self.num_agent_neighbors is not None:
            return jnp.concatenate([adversaries, agents])
        return {"adversary": adversaries, "agent": agents}

    def _observe_from(self, state: ParticleState, first: int, end: int) -> Float[Array, "K W"]:
        observers, obstacles = state.positions[first:end], state.landmarks
        if self.num_landmark_neighbors is None:
            obstacles_seen = relative(observers, obstacles)
        else:
            obstacles_seen = nearest(self.num_landmark_neighbors, observers, obstacles)
        return observations(
            own(state.velocities[first:end]),
            own(observers),
            obstacles_seen,
            *self._others_from(state, first, end),
        )

    def _others_from(self, state: ParticleState, first: int, end: int) -> tuple[Block, Block]:
        """Positions of all others and velocities of the other agents."""
        observers, everyone = state.positions[first:end], state.positions
        velocities = state.velocities[self.num_adversaries :]
        if self.num_agent_neighbors is None:
            agents_place = None if first == 0 else 0  # of the observers among the agents
            return (
                relative(observers, everyone, own_place=first),
                table(lambda _, velocity: velocity, observers, velocities, agents_place),
            )
        still = each(lambda velocity: velocity * 0.0, state.velocities[: self.num_adversaries])
        shown = join(still, velocities)
        count = self.num_agent_neighbors
        return (
            nearest(count, observers, everyone, first),
            nearest(count, observers, everyone, first, values=shown),
        )

    def render(self, state: ParticleState) -> np.ndarray:
        """The adversaries, orange, the agents, blue, and the obstacles, dark."""
        discs = [Disc(landmark, self.obstacle_size, SLATE) for landmark in state.landmarks]
        looks = [(self.adversary_size, ORANGE)] * self.num_adversaries
        looks += [(self.agent_size, BLUE)] * self.num_good
        bodies = zip(self.possible_agents, state.positions, looks, state.velocities, strict=True)
        for name, position, look, velocity in bodies:
            discs.append(Disc(position, *look, name.split("_")[-1], velocity=velocity))
        return draw(discs)
