"""Navigation: what robots see, how they drive, what they get, and where they start."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from full_optimization import FULL

import kiloworlds as kw
from kiloworlds.core.errors import InvalidValueError, UnknownNameError
from kiloworlds.core.random import fast_key
from kiloworlds.envs.multiagent.navigation import MAPS, NavigationMap
from kiloworlds.envs.multiagent.navigation.lidar import Lidar
from kiloworlds.envs.multiagent.navigation.navigation import Navigation, NavigationState
from kiloworlds.envs.multiagent.navigation.robots import (
    Body,
    Motion,
    Poses,
    hit_robots,
    hit_walls,
)
from kiloworlds.envs.multiagent.navigation.walls import Walls

HALL = "\n".join(["#########", *["#.......#"] * 5, "#########"])  # free for x in 1..8, y in 1..6
LAST = 119  # the number of a beam's last point
SPACING = 6.0 / LAST  # m
SQUARE = Body(0.25, 0.25)
STRAIGHT, FAST = 2, 10  # turn right hard is 4: actions are 5 * speed + turn


def env_with(robots, **settings):
    """Robots in the hall whose five beams look back, right, ahead, left and back."""
    return Navigation(layout=HALL, robots=robots, num_beams=5, **settings)


def state_with(env, *poses, goals=None, speeds=None):
    """A state in the hall with robots at (x, y, heading)."""
    x, y, heading = jnp.array(poses, jnp.float32).T
    speed = jnp.zeros_like(x) if speeds is None else jnp.array(speeds, jnp.float32)
    goal_x, goal_y = jnp.array(goals or [(7.5, 5.5)] * len(poses), jnp.float32).T
    motion = Motion(x, y, heading, speed, jnp.zeros_like(x))
    nobody, part = jnp.zeros(x.shape, bool), jnp.float32(env.reward_lambda)
    walls = Walls.of_cells(env.layout.is_wall)
    return NavigationState(walls, motion, goal_x, goal_y, nobody, nobody, part)


# The environment is an argument, so that one compilation serves all values of its parameters.
_step = jax.jit(
    lambda env, state, action: env.step(fast_key(1), state, action), compiler_options=FULL
)
observe = jax.jit(lambda env, state: env.observe(state))


def step(env, state, action):
    if env.team_reward:  # for which a parameter must be known
        return jax.jit(env.step, compiler_options=FULL)(fast_key(1), state, jnp.asarray(action))
    return _step(env, state, jnp.asarray(action))


def lidar_of(observation):
    """The points at which the five beams of each robot end."""
    return np.asarray((observation[:, :5] + 0.5) * LAST)


class TestLidar:
    def test_walls_at_known_distances(self):
        env = env_with(1)
        state = state_with(env, (2.3, 3.1, 0.0))
        # The first points at least so far away; left and right have 2.9 m and 2.1 m to go.
        points = [np.ceil(metres / SPACING) for metres in (1.3, 2.1, 5.7, 2.9, 1.3)]
        np.testing.assert_allclose(lidar_of(observe(env, state))[0], points, atol=1e-4)

    def test_beams_turn_with_the_robot(self):
        env = env_with(1)
        state = state_with(env, (2.3, 3.1, np.pi / 2))
        points = [np.ceil(metres / SPACING) for metres in (2.1, 5.7, 2.9, 1.3, 2.1)]
        np.testing.assert_allclose(lidar_of(observe(env, state))[0], points, atol=1e-4)

    def test_diagonal_distance(self):
        env = env_with(1)
        state = state_with(env, (2.0, 2.5, np.pi / 4))
        # Ahead (2 + d, 2.5 + d) meets y = 6; to the left (2 - d, 2.5 + d) meets x = 1.
        ahead, left = lidar_of(observe(env, state))[0][[2, 3]]
        assert ahead == pytest.approx(np.ceil(3.5 * np.sqrt(2) / SPACING))
        assert left == pytest.approx(np.ceil(1.0 * np.sqrt(2) / SPACING))

    def test_other_robots_end_beams(self):
        env = env_with(2)
        state = state_with(env, (2.0, 3.5, 0.0), (4.03, 3.6, 0.0))
        points = lidar_of(observe(env, state))
        # 1.78 m to the near side of a robot 0.5 m long, told apart to 5 cm.
        assert points[0, 2] == pytest.approx(35)
        assert points[1, 0] == pytest.approx(35)
        turned = state._replace(motion=state.motion._replace(heading=jnp.array([0.0, np.pi / 4])))
        # Its corner is 0.354 m from its middle, and 0.1 m aside of it the side has receded as much.
        distance = 2.03 - (0.25 * np.sqrt(2) - 0.1)
        assert lidar_of(observe(env, turned))[0, 2] == pytest.approx(distance // 0.05)

    def test_nothing_within_reach(self):
        env = Navigation(layout="circle-10", num_beams=5, lidar_range=2.0)
        _, observation = jax.jit(env.reset)(fast_key(0))
        np.testing.assert_array_equal(observation[:, :5], 0.5)

    def test_equals_looking_at_every_point(self):
        """The points of a beam one by one, in random maps from random places."""
        lidar = Lidar(num_beams=61, reach=6.0, resolution=0.05, field_of_view=2 * np.pi)
        draw = np.random.default_rng(1)
        copies = 40
        walls = np.pad(
            draw.random((copies, 8, 10)) < 0.3, [(0, 0), (1, 1), (1, 1)], constant_values=True
        )
        x, y = draw.uniform(1, 11, (copies, 1)), draw.uniform(1, 9, (copies, 1))
        heading = draw.uniform(-np.pi, np.pi, (copies, 1))

        def scan(cells, x, y, heading):
            return lidar.scan(Walls.of_cells(cells), Poses.facing(x, y, heading), Body(0.25, 0.25))

        seen = jax.jit(jax.vmap(scan))(walls, *np.float32([x, y, heading]))
        angles = heading + np.linspace(-np.pi, np.pi, 61)
        far = np.arange(LAST + 1) * SPACING
        at_x = x[..., None] + far * np.cos(angles)[..., None]
        at_y = y[..., None] + far * np.sin(angles)[..., None]
        row, column = np.clip(at_y, 0, 9).astype(int), np.clip(at_x, 0, 11).astype(int)
        hit = walls[np.arange(copies)[:, None, None], row, column]
        expected = np.where(hit.any(-1), hit.argmax(-1), LAST)
        assert (np.asarray(seen)[:, 0] != expected).mean() <= 1e-3


class TestDriving:
    def test_speeds_are_approached(self):
        env = env_with(1)
        state = state_with(env, (2.0, 2.0, 0.0))
        state, _ = step(env, state, [FAST + 0])  # 1 m/s and 0.5 rad/s to the left
        # In 0.1 s at most 0.1 m/s and 0.1 rad/s more; it moves along the heading it had.
        assert float(state.motion.speed[0]) == pytest.approx(0.1)
        assert float(state.motion.x[0]) == pytest.approx(2.01)
        assert float(state.motion.y[0]) == pytest.approx(2.0)
        assert float(state.motion.heading[0]) == pytest.approx(0.01)
        state, _ = step(env, state, [FAST + 0])
        assert float(state.motion.x[0]) == pytest.approx(2.01 + 0.02 * np.cos(0.01), abs=1e-6)
        assert float(state.motion.y[0]) == pytest.approx(2.0 + 0.02 * np.sin(0.01), abs=1e-6)
        for _ in range(4):
            state, _ = step(env, state, [STRAIGHT])
        assert float(state.motion.speed[0]) == pytest.approx(0.0, abs=1e-6)
        assert float(state.motion.turn_rate[0]) == pytest.approx(0.0, abs=1e-6)

    def test_discrete_actions_are_speeds_and_turn_rates(self):
        settings = dict(max_acceleration=100.0, max_turn_acceleration=100.0)
        env = env_with(1, **settings)
        start = state_with(env, (4.0, 3.5, 0.0))
        for action in range(15):
            state, _ = step(env, start, [action])
            speed, turn = divmod(action, 5)
            assert float(state.motion.speed[0]) == pytest.approx(speed / 2)
            assert float(state.motion.turn_rate[0]) == pytest.approx(0.5 - turn / 4)

    def test_continuous_actions_keep_to_the_limits(self):
        env = env_with(
            1,
            continuous_actions=True,
            max_speed=0.7,
            max_turn_rate=0.4,
            max_acceleration=3.0,
            max_turn_acceleration=2.5,
        )
        space = env.kinds[0].action_space
        np.testing.assert_allclose(space.high, [0.7, np.pi / 6])
        state = state_with(env, (4.0, 3.5, 0.0))
        state, _ = step(env, state, [[0.2, -0.1]])
        assert float(state.motion.speed[0]) == pytest.approx(0.2)
        assert float(state.motion.turn_rate[0]) == pytest.approx(-0.1)
        state, _ = step(env, state, [[5.0, 5.0]])
        assert float(state.motion.speed[0]) == pytest.approx(0.5)
        assert float(state.motion.turn_rate[0]) == pytest.approx(0.15)
        for _ in range(3):
            state, seen = step(env, state, [[5.0, 5.0]])
        assert float(state.motion.speed[0]) == pytest.approx(0.7)
        assert float(state.motion.turn_rate[0]) == pytest.approx(0.4)
        np.testing.assert_allclose(seen.observation[0, 5:7], [0.5, 1.0], atol=1e-6)

    def test_observation_of_the_goal(self):
        env = env_with(1)
        state = state_with(env, (2.0, 2.0, np.pi / 2), goals=[(5.0, 2.0)])
        observation = observe(env, state)[0]
        # Half the range away, a quarter turn to the right; lambda is 0.5.
        np.testing.assert_allclose(observation[5:], [-0.5, 0.0, 0.0, -0.5, 0.0], atol=1e-6)


@jax.jit
def touching_walls(cells, x, y, heading, body):
    return hit_walls(Walls.of_cells(cells), Poses.facing(x, y, heading), body)


@jax.jit
def touching_robots(x, y, heading, body):
    return hit_robots(Poses.facing(x, y, heading), body)


class TestCollisions:
    def touch(self, *poses, cells=None, body=SQUARE):
        x, y, heading = jnp.array(poses, jnp.float32).T
        cells = MAPS["blank"].is_wall if cells is None else cells
        return touching_walls(cells, x, y, heading, body).tolist()

    def test_a_turned_robot_needs_more_room(self):
        # The wall is at x = 1: half of 0.5 m, or of its diagonal, is 0.25 m or 0.354 m.
        assert self.touch((1.26, 3.5, 0.0), (1.34, 3.5, np.pi / 4)) == [False, True]
        assert self.touch((1.24, 3.5, 0.0), (1.36, 3.5, np.pi / 4)) == [True, False]

    def test_a_corner_of_a_wall(self):
        cells = MAPS["blank"].is_wall.copy()
        cells[3, 3] = True  # its lower left corner is (3, 3)
        # 0.3 m off in both directions: a square turned by 45 degrees passes, nearer one hits.
        for near, hits in ((0.3, False), (0.17, True)):
            assert self.touch((3 - near, 3 - near, np.pi / 4), cells=cells) == [hits]
        assert self.touch((2.8, 2.8, 0.0), cells=cells) == [True]

    def test_a_long_robot(self):
        body = Body(0.4, 0.1)
        assert self.touch((1.3, 3.5, 0.0), (1.3, 3.5, np.pi / 2), body=body) == [True, False]

    def test_robots(self):
        def touching(*poses):
            x, y, heading = jnp.array(poses, jnp.float32).T
            return touching_robots(x, y, heading, SQUARE).tolist()

        assert touching((2, 2, 0.0), (2.49, 2, 0.0), (4, 4, 0.0)) == [True, True, False]
        assert touching((2, 2, 0.0), (2.51, 2, 0.0)) == [False, False]
        # Corner against side: 0.354 + 0.25 m.
        assert touching((2, 2, np.pi / 4), (2.6, 2, 0.0)) == [True, True]
        assert touching((2, 2, np.pi / 4), (2.61, 2, 0.0)) == [False, False]


class TestRewards:
    def test_coming_closer(self):
        env = env_with(1, progress_weight=2.0, time_reward=-0.03)
        state = state_with(env, (4.0, 3.5, 0.0), goals=[(7.0, 3.5)], speeds=[0.9])
        _, result = step(env, state, [FAST + STRAIGHT])
        assert float(result.reward[0]) == pytest.approx(2.0 * 0.1 - 0.03, abs=1e-6)
        assert not result.terminated

    def test_something_near(self):
        env = env_with(1, proximity_distance=1.0, proximity_reward=-0.7, time_reward=0.0)
        for x, reward in ((1.9, -0.7), (2.1, 0.0)):
            state = state_with(env, (x, 3.5, 0.0))
            _, result = step(env, state, [STRAIGHT])
            assert float(result.reward[0]) == pytest.approx(reward)

    def test_turning_hard(self):
        env = env_with(1, turn_threshold=0.4, turn_weight=-0.2, time_reward=0.0)
        state = state_with(env, (4.0, 3.5, 0.0))
        for turn, reward in ((0, -0.1), (1, 0.0), (4, -0.1)):
            assert float(step(env, state, [turn])[1].reward[0]) == pytest.approx(reward)

    def test_arriving(self):
        env = env_with(1, goal_radius=0.3, goal_reward=7.0)
        state = state_with(env, (4.0, 3.5, 0.0), goals=[(4.38, 3.5)], speeds=[1.0])
        state, result = step(env, state, [FAST + STRAIGHT])
        assert float(result.reward[0]) == pytest.approx(7.0 - 0.01, abs=1e-6)
        assert result.terminated
        assert result.info["won"]
        assert result.info["arrived"].tolist() == [True]
        np.testing.assert_array_equal(result.observation, 0.0)

    def test_crashing(self):
        env = env_with(1, collision_reward=-3.0, proximity_reward=0.0, progress_weight=0.0)
        state = state_with(env, (1.3, 3.5, np.pi), speeds=[1.0])
        state, result = step(env, state, [FAST + STRAIGHT])
        assert float(result.reward[0]) == pytest.approx(-3.01)
        assert result.terminated
        assert not result.info["won"]
        assert result.info["hit_wall"].tolist() == [True]
        assert result.info["hit_robot"].tolist() == [False]

    # One robot crashes (-4 - 0.01 - 0.1 for being near), one stands (-0.01), one comes 0.1 m closer.
    OWN = (-4.11, -0.01, 0.025 - 0.01)
    SPARSE = (-4.01, -0.01, -0.01)

    @pytest.mark.parametrize(
        ("part", "only_sparse"), [(1.0, False), (0.25, False), (0.25, True), (0.0, False)]
    )
    def test_sharing(self, part, only_sparse):
        env = env_with(3, reward_lambda=part, share_only_sparse=only_sparse)
        state = state_with(
            env,
            (1.3, 1.5, np.pi),
            (4.0, 3.5, 0.0),
            (4.0, 5.0, 0.0),
            goals=[(1.3, 5.5), (1.5, 1.5), (7.5, 5.0)],
            speeds=[1.0, 0.0, 1.0],
        )
        fast = FAST + STRAIGHT
        # The first robot moves across the way to its goal, a little farther from it.
        after, result = step(env, state, [fast, STRAIGHT, fast])
        own = np.array(self.OWN)
        own[0] += 0.25 * (4.0 - np.hypot(0.1, 4.0))
        shared = np.mean(self.SPARSE if only_sparse else own)
        expected = part * own + (1 - part) * shared
        np.testing.assert_allclose(result.reward, expected, atol=1e-5)
        assert env.team_reward == (part == 0.0)
        # The crashed one gets nothing more, but for the team's reward.
        _, result = step(env, after, [fast, STRAIGHT, fast])
        assert (float(result.reward[0]) != 0.0) == (part == 0.0)

    def test_a_drawn_lambda_counts(self):
        env = env_with(2, reward_lambda=0.2, max_reward_lambda=0.9, progress_weight=0.0)
        state, observation = jax.jit(jax.vmap(env.reset))(jax.random.split(fast_key(0), 60))
        drawn = np.asarray(state.reward_lambda)
        np.testing.assert_allclose(observation[:, 1, -1], drawn - 0.5, atol=1e-6)
        assert 0.2 <= drawn.min() < 0.35 < 0.75 < drawn.max() <= 0.9
        state = state_with(env, (1.3, 3.5, np.pi), (4.0, 3.5, 0.0), speeds=[1.0, 0.0])
        state = state._replace(reward_lambda=jnp.float32(0.8))
        _, result = step(env, state, [FAST + STRAIGHT, STRAIGHT])
        assert float(result.reward[1]) == pytest.approx(
            0.8 * -0.01 + 0.2 * (-4.11 - 0.01) / 2, abs=1e-5
        )


class TestFinished:
    """One robot arrives; a second drives at it."""

    def run(self, finished, steps=12):
        env = env_with(2, finished=finished, goal_radius=0.4)
        state = state_with(
            env,
            (4.5, 3.5, 0.0),
            (3.2, 3.5, 0.0),
            goals=[(4.9, 3.5), (7.5, 3.5)],
            speeds=[0.0, 1.0],
        )
        results = []
        for _ in range(steps):
            state, result = step(env, state, [STRAIGHT + 5, FAST + STRAIGHT])
            results.append((state, result))
        return env, results

    def test_it_stays_in_the_way(self):
        env, results = self.run("stay")
        arrived = next(i for i, (state, _) in enumerate(results) if state.arrived[0])
        state, result = results[arrived]
        assert float(result.reward[0]) > 1.0
        assert env.alive(state).tolist() == [False, True]
        place = float(state.motion.x[0])
        last, result = results[-1]
        assert float(last.motion.x[0]) == place
        assert last.crashed.tolist() == [False, True]
        assert result.terminated
        assert not result.info["won"]
        assert all(float(result.reward[0]) == 0.0 for _, result in results[arrived + 1 :])
        np.testing.assert_array_equal(result.observation[0], 0.0)

    def test_it_vanishes_and_lets_others_pass(self):
        env, results = self.run("vanish", steps=40)
        assert not any(bool(state.crashed.any()) for state, _ in results)
        won = [bool(result.info["won"]) for _, result in results]
        assert any(won)
        first = won.index(True)
        assert results[first][1].terminated
        assert env.alive(results[0][0]).tolist() == [True, True] or results[0][0].arrived[0]
        # Seen once more in the step in which it arrives, then no longer.
        arrived = next(i for i, (state, _) in enumerate(results) if state.arrived[0])
        ahead = [lidar_of(result.observation)[1, 2] for _, result in results]
        assert ahead[arrived] < 30
        assert ahead[arrived + 1] > 60

    def test_it_drives_on_and_can_crash(self):
        env, results = self.run("continue", steps=30)
        arrived = next(i for i, (state, _) in enumerate(results) if state.arrived[0])
        state, _ = results[arrived]
        assert env.alive(state).tolist() == [True, True]
        later, result = results[arrived + 1]
        assert float(later.motion.x[0]) > float(state.motion.x[0])
        assert float(np.abs(result.observation[0]).sum()) > 0.0
        last, _ = results[-1]
        assert last.crashed.tolist() == [True, True]
        assert last.arrived.tolist() == [True, False]


def reachable(walls, start):
    reached, waiting = {start}, collections.deque([start])
    while waiting:
        row, column = waiting.popleft()
        for near in ((row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)):
            if not walls[near] and near not in reached:
                reached.add(near)
                waiting.append(near)
    return reached


class TestPlacement:
    @pytest.mark.parametrize("solvable", [pytest.param(False, marks=pytest.mark.slow), True])
    @pytest.mark.parametrize("placement", ["anywhere", "cells"])
    def test_starts_and_goals_are_free(self, placement, solvable):
        count, robots = 400, 4
        env = Navigation(
            robots=robots,
            map_size=(9, 8),
            fill=0.6,
            placement=placement,
            solvable=solvable,
            num_beams=3,
        )
        state, _ = jax.jit(jax.vmap(env.reset))(jax.random.split(fast_key(0), count))
        all_walls = np.asarray(jax.vmap(lambda walls: walls.cells)(state.walls))
        assert all_walls.shape == (count, 8, 9)
        assert all_walls[:, [0, -1]].all()
        assert all_walls[:, :, [0, -1]].all()
        inside = all_walls[:, 1:-1, 1:-1].sum((1, 2))
        assert inside.max() < 0.6 * 42
        assert inside.min() <= 2
        places = np.stack([state.motion.x, state.motion.y, state.goal_x, state.goal_y], -1)
        clear = 0.45, 0.3
        unsolvable = 0
        for walls, starts in zip(all_walls, places, strict=True):
            rows, columns = np.nonzero(walls)
            for which, radius in ((0, clear[0]), (2, clear[1])):
                x, y = starts[:, which, None], starts[:, which + 1, None]
                away_x = x - np.clip(x, columns, columns + 1)
                away_y = y - np.clip(y, rows, rows + 1)
                assert np.hypot(away_x, away_y).min() > radius - 1e-5
                apart = np.hypot(x - x.T, y - y.T) + 9 * np.eye(robots)
                assert apart.min() > 2 * clear[0] - 1e-5
            assert np.hypot(starts[:, 0] - starts[:, 2], starts[:, 1] - starts[:, 3]).min() > 0.6
            for x, y, goal_x, goal_y in starts:
                way = (int(goal_y), int(goal_x)) in reachable(walls, (int(y), int(x)))
                unsolvable += not way
        assert (unsolvable == 0) == solvable

    def test_goals_at_any_distance_where_no_other_fits(self):
        # Goals 1.3 m or more away have no room in two cells, and their middles are 1 m apart.
        env = Navigation(layout="####\n#..#\n####", solvable=True, num_beams=3)
        state, _ = jax.jit(jax.vmap(env.reset))(jax.random.split(fast_key(0), 20))
        cells = np.floor([state.motion.x, state.goal_x])[..., 0]
        assert set(map(tuple, cells.T)) <= {(1, 2), (2, 1), (1, 1), (2, 2)}
        assert (np.hypot(state.motion.x - state.goal_x, state.motion.y - state.goal_y) > 0.6).all()

    def test_every_cell_taken(self):
        env = Navigation(layout="#####\n#...#\n#####", robots=3, placement="cells", num_beams=3)
        state, _ = jax.jit(jax.vmap(env.reset))(jax.random.split(fast_key(3), 50))
        starts, goals = np.asarray(state.motion.x), np.asarray(state.goal_x)
        np.testing.assert_allclose(np.sort(starts), np.tile([1.5, 2.5, 3.5], (50, 1)))
        np.testing.assert_allclose(np.sort(goals), np.tile([1.5, 2.5, 3.5], (50, 1)))
        assert (starts != goals).all()
        assert len({tuple(row) for row in starts}) == 6

    def test_episodes_differ_and_keys_repeat(self):
        env = Navigation(robots=2, num_beams=3)
        reset = jax.jit(env.reset)
        first, again, other = (reset(fast_key(seed))[0] for seed in (1, 1, 2))
        np.testing.assert_array_equal(first.motion.x, again.motion.x)
        assert not np.array_equal(first.walls.rows, other.walls.rows)
        assert not np.array_equal(first.motion.heading, other.motion.heading)


class TestMaps:
    def test_a_map_in_letters(self):
        env = Navigation(
            layout="""
            ######
            #A..b#
            #.##.#
            #B..a#
            ######
            """,
            num_beams=3,
        )
        assert env.num_agents == 2
        state, _ = jax.jit(env.reset)(fast_key(0))
        np.testing.assert_allclose(state.motion.x, [1.5, 1.5])
        np.testing.assert_allclose(state.motion.y, [3.5, 1.5])
        np.testing.assert_allclose(state.goal_x, [4.5, 4.5])
        np.testing.assert_allclose(state.goal_y, [1.5, 3.5])
        assert env.describe(state).splitlines()[:5] == [
            "######",
            "#A..b#",
            "#.##.#",
            "#B..a#",
            "######",
        ]
        assert "A at (1.50, 3.50) m" in env.describe(state)

    def test_given_headings(self):
        layout = NavigationMap(
            ("#####", "#...#", "#####"),
            starts=((1.5, 1.5, 4.0), (3.5, 1.5, None)),
            goals=((2.5, 1.5), (1.5, 1.5)),
        )
        env = Navigation(layout=layout, num_beams=3)
        state, _ = jax.jit(jax.vmap(env.reset))(jax.random.split(fast_key(0), 50))
        np.testing.assert_allclose(state.motion.heading[:, 0], 4.0 - 2 * np.pi, atol=1e-6)
        assert np.ptp(state.motion.heading[:, 1]) > 4.0

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "#####\n#.x!#\n#####",
                r"'!' in line 2, column 4; it takes '#' \(wall\) and '\.' \(free\)",
            ),
            ("#####\n#...#\n####", "not a rectangle: line 3 ends in column 4, line 1 in column 5"),
            ("#####\n#....\n#####", r"open in line 2, column 5, where it has '\.'"),
            ("#####\n#A.a#\n##A##\n#####", "second 'A' in line 3, column 3"),
            ("#####\n#A.b#\n#####", "letters run from A without a gap.*see 'b'"),
            ("#####\n#A..#\n#####", "each start has its goal in lower case: see 'a'"),
            ("##\n##", "the smallest is 3 by 3"),
            ("\n".join(["#" * 40] * 3), "goes on in line 3, column 33; the largest is 32 by 32"),
        ],
    )
    def test_malformed_maps(self, text, message):
        with pytest.raises(InvalidValueError, match=message):
            Navigation(layout=text)

    def test_misplaced_starts(self):
        rows = ("#####", "#...#", "#####")
        with pytest.raises(
            InvalidValueError, match=r"start of robot 0 \(0.5, 1.5\) lies in a wall.*\(1"
        ):
            NavigationMap(rows, ((0.5, 1.5, 0.0),), ((2.5, 1.5),))
        with pytest.raises(InvalidValueError, match=r"goal of robot 0 \(7, 1.5\) lies outside"):
            NavigationMap(rows, ((1.5, 1.5, 0.0),), ((7.0, 1.5),))
        with pytest.raises(InvalidValueError, match="1 starts and 0 goals"):
            NavigationMap(rows, ((1.5, 1.5, 0.0),))

    @pytest.mark.parametrize("name", MAPS)
    def test_named_maps_are_solvable(self, name):
        layout = MAPS[name]
        walls = layout.is_wall
        digits = [int(part.rstrip("ab")) for part in name.split("-") if part.rstrip("ab").isdigit()]
        if not name.startswith("single"):
            assert len(layout.starts) == (digits[-1] if digits else 1)
        for (x, y, _), (goal_x, goal_y) in zip(layout.starts, layout.goals, strict=True):
            assert (int(goal_y), int(goal_x)) in reachable(walls, (int(y), int(x)))


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (dict(robots=0), "robots=0 must be a whole number of 1 or more"),
            (dict(robots=30), r"room for 29 .*'anywhere'.*; the nearest valid value is 29"),
            (
                dict(layout="cross-4", robots=2),
                "the map has starts for 4; the nearest valid value is 4",
            ),
            (dict(layout="####\n#..#\n####", robots=2), "nearest valid value is 1"),
            (dict(layout="#####\n#.#.#\n#####", solvable=True), "has 0 free cells"),
            (dict(map_size=(40, 11)), "map_size=40 .*the nearest valid value is 32"),
            (dict(map_size="x"), "map_size='x': it takes"),
            (dict(map_size=5), "map_size=5: it takes"),
            (dict(map_size=(11,)), "it takes a width and a height"),
            (dict(fill=1.5), "fill=1.5 .*the nearest valid value is 1"),
            (dict(finished="gone"), "'gone' is not one of 'stay', 'vanish', 'continue'"),
            (dict(placement="cell"), "Did you mean 'cells'"),
            (dict(start_clearance=0.6), "start_clearance=0.6 .*the nearest valid value is 0.49"),
            (dict(reward_lambda=2.0), "reward_lambda=2.0 .*the nearest valid value is 1"),
            (dict(lidar_resolution=4.0), "lidar_resolution=4.0 .*the nearest valid value is 3"),
            (dict(max_speed=0), "max_speed=0 .*the nearest valid value is 0.001"),
            (dict(dt=-1.0), "dt=-1.0 .*the nearest valid value is 0.001"),
            (dict(min_goal_distance=-1), "min_goal_distance=-1 .*the nearest valid value is 0"),
            (dict(num_beams=10**9), "num_beams=1000000000 .*the nearest valid value is 10000"),
            (dict(width=np.array([0.5, 2.0])), "width=2.0 .*the nearest valid value is 1.4"),
            (dict(layout=7), "layout=7: it takes the name of a map"),
        ],
    )
    def test_wrong_ones(self, settings, message):
        with pytest.raises(InvalidValueError, match=message):
            Navigation(**settings)

    def test_a_size_as_stored_runs_have_it(self):
        assert Navigation(map_size=[9, 7]).map_size == (9, 7)

    def test_an_unknown_map(self):
        with pytest.raises(UnknownNameError, match="Did you mean 'corridor-4'"):
            Navigation(layout="coridor-4")

    def test_parameters_may_differ_between_environments(self):
        speeds = np.array([0.1, 0.05, 0.02], np.float32)
        envs = kw.make("navigation/blank-1r", 3, num_beams=3, max_speed=speeds)
        envs.reset(seed=0)
        for _ in range(3):
            state_before = envs.state.environments.inner.motion.x
            observation, *_ = envs.step(np.full((3, 1), FAST + STRAIGHT))
        np.testing.assert_allclose(observation[:, 0, 3], 0.5, atol=1e-6)
        moved = envs.state.environments.inner.motion.x - state_before
        np.testing.assert_allclose(moved[:, 0], 0.1 * speeds, atol=1e-6)


def test_global_state():
    env = Navigation(layout="cross-2", num_beams=3)
    state, observation = jax.jit(env.reset)(fast_key(0))
    seen = np.asarray(env.global_state(state))
    assert seen.shape == env.global_state_space.shape == (2, 2 + 25 + 16 + 8)
    np.testing.assert_array_equal(seen[:, :2], np.eye(2))
    np.testing.assert_array_equal(seen[:, 2:27], 0.0)
    np.testing.assert_allclose(seen[0, 27:31], np.array([1.5, 1.5, 5.5, 5.5]) / 7 - 0.5, atol=1e-6)
    np.testing.assert_allclose(seen[1, 31:33] + 0.5, [0.78 / np.pi, 3.92 / np.pi - 2], atol=1e-6)
    np.testing.assert_allclose(seen[:, -8:], observation, atol=1e-6)


def test_pictures_show_what_happens():
    env = env_with(2, finished="vanish")
    state = state_with(env, (2.0, 3.5, 0.0), (5.0, 2.0, 1.0))
    before = env.render(state)
    assert before.shape == (7 * 80, 9 * 80, 3)
    moved = env.render(state._replace(motion=state.motion._replace(x=jnp.array([3.0, 5.0]))))
    crashed = env.render(state._replace(crashed=jnp.array([True, False])))
    for other in (moved, crashed):
        assert (other != before).any(-1).mean() > 0.01
    # Walls are dark, and a robot is of its own colour.
    assert before[10, 10].sum() < 300
    assert tuple(before[int((7 - 3.5) * 80) + 14, int(1.9 * 80)]) == (0, 0x72, 0xB2)
