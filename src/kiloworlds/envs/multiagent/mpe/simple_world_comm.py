"""World with communication: adversaries, led by one who speaks, hunt agents who hide in forests."""

import operator
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key, PyTree, UInt32

from kiloworlds.core.checks import require_flag, require_number, require_numbers
from kiloworlds.core.environment import AgentKind
from kiloworlds.envs.multiagent.mpe.checks import require_crowd
from kiloworlds.envs.multiagent.mpe.controls import Controls
from kiloworlds.envs.multiagent.mpe.environment import ParticleEnvironment
from kiloworlds.envs.multiagent.mpe.groups import Group, each, fill, join, total
from kiloworlds.envs.multiagent.mpe.observing import (
    alike,
    observation_box,
    observations,
    own,
    relative,
    table,
)
from kiloworlds.envs.multiagent.mpe.picture import (
    BLUE,
    BROWN,
    FOREST,
    ORANGE,
    SLATE,
    TEAL,
    Disc,
    Speech,
    draw,
)
from kiloworlds.envs.multiagent.mpe.world import (
    Body,
    ParticleState,
    Vector,
    beyond_border,
    contact_forces,
    count_touching,
    least_distances,
    move,
    scatter,
    silence,
    touch,
)

_SYMBOLS = 4
_MOST_FORESTS = 32  # the bits of a word say in which of them an agent is


class _Seen(NamedTuple):
    """An agent as others see it; bit i of `forests` says whether it is in forest i."""

    position: Vector
    velocity: Vector
    forests: UInt32[Array, "..."]


