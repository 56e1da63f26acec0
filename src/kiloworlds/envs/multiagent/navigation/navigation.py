"""Navigation: robots with lidar find their goals in maps of walls without crashing."""

from typing import Any, ClassVar, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Key, Num

from kiloworlds.core.checks import (
    require_choice,
    require_count,
    require_flag,
    require_number,
    require_numbers,
)
from kiloworlds.core.environment import AgentKind, MultiAgentEnvironment, Step
from kiloworlds.core.errors import InvalidValueError
from kiloworlds.core.numerics import wrap_angle
from kiloworlds.core.spaces import Box, Discrete
from kiloworlds.envs.multiagent.navigation.lidar import Lidar
from kiloworlds.envs.multiagent.navigation.maps import NavigationMap, as_map
from kiloworlds.envs.multiagent.navigation.named_maps import MAPS
from kiloworlds.envs.multiagent.navigation.picture import draw, draw_text
from kiloworlds.envs.multiagent.navigation.placement import (
    PATIENCE,
    Clearances,
    Places,
    place_anywhere,
    place_in_cells,
    random_map,
    regions,
)
from kiloworlds.envs.multiagent.navigation.robots import (
    Body,
    Limits,
    Motion,
    drive,
    hit_robots,
    hit_walls,
)
from kiloworlds.envs.multiagent.navigation.walls import MOST_CELLS, Walls

# The discrete actions: 3 speeds from 0 m/s up, each with 5 turn rates from 0.5 rad/s down.
_SPEEDS, _SPEED_STEP = 3, 0.5
_TURN_RATES, _TURN_RATE_STEP = 5, 0.25
_MOST_TURN_RATE = 0.5
_MOST_BEAMS = 10_000
_POSITIVE = (
    "dt",
    "max_speed",
    "max_acceleration",
    "max_turn_rate",
    "max_turn_acceleration",
    "goal_radius",
)
_SMALLEST = 1e-3
_MOST_CONTINUOUS_TURN_RATE = np.pi / 6  # rad/s, of continuous actions
_OTHER_ENTRIES = 5  # of an observation, beside the lidar's


class NavigationState(NamedTuple):
    """The map, the robots and their goals (m), and who has arrived or crashed.

    `walls` is the map as bits, `reward_lambda` each robot's own part in its reward.
    """

    walls: Walls
    motion: Motion
    goal_x: Float[Array, " A"]
    goal_y: Float[Array, " A"]
    arrived: Bool[Array, " A"]
    crashed: Bool[Array, " A"]
    reward_lambda: Float[Array, ""]