class SimpleWorldComm(ParticleEnvironment):
    """mpe2's simple_world_comm_v3, state for state.

    The first of the adversaries leads the others: it sees everyone and speaks to them. Obstacles stop
    everybody, food is for the agents, and who is in a forest is hidden from those who are not in the
    same one; who is in none is hidden from those who are in one.

    Observation, float32: velocity (2), position (2), the positions relative to oneself of obstacles,
    food and forests (2 each) and of all others, adversaries first (2 each). Then for adversaries the
    velocities of the agents (2 each), 1 or -1 for being in each forest or not, and what the leader said
    (4); for agents the same of being in forests and then the velocities of the other agents (2 each).
    Position and velocity of who is hidden are zeros.
    Action: 0 nothing, 1 left, 2 right, 3 down, 4 up; the leader's plus 5 times the symbol said, 0 to 3;
    continuous `[nothing, left, right, down, up]` and, for the leader, a number for each symbol, all
    between 0 and 1.
    Reward: an adversary gets 5 for each pair of an adversary and an agent that overlap, and loses 0.1
    times its distance to the nearest agent. An agent gets 2 for each food it overlaps and -5 for each
    adversary, and loses 0.05 times its distance to the nearest food and twice what it is outside: along
    each axis nothing up to 0.9 from the middle, then 10 times what it is beyond that, and from 1 on
    `exp(2 x - 2)`, at most 10.
    Episode end: never terminates.

    Reference: R. Lowe et al., "Multi-Agent Actor-Critic for Mixed Cooperative-Competitive
    Environments" (2017).
    """

    num_good: int = eqx.field(static=True, default=2)
    num_adversaries: int = eqx.field(static=True, default=4)
    num_obstacles: int = eqx.field(static=True, default=1)
    num_food: int = eqx.field(static=True, default=2)
    num_forests: int = eqx.field(static=True, default=2)
    continuous_actions: bool = eqx.field(static=True, default=False)
    agent_size: Float[ArrayLike, ""] = 0.045
    adversary_size: Float[ArrayLike, ""] = 0.075
    obstacle_size: Float[ArrayLike, ""] = 0.2
    food_size: Float[ArrayLike, ""] = 0.03
    forest_size: Float[ArrayLike, ""] = 0.3
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
        require_crowd("num_food", self.num_food)
        require_number("num_forests", self.num_forests, 0, _MOST_FORESTS, whole=True)
        require_flag("continuous_actions", self.continuous_actions)
        require_numbers("contact_margin", self.contact_margin, 1e-6)

    @property
    def kinds(self) -> tuple[AgentKind, ...]:
        landmarks = self.num_obstacles + self.num_food + self.num_forests
        others = self.num_adversaries + self.num_good - 1
        size = 4 + 2 * landmarks + 2 * others + 2 * self.num_good + self.num_forests
        adversary, agent = observation_box(size + _SYMBOLS), observation_box(size - 2)
        kinds = [
            AgentKind.numbered("leadadversary", 1, adversary, self._controls(leads=True).space),
            AgentKind.numbered("agent", self.num_good, agent, self._controls().space),
        ]
        followers = self.num_adversaries - 1
        if followers:
            space = self._controls().space
            kinds.insert(1, AgentKind.numbered("adversary", followers, adversary, space))
        return tuple(kinds)

    def _controls(self, leads: bool = False) -> Controls:
        return Controls(self.continuous_actions, symbols=_SYMBOLS if leads else 0)

    def _each_has(self, state: ParticleState, adversary: Any, agent: Any) -> Group:
        """A number of each adversary, then one of each agent."""
        return fill(state.positions, (adversary, self.num_adversaries), (agent, self.num_good))

    def _start(self, key: Key[Array, ""]) -> ParticleState:
        landmarks = self.num_obstacles + self.num_food + self.num_forests
        state = scatter(key, self.num_adversaries + self.num_good, landmarks, reach=0.9)
        return state._replace(messages=(silence(_SYMBOLS),))

    def _act(self, state: ParticleState, action: PyTree) -> ParticleState:
        forces = each(operator.add, self._pushes(state, action), self._contacts(state))
        max_speeds = self._each_has(state, self.adversary_max_speed, self.agent_max_speed)
        message = self._controls(leads=True).message(action["leadadversary"][0])
        state = move(state, forces, self.dt, self.damping, max_speeds)
        return state._replace(messages=(message,))

    def _pushes(self, state: ParticleState, action: PyTree) -> Group:
        accelerations = self._each_has(state, self.adversary_accel, self.agent_accel)
        leader = self._controls(leads=True).pushes(action["leadadversary"], accelerations[:1])
        followers = [action[kind.name] for kind in self.kinds[1:]]
        others = self._controls().pushes(jnp.concatenate(followers), accelerations[1:])
        return join(leader, others)

    def _contacts(self, state: ParticleState) -> Group:
        obstacles = self._landmarks(state)[0]
        return contact_forces(
            self._agents(state), obstacles, self.contact_force, self.contact_margin
        )

    def _agents(self, state: ParticleState) -> Group:
        sizes = self._each_has(state, self.adversary_size, self.agent_size)
        return each(Body, state.positions, sizes)

    def _landmarks(self, state: ParticleState) -> tuple[Group, Group, Group]:
        """Obstacles, food and forests."""
        sizes = fill(
            state.landmarks,
            (self.obstacle_size, self.num_obstacles),
            (self.food_size, self.num_food),
            (self.forest_size, self.num_forests),
        )
        bodies = each(Body, state.landmarks, sizes)
        food = self.num_obstacles + self.num_food
        return bodies[: self.num_obstacles], bodies[self.num_obstacles : food], bodies[food:]

    def _rewards(self, state: ParticleState) -> Group:
        bodies, (_, food, _) = self._agents(state), self._landmarks(state)
        adversaries, agents = bodies[: self.num_adversaries], bodies[self.num_adversaries :]
        hits, meals = count_touching(agents, adversaries), count_touching(agents, food)
        hunters, hunted = (each(lambda body: body.position, it) for it in (adversaries, agents))
        to_prey = least_distances(hunters, hunted)
        to_food = least_distances(hunted, each(lambda body: body.position, food))
        all_hits = total(hits)
        return join(
            each(lambda gap: 5.0 * all_hits - 0.1 * gap, to_prey),
            each(
                lambda hit, meal, gap, position: (
                    2.0 * meal - 5.0 * hit - 2.0 * beyond_border(position) - 0.05 * gap
                ),
                hits,
                meals,
                to_food,
                hunted,
            ),
        )

    def observe(self, state: ParticleState) -> dict[str, Any]:
        """The observation of a state."""
        forests = self._landmarks(state)[2]

        def look(body: Body, velocity: Vector) -> _Seen:
            inside = jnp.zeros_like(body.position.x, jnp.uint32)
            for index, forest in enumerate(forests):
                inside |= touch(body, forest).astype(jnp.uint32) << index
            return _Seen(body.position, velocity, inside)

        seen = each(look, self._agents(state), state.velocities)
        blocks, first = {}, 0
        for kind in self.kinds:
            end = first + len(kind.agents)
            blocks[kind.name] = self._observe_from(state, seen, first, end)
            first = end
        return blocks

    def _observe_from(
        self, state: ParticleState, seen: Group, first: int, end: int
    ) -> Float[Array, "K W"]:
        observers, agents = seen[first:end], seen[self.num_adversaries :]
        leads, hunts = first == 0, first < self.num_adversaries

        def position(me: _Seen, it: _Seen) -> Vector:
            apart = it.position - me.position
            return apart if leads else _where_visible(me, it, apart)

        def velocity(me: _Seen, it: _Seen) -> Vector:
            return it.velocity if leads else _where_visible(me, it, it.velocity)

        velocities = table(velocity, observers, agents, own_place=None if hunts else 0)
        inside = alike([], len(observers))
        if self.num_forests:
            inside = own(each(self._inside, observers))
        if hunts:
            last = (velocities, inside, alike(state.messages[0], len(observers)))
        else:
            last = (inside, velocities)
        return observations(
            own(each(lambda me: (me.velocity, me.position), observers)),
            relative(each(lambda me: me.position, observers), state.landmarks),
            table(position, observers, seen, own_place=first),
            *last,
        )

    def _inside(self, seen: _Seen) -> tuple[Float[Array, "..."], ...]:
        """For each forest 1 if an agent is in it, else -1."""
        return tuple(
            jnp.where((seen.forests >> index) & 1 == 1, 1.0, -1.0)
            for index in range(self.num_forests)
        )

    def render(self, state: ParticleState) -> np.ndarray:
        """Adversaries orange, their leader brown, agents blue, the landmarks; what the leader says."""
        obstacles, food, forests = self._landmarks(state)
        discs = []
        for bodies, color in ((forests, FOREST), (obstacles, SLATE), (food, TEAL)):
            discs += [Disc(body.position, body.size, color) for body in bodies]
        colors = {"leadadversary": BROWN, "adversary": ORANGE, "agent": BLUE}
        agents = zip(self.possible_agents, self._agents(state), state.velocities, strict=True)
        for name, body, velocity in agents:
            kind, number = name.split("_")
            label = "" if kind == "leadadversary" else number
            discs.append(Disc(body.position, body.size, colors[kind], label, velocity=velocity))
        return draw(discs, [Speech("leadadversary_0", state.messages[0], BROWN)])


def _where_visible(me: _Seen, it: _Seen, vector: Vector) -> Vector:
    both, either = me.forests & it.forests, me.forests | it.forests
    is_visible = (both != 0) | (either == 0)
    return Vector(jnp.where(is_visible, vector.x, 0.0), jnp.where(is_visible, vector.y, 0.0))