class Navigation(MultiAgentEnvironment):
    """JaxNav, step for step: robots that see by lidar drive to their goals among walls and each other.

    Robots are rectangles with two driven wheels on a map of cells of 1 m. They are told a speed and a
    turn rate, which they approach as fast as their limits allow.

    Observation (each robot), float32: the distance to the first wall or other robot along each lidar
    beam, from straight behind counter-clockwise around to straight behind again, as a part of the
    lidar's range minus 0.5 (`num_beams`); its speed as a part of the largest minus 0.5; its turn rate
    as a part of the largest; the distance to its goal as a part of the lidar's range, at most 1,
    minus 0.5; the direction of the goal (0 ahead, counter-clockwise) divided by pi; lambda minus 0.5.
    Action: 5 i + j asks for a speed of 0, 0.5 or 1 m/s (i) and a turn rate of 0.5, 0.25, 0, -0.25 or
    -0.5 rad/s (j); with `continuous_actions`, both as numbers `[speed, turn rate]`.
    Reward: `reward_lambda` times the robot's own and 1 - `reward_lambda` times the mean of all. A
    robot's own reward is the sum of `goal_reward` on arriving, before that `progress_weight` times the
    metres it came closer; `collision_reward` on crashing; `time_reward`; `proximity_reward` where
    anything is within `proximity_distance` of the lidar; and `turn_weight` times the turn rate asked
    for where that is above `turn_threshold`.
    Episode end: terminates when every robot has arrived within `goal_radius` of its goal or crashed
    into a wall or another robot; info "won" says that all arrived.

    A robot that has arrived or crashed takes no more part: with `finished="stay"` it stands where it
    is, in the way of others, with "vanish" (JaxNav's `evaporating`) it is gone after that step. Both
    are then dead: they observe zeros and get no reward unless it is the team's (`reward_lambda` 0).
    With "continue", JaxNav's default, no robot is dead before the episode ends: those that arrived may
    drive on, and crash, and the reward goes on as far as it still applies. All three are one for a
    single robot.

    Global state (one view for each robot): its number as a one-hot; the inner cells, 1 for walls;
    positions of all robots as parts of the map minus 0.5, headings divided by pi minus 0.5, goals like
    positions, speeds and turn rates as parts of the largest minus 0.5, whether they have arrived or
    crashed (JaxNav has the time there); and its observation.

    Differences from JaxNav: a lambda that is drawn counts in the reward too (JaxNav only observes it);
    maps have cells of 1 m; headings never leave [-pi, pi], where JaxNav's may at the start.

    Args:
        layout: the name of a map in `MAPS`, a map as text (`NavigationMap.from_text`) or a
            `NavigationMap`; None for another random map in each episode.
        robots: how many; None for as many as the layout has starts for, or one.
        map_size: width and height of random maps in cells, border included.
        fill: random maps have fewer walls inside than this part of its cells, any number of them.
        placement: where robots start and are to go if the layout does not say: "anywhere" with
            `start_clearance` around and twice that between starts (and goals), goals
            `min_goal_distance` (None: 1 + `goal_clearance`) to `max_goal_distance` (None: the map's
            height less that) away in any direction, moved back into the map if outside; or in the
            middle of "cells".
        solvable: whether there is always a way from each start to its goal.
        finished: what becomes of robots that arrived or crashed: see above.
        share_only_sparse: whether robots share only what they get for arriving, crashing and time.
        max_reward_lambda: if given, lambda is drawn between `reward_lambda` and this for each episode.

    Raises:
        UnknownNameError: there is no map of that name.
        InvalidValueError: a setting out of range; a malformed map (see `NavigationMap`); more robots
            than the map has room or starts for.

    Reference: A. Rutherford et al., "No Regrets: Investigating and Improving Regret Approximations for
    Curriculum Discovery" (2024); the rules are those of the jaxmarl package 0.2.0.
    """

    layout: NavigationMap | str | None = eqx.field(static=True, default=None)
    robots: int | None = eqx.field(static=True, default=None)
    continuous_actions: bool = eqx.field(static=True, default=False)
    map_size: tuple[int, int] = eqx.field(static=True, default=(11, 11))
    fill: float | Float[Array, ""] = 0.3
    placement: Literal["anywhere", "cells"] = eqx.field(static=True, default="anywhere")
    solvable: bool = eqx.field(static=True, default=False)
    finished: Literal["stay", "vanish", "continue"] = eqx.field(static=True, default="stay")
    start_clearance: float | Float[Array, ""] = 0.45  # m
    goal_clearance: float | Float[Array, ""] = 0.3  # m
    min_goal_distance: float | Float[Array, ""] | None = None  # m
    max_goal_distance: float | Float[Array, ""] | None = None  # m

    num_beams: int = eqx.field(static=True, default=200)
    lidar_range: float = eqx.field(static=True, default=6.0)  # m
    lidar_resolution: float = eqx.field(static=True, default=0.05)  # m
    field_of_view: float = eqx.field(static=True, default=2 * np.pi)  # rad

    length: float | Float[Array, ""] = 0.5  # m
    width: float | Float[Array, ""] = 0.5  # m
    dt: float | Float[Array, ""] = 0.1  # s between states
    min_speed: float | Float[Array, ""] = 0.0  # m/s
    max_speed: float | Float[Array, ""] = 1.0  # m/s
    max_acceleration: float | Float[Array, ""] = 1.0  # m/s^2
    max_turn_rate: float | Float[Array, ""] = 0.6  # rad/s
    max_turn_acceleration: float | Float[Array, ""] = 1.0  # rad/s^2

    goal_radius: float | Float[Array, ""] = 0.5  # m
    goal_reward: float | Float[Array, ""] = 4.0
    progress_weight: float | Float[Array, ""] = 0.25  # per m
    collision_reward: float | Float[Array, ""] = -4.0
    time_reward: float | Float[Array, ""] = -0.01  # for each step
    proximity_distance: float | Float[Array, ""] = 0.4  # m from the robot's middle
    proximity_reward: float | Float[Array, ""] = -0.1
    turn_threshold: float | Float[Array, ""] = 0.7  # rad/s
    turn_weight: float | Float[Array, ""] = 0.0  # per rad/s
    reward_lambda: float | Float[Array, ""] = 0.5
    max_reward_lambda: float | Float[Array, ""] | None = None
    share_only_sparse: bool = eqx.field(static=True, default=False)

    team_reward: ClassVar[Any] = property(
        lambda self: self.max_reward_lambda is None and _is_zero(self.reward_lambda)
    )

    def __post_init__(self):
        self.layout = as_map(self.layout, MAPS)
        if self.robots is None:
            self.robots = (len(self.layout.starts) if self.layout else 0) or 1
        if isinstance(self.map_size, list | np.ndarray):  # as stored runs have it
            self.map_size = tuple(np.asarray(self.map_size).tolist())

    def __check_init__(self):
        for name in ("continuous_actions", "solvable", "share_only_sparse"):
            require_flag(name, getattr(self, name))
        require_choice("placement", self.placement, ("anywhere", "cells"))
        require_choice("finished", self.finished, ("stay", "vanish", "continue"))
        require_count("robots", self.robots)
        require_number("num_beams", self.num_beams, 1, _MOST_BEAMS, whole=True)
        require_number("lidar_range", self.lidar_range, 0.1, float(2 * MOST_CELLS))
        most = self.lidar_range / 2
        require_number("lidar_resolution", self.lidar_resolution, 1e-3, most)
        require_number("field_of_view", self.field_of_view, _SMALLEST, 2 * np.pi)
        if self._map is None:
            if not isinstance(self.map_size, tuple) or len(self.map_size) != 2:
                raise InvalidValueError(
                    f"map_size={self.map_size!r}: it takes a width and a height, such as (11, 11)."
                )
            for size in self.map_size:
                require_number("map_size", size, 3, MOST_CELLS, whole=True)
        for name in ("start_clearance", "goal_clearance"):
            require_numbers(name, getattr(self, name), 0.0, 0.49)
        for name in ("length", "width"):
            require_numbers(name, getattr(self, name), 0.01, 1.4)
        require_numbers("reward_lambda", self.reward_lambda, 0.0, 1.0)
        if self.max_reward_lambda is not None:
            require_numbers("max_reward_lambda", self.max_reward_lambda, 0.0, 1.0)
        for name in _POSITIVE:
            require_numbers(name, getattr(self, name), _SMALLEST)
        for name in ("min_goal_distance", "max_goal_distance"):
            if getattr(self, name) is not None:
                require_numbers(name, getattr(self, name), 0.0)
        require_numbers("fill", self.fill, 0.0, 1.0)
        self._check_room()

    def _check_room(self) -> None:
        """Raises InvalidValueError where the map has no room for all robots."""
        robots = self._robots
        if self._map is not None and self._map.starts:
            starts = len(self._map.starts)
            if robots != starts:
                raise InvalidValueError(
                    f"robots={robots}: the map has starts for {starts}; the nearest valid value is "
                    f"{starts}."
                )
            return
        if self._map is None:
            width, height = self.map_size
            cells = (width - 2) * (height - 2)
            free = cells - max(
                int(np.float32(cells) * np.max(np.float32(_largest(self.fill)))) - 1, 0
            )
        else:
            is_wall = self._map.is_wall
            free = int((~is_wall).sum())
            if self.solvable:
                joined = np.zeros_like(is_wall)
                joined[1:-1, 1:-1] = (
                    ~is_wall[:-2, 1:-1]
                    | ~is_wall[2:, 1:-1]
                    | ~is_wall[1:-1, :-2]
                    | ~is_wall[1:-1, 2:]
                )
                free = int((~is_wall & joined).sum())
        room = free if self.placement == "cells" else free // 2
        if robots > room or free < 2:
            raise InvalidValueError(
                f"robots={robots}: the map has {free} free cells at least, room for {room} (with "
                f"placement={self.placement!r}); the nearest valid value is {room}."
                if room and free > 1
                else f"the map has {free} free cells at least; a robot needs one to start from and "
                "one to go to."
            )

    @property
    def _robots(self) -> int:
        assert self.robots is not None  # since construction
        return self.robots

    @property
    def _map(self) -> NavigationMap | None:
        """The map, where it is always the same."""
        assert not isinstance(self.layout, str)  # since construction
        return self.layout

    @property
    def _shape(self) -> tuple[int, int]:
        """Rows and columns of the map."""
        width, height = self.map_size
        return (height, width) if self._map is None else self._map.shape

    @property
    def _lidar(self) -> Lidar:
        return Lidar(self.num_beams, self.lidar_range, self.lidar_resolution, self.field_of_view)

    @property
    def _body(self) -> Body:
        return Body(self.length / 2, self.width / 2)

    @property
    def _limits(self) -> Limits:
        return Limits(
            self.min_speed,
            self.max_speed,
            self.max_acceleration,
            self.max_turn_rate,
            self.max_turn_acceleration,
        )

    @property
    def kinds(self) -> tuple[AgentKind, ...]:
        low, high = np.full((2, self.num_beams + _OTHER_ENTRIES), [[-0.5], [0.5]], np.float32)
        speed, turn_rate, direction = self.num_beams, self.num_beams + 1, self.num_beams + 3
        low[speed] = np.min(self.min_speed / self.max_speed) - 0.5
        low[[turn_rate, direction]], high[[turn_rate, direction]] = -1.0, 1.0
        low = np.minimum(low, 0.0)  # what the dead observe
        actions = Discrete(_SPEEDS * _TURN_RATES)
        if self.continuous_actions:
            turn = _MOST_CONTINUOUS_TURN_RATE
            actions = Box([np.min(self.min_speed), -turn], [np.max(self.max_speed), turn])
        return (AgentKind.numbered("robot", self._robots, Box(low, high), actions),)

    def reset(self, key: Key[Array, ""]) -> tuple[NavigationState, Float[Array, "A W"]]:
        place_key, heading_key, lambda_key = jax.random.split(key, 3)
        walls, places = self._places(place_key)
        heading = jax.random.uniform(heading_key, places.x.shape, minval=-np.pi, maxval=np.pi)
        if self._map is not None and self._map.starts:
            given = np.array([np.nan if h is None else h for *_, h in self._map.starts])
            given = np.arctan2(np.sin(given), np.cos(given)).astype(np.float32)
            heading = jnp.where(np.isnan(given), heading, given)
        rest = jnp.zeros_like(places.x)
        nobody = jnp.zeros(places.x.shape, bool)
        reward_lambda = jnp.asarray(self.reward_lambda, jnp.float32)
        if self.max_reward_lambda is not None:
            between = jax.random.uniform(lambda_key) * (self.max_reward_lambda - reward_lambda)
            reward_lambda = reward_lambda + between
        motion = Motion(places.x, places.y, heading, rest, rest)
        state = NavigationState(
            walls, motion, places.goal_x, places.goal_y, nobody, nobody, reward_lambda
        )
        return state, self.observe(state)

    def _places(self, key: Key[Array, ""]) -> tuple[Walls, Places]:
        """A map, starts and goals."""
        layout = self._map
        if layout is not None and layout.starts:
            starts, goals = np.array([start[:2] for start in layout.starts]), np.array(layout.goals)
            given = np.concatenate([starts, goals], axis=1, dtype=np.float32)
            return Walls.of_cells(layout.is_wall), Places(*(jnp.asarray(row) for row in given.T))

        def draw_all(carry):
            tries, *_ = carry
            # The same map for several tries: a new one for each would favour maps with few walls.
            map_key = jax.random.fold_in(jax.random.fold_in(key, 0), tries // PATIENCE)
            place_key = jax.random.fold_in(jax.random.fold_in(key, 1), tries)
            cells = (
                random_map(map_key, *self._shape, self.fill)
                if layout is None
                else jnp.asarray(layout.is_wall)
            )
            labels = regions(cells) if self.solvable else None
            if self.placement == "cells":
                places, found = place_in_cells(place_key, cells, self._robots, labels)
            else:
                places, found = place_anywhere(
                    place_key, cells, self._robots, self._clearances, tries >= PATIENCE, labels
                )
            return tries + 1, Walls.of_cells(cells), places, found

        height, width = self._shape
        walls = Walls(jnp.zeros(height, jnp.int32), jnp.zeros(width, jnp.int32))
        places = Places(*(jnp.zeros(self._robots) for _ in Places._fields))
        start = jnp.uint32(0), walls, places, jnp.bool_(False)
        _, walls, places, _ = jax.lax.while_loop(lambda carry: ~carry[3], draw_all, start)
        return walls, places

    @property
    def _clearances(self) -> Clearances:
        edge = 1 + self.goal_clearance
        nearest, farthest = self.min_goal_distance, self.max_goal_distance
        return Clearances(
            self.start_clearance,
            self.goal_clearance,
            edge if nearest is None else nearest,
            self._shape[0] - edge if farthest is None else farthest,
        )

    def step(
        self, key: Key[Array, ""], state: NavigationState, action: Num[Array, "A ..."]
    ) -> tuple[NavigationState, Step]:
        speed, turn_rate = self._wanted(action)
        finished = state.arrived | state.crashed
        takes_part = ~finished if self.finished != "continue" else jnp.ones_like(finished)
        before, rest = state.motion, jnp.zeros_like(state.motion.speed)
        stands = state.crashed if self.finished == "continue" else finished
        motion = drive(before, speed, turn_rate, self._limits, self.dt)
        held = before._replace(speed=rest, turn_rate=rest)
        if self.finished == "vanish":
            held = held._replace(x=rest, y=rest)  # deep in a corner, where no beam comes
        motion = Motion(
            *(jnp.where(stands, old, new) for old, new in zip(held, motion, strict=True))
        )

        poses = motion.poses
        hit_wall = hit_walls(state.walls, poses, self._body) & takes_part
        hit_robot = hit_robots(poses, self._body) & takes_part
        left = _distance(motion, state)
        next_state = state._replace(
            motion=motion,
            arrived=state.arrived | ((left <= self.goal_radius) & takes_part),
            crashed=state.crashed | hit_wall | hit_robot,
        )
        points = self._lidar.scan(state.walls, poses, self._body)
        came_closer = _distance(before, state) - left
        reward = self._reward(state, next_state, came_closer, points, turn_rate, takes_part)
        over = (next_state.arrived | next_state.crashed).all()
        info = {
            "won": next_state.arrived.all() & over,
            "arrived": next_state.arrived & ~state.arrived,
            "hit_wall": hit_wall & ~state.crashed,
            "hit_robot": hit_robot & ~state.crashed,
        }
        observation = self._observation(next_state, points)
        return next_state, Step(observation, reward, over, jnp.zeros_like(over), info)

    def _wanted(self, action: Num[Array, "A ..."]) -> tuple[Float[Array, " A"], Float[Array, " A"]]:
        """The speeds and turn rates asked for."""
        if self.continuous_actions:
            return action[:, 0], action[:, 1]
        speed = jax.lax.div(action, jnp.full_like(action, _TURN_RATES))
        turn = (action - speed * _TURN_RATES).astype(jnp.float32)
        return _SPEED_STEP * speed.astype(jnp.float32), _MOST_TURN_RATE - _TURN_RATE_STEP * turn

    def _reward(
        self,
        state: NavigationState,
        next_state: NavigationState,
        came_closer: Float[Array, " A"],
        points: Float[Array, "A B"],
        turn_rate: Float[Array, " A"],
        takes_part: Bool[Array, " A"],
    ) -> Float[Array, " A"]:
        under_way = ~(state.arrived | state.crashed)
        arrives = next_state.arrived & ~state.arrived
        sparse = jnp.where(arrives, self.goal_reward, 0.0)
        sparse += jnp.where(next_state.crashed & ~state.crashed, self.collision_reward, 0.0)
        sparse += jnp.where(under_way, self.time_reward, 0.0)
        dense = jnp.where(next_state.arrived, 0.0, self.progress_weight * came_closer)
        is_near = (points * self._lidar.spacing <= self.proximity_distance).any(1)
        dense += jnp.where(is_near, self.proximity_reward, 0.0)
        turn = jnp.abs(turn_rate)
        dense += jnp.where(turn > self.turn_threshold, self.turn_weight * turn, 0.0)
        own = jnp.where(takes_part, sparse + dense, 0.0)
        shared = jnp.where(takes_part, sparse, 0.0) if self.share_only_sparse else own
        part = state.reward_lambda
        reward = part * own + (1 - part) * shared.mean()
        return reward if self.team_reward else jnp.where(takes_part, reward, 0.0)

    def observe(self, state: NavigationState) -> Float[Array, "A W"]:
        """The observation of a state."""
        points = self._lidar.scan(state.walls, state.motion.poses, self._body)
        return self._observation(state, points)

    def _observation(
        self, state: NavigationState, points: Float[Array, "A B"]
    ) -> Float[Array, "A W"]:
        motion = state.motion
        direction = jnp.arctan2(state.goal_y - motion.y, state.goal_x - motion.x) - motion.heading
        distance = jnp.minimum(_distance(motion, state) / self.lidar_range, 1.0)
        rest = (
            motion.speed / self.max_speed - 0.5,
            motion.turn_rate / self.max_turn_rate,
            distance - 0.5,
            jnp.clip(wrap_angle(direction) / np.pi, -1.0, 1.0),
            jnp.broadcast_to(state.reward_lambda - 0.5, motion.x.shape),
        )
        lidar = jnp.minimum(points * np.float32(1 / self._lidar.last), 1.0) - 0.5
        observation = jnp.concatenate([lidar, jnp.stack(rest, axis=1)], axis=1)
        return jnp.where(self.alive(state)[:, None], observation, 0.0)

    def alive(self, state: NavigationState) -> Bool[Array, " A"]:
        if self.finished == "continue":
            return jnp.ones_like(state.arrived)
        return ~(state.arrived | state.crashed)

    def reset_info(self, state: NavigationState) -> dict[str, Any]:
        none = jnp.zeros_like(state.arrived)
        return {"won": none.any(), "arrived": none, "hit_wall": none, "hit_robot": none}

    @property
    def global_state_space(self) -> Box:
        height, width = self._shape
        robots = self._robots
        size = robots + (height - 2) * (width - 2) + 8 * robots + self.num_beams + _OTHER_ENTRIES
        return Box(-np.inf, np.inf, (robots, size))

    def global_state(self, state: NavigationState) -> Float[Array, "A V"]:
        height, width = self._shape
        motion = state.motion
        all_robots = (
            state.walls.cells[1:-1, 1:-1].astype(jnp.float32),
            jnp.stack([motion.x / width, motion.y / height], 1) - 0.5,
            motion.heading / np.pi - 0.5,
            jnp.stack([state.goal_x / width, state.goal_y / height], 1) - 0.5,
            jnp.stack([motion.speed / self.max_speed, motion.turn_rate / self.max_turn_rate], 1)
            - 0.5,
            (state.arrived | state.crashed).astype(jnp.float32),
        )
        shared = jnp.concatenate([part.ravel() for part in all_robots])
        views = jnp.broadcast_to(shared, (self._robots, shared.shape[0]))
        return jnp.concatenate([jnp.eye(self._robots), views, self.observe(state)], axis=1)

    def render(self, state: NavigationState) -> np.ndarray:
        """The map with robots, goals, the shortest way to each, and beams up to what they meet."""
        beams = np.asarray(_scan(self, state)) * self._lidar.spacing
        gone = np.asarray(state.arrived | state.crashed) & (self.finished == "vanish")
        body = float(self.length) / 2, float(self.width) / 2
        view = self.lidar_range, self.field_of_view
        return draw(state, beams, *view, body, float(self.goal_radius), gone)

    def describe(self, state: NavigationState) -> str:
        """The map with robots as capital and goals as small letters, and a line on each robot."""
        return draw_text(state)


@eqx.filter_jit
def _scan(env: Navigation, state: NavigationState) -> Float[Array, "A B"]:
    """How far each beam reaches, in its spacing."""
    return env._lidar.scan(state.walls, state.motion.poses, env._body)


def _distance(motion: Motion, state: NavigationState) -> Float[Array, " A"]:
    """How far each robot is from its goal."""
    x, y = motion.x - state.goal_x, motion.y - state.goal_y
    return jnp.sqrt(x * x + y * y)


def _is_zero(value: Any) -> bool:
    """Whether a parameter is known to be 0, in every environment."""
    return isinstance(value, int | float | np.ndarray) and not np.any(value)


def _largest(value: Any) -> Any:
    """The largest of a parameter's values; 0 while they are unknown."""
    return 0.0 if isinstance(value, Tracer) else np.max(value)
