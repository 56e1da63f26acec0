"""Navigation against JaxNav of the `jaxmarl` package, state by state."""

import contextlib
import io
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kiloworlds.core.random import fast_key
from kiloworlds.envs.multiagent.navigation import MAPS
from kiloworlds.envs.multiagent.navigation.navigation import Navigation, NavigationState
from kiloworlds.envs.multiagent.navigation.robots import Motion
from kiloworlds.envs.multiagent.navigation.walls import Walls

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    jaxnav = pytest.importorskip("jaxmarl.environments.jaxnav.jaxnav_env")
    singletons = pytest.importorskip("jaxmarl.environments.jaxnav.jaxnav_singletons")

pytestmark = pytest.mark.filterwarnings("ignore")  # of the package

_COPIES, _ROBOTS, _BEAMS = 48, 4, 200
# Where the last bits of float32 decide (which of two neighbouring points of a beam is in a wall, whether
# a robot just touches something), the two may differ.
_MOST_DIFFERENT_BEAMS = 1e-4
_MOST_DIFFERENT_FLAGS = 1e-3

_RULES = dict(
    # Values other than the defaults, so that an ignored setting shows.
    goal_radius=0.45,
    collision_reward=-3.0,
    goal_reward=5.0,
    progress_weight=0.3,
    time_reward=-0.02,
    proximity_reward=-0.15,
    proximity_distance=0.55,
    turn_threshold=0.3,
    turn_weight=-0.2,
    max_turn_acceleration=2.0,
    max_acceleration=2.0,
)
_JAXNAV_RULES = dict(
    goal_radius=0.45,
    coll_rew=-3.0,
    goal_rew=5.0,
    weight_g=0.3,
    dt_rew=-0.02,
    lidar_rew=-0.15,
    lidar_thresh=0.25,
    lim_w=0.3,
    weight_w=-0.2,
    max_w_acc=2.0,
    max_v_acc=2.0,
)


def _quiet(function, *arguments, **keywords):
    """Calls a function of the package, which prints."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **keywords)


def _theirs(state: NavigationState, rules: jaxnav.JaxNav):
    motion = state.motion
    gone = state.arrived | state.crashed if rules.evaporating else jnp.zeros_like(state.arrived)
    return jaxnav.State(
        pos=jnp.stack([motion.x, motion.y], -1),
        theta=motion.heading,
        vel=jnp.stack([motion.speed, motion.turn_rate], -1),
        done=gone,
        term=gone,
        goal_reached=state.arrived,
        move_term=state.crashed,
        step=jnp.zeros(state.goal_x.shape[0], jnp.int32),
        ep_done=jnp.zeros(state.goal_x.shape[0], bool),
        goal=jnp.stack([state.goal_x, state.goal_y], -1),
        map_data=jax.vmap(lambda walls: walls.cells.astype(jnp.int32))(state.walls),
        rew_lambda=jnp.full(state.goal_x.shape[0], rules.rew_lambda),
    )


@pytest.mark.parametrize(
    ("finished", "continuous_actions", "reward_lambda", "sparse"),
    [("continue", False, 0.3, False), ("vanish", True, 1.0, True)],
)
def test_every_step_is_jaxnavs(finished, continuous_actions, reward_lambda, sparse):
    ours = Navigation(
        robots=_ROBOTS,
        finished=finished,
        continuous_actions=continuous_actions,
        reward_lambda=reward_lambda,
        share_only_sparse=sparse,
        **_RULES,
    )
    theirs = _quiet(
        jaxnav.JaxNav,
        _ROBOTS,
        act_type="Continuous" if continuous_actions else "Discrete",
        evaporating=finished == "vanish",
        rew_lambda=reward_lambda,
        share_only_sparse=sparse,
        **_JAXNAV_RULES,
    )

    @jax.jit
    def advance(state, key):
        keys = jax.random.split(key, _COPIES)
        action = jax.vmap(ours.action_space.sample)(keys)
        if not continuous_actions:  # mostly fast, so that something happens
            action = jnp.where(jax.random.uniform(key, action.shape) < 0.7, action % 5 + 10, action)
        next_state, step = jax.vmap(ours.step)(keys, state, action)
        actions = {name: action[:, i] for i, name in enumerate(theirs.agents)}
        seen, their_state, reward, done, info = jax.vmap(theirs.step_env)(
            keys, _theirs(state, theirs), actions
        )
        stacked = [jnp.stack(list(values.values()), 1) for values in (seen, reward)]
        alive = jax.vmap(ours.alive)(next_state)
        return (next_state, step, alive), (their_state, *stacked, done["__all__"], info)

    state, _ = jax.jit(jax.vmap(ours.reset))(jax.random.split(fast_key(3), _COPIES))
    live = np.ones(_COPIES, bool)
    beams, flags, rewards, arrivals, crashes, ends = [], [], [], 0, 0, 0
    for number in range(120):
        takes_part = np.ones((_COPIES, _ROBOTS), bool)
        if finished == "vanish":
            takes_part = ~np.asarray(state.arrived | state.crashed)
        (next_state, step, alive), (their_state, seen, reward, done, info) = _quiet(
            advance, state, jax.random.fold_in(fast_key(5), number)
        )
        who = takes_part & live[:, None]
        motion = next_state.motion
        for mine, other in [
            (motion.x, their_state.pos[..., 0]),
            (motion.y, their_state.pos[..., 1]),
            (motion.heading, their_state.theta),
            (motion.speed, their_state.vel[..., 0]),
            (motion.turn_rate, their_state.vel[..., 1]),
        ]:
            np.testing.assert_allclose(np.asarray(mine)[who], np.asarray(other)[who], atol=2e-6)
        hits = [
            (step.info["hit_wall"], info["MapC"]),
            (step.info["hit_robot"], info["AgentC"]),
            (step.info["arrived"], info["GoalR"]),
        ]
        agree = np.ones(who.shape, bool)
        for mine, other in hits:
            agree &= np.asarray(mine) == np.asarray(other).astype(bool)
        flags.append(agree[who])
        same = agree.all(1) & live
        np.testing.assert_array_equal(np.asarray(step.terminated)[same], np.asarray(done)[same])

        # What the dead observe is no longer JaxNav's.
        watching = np.asarray(alive) & who & same[:, None]
        mine, other = np.asarray(step.observation)[watching], np.asarray(seen)[watching]
        spacing = 1 / 119
        beams.append(np.abs(mine[:, :_BEAMS] - other[:, :_BEAMS]) < spacing / 2)
        np.testing.assert_allclose(mine[:, _BEAMS:], other[:, _BEAMS:], atol=5e-6)
        paid = who & same[:, None]
        rewards.append(
            np.isclose(np.asarray(step.reward)[paid], np.asarray(reward)[paid], atol=1e-5)
        )

        arrivals += int(np.asarray(step.info["arrived"])[live].sum())
        crashes += int(np.asarray(step.info["hit_wall"] | step.info["hit_robot"])[live].sum())
        ends += int(np.asarray(step.terminated)[live].sum())
        live &= ~np.asarray(step.terminated)
        state = next_state
        if not live.any():
            break
    assert np.concatenate(beams).mean() >= 1 - _MOST_DIFFERENT_BEAMS
    assert np.concatenate(flags).mean() >= 1 - _MOST_DIFFERENT_FLAGS
    # A beam that differs by the last bit may decide about the proximity reward.
    assert np.concatenate(rewards).mean() >= 1 - _MOST_DIFFERENT_FLAGS
    print(
        np.concatenate(beams).mean(),
        np.concatenate(flags).mean(),
        np.concatenate(rewards).mean(),
        arrivals,
        crashes,
        ends,
        number,
    )
    assert arrivals >= 3
    assert crashes >= 100
    assert ends >= 5


def test_named_maps_are_jaxnavs():
    theirs = {
        "blank": "BlankTest",
        "middle": "MiddleTest",
        "single-1": "SingleNav1",
        "single-2": "SingleNav2",
        "single-3": "SingleNav3",
        "cross-2": "BlankCross2",
        "cross-4": "BlankCross4",
        "cross-uneven-2": "BlankCrossUneven2",
        "circle-10": "CircleCross",
        "corridor-4": "Corridor4",
        "corridor-8": "Corridor8",
        "long-corridor-2": "LongCorridor2",
        "layby-4": "Layby4",
        "corner-2": "Corner2",
        "chicane-2": "Chicane2",
        "chicane-4": "Chicane4",
        "narrow-chicane-2a": "NarrowChicane2a",
        "narrow-chicane-2b": "NarrowChicane2b",
    }
    assert set(theirs) == set(MAPS)
    assert set(theirs.values()) == set(singletons.registered_singletons)
    for ours, name in theirs.items():
        other = _quiet(singletons.make_jaxnav_singleton, name)
        mine = MAPS[ours]
        np.testing.assert_array_equal(mine.is_wall, other.map_data, err_msg=ours)
        np.testing.assert_allclose(mine.goals, other.goal_pose[:, :2], atol=1e-5, err_msg=ours)
        starts = np.array(mine.starts)
        np.testing.assert_allclose(starts[:, :2], other.start_pose[:, :2], atol=1e-5, err_msg=ours)
        turned = (starts[:, 2] - np.asarray(other.start_pose[:, 2])) / (2 * np.pi)
        np.testing.assert_allclose(turned, turned.round(), atol=1e-6, err_msg=ours)


@pytest.mark.parametrize("placement", ["anywhere", "cells"])
def test_random_scenarios_are_like_jaxnavs(placement):
    """Walls, distances and places have the same distribution; 5 standard errors apart at most."""
    robots, count = 3, 2000
    ours = Navigation(robots=robots, placement=placement, fill=0.4)
    kind = {"anywhere": "random", "cells": "grid"}[placement]
    settings = dict(map_size=(11, 11), fill=0.4, sample_test_case_type=kind)
    theirs = _quiet(jaxnav.JaxNav, robots, map_params=settings)

    def features(cells, x, y, goal_x, goal_y):
        distance = jnp.hypot(x - goal_x, y - goal_y)
        middle = jnp.hypot(x - 5.5, y - 5.5)
        near = jnp.hypot(goal_x - 5.5, goal_y - 5.5)
        apart = jnp.hypot(x[0] - x[1], y[0] - y[1])
        return jnp.stack(
            [
                cells.sum() * 1.0,
                distance.mean(),
                (distance**2).mean(),
                middle.mean(),
                near.mean(),
                apart,
            ]
        )

    @jax.jit
    def both(key):
        def mine(key):
            state, _ = ours.reset(key)
            motion = state.motion
            return features(state.walls.cells, motion.x, motion.y, state.goal_x, state.goal_y)

        def other(key):
            state = theirs.sample_test_case(key)
            x, y = state.pos.T
            return features(state.map_data, x, y, *state.goal.T)

        keys = jax.random.split(key, count)
        return jax.lax.map(mine, keys, batch_size=250), jax.lax.map(other, keys, batch_size=250)

    mine, other = (np.asarray(values) for values in _quiet(both, jax.random.key(0)))
    errors = np.sqrt((mine.var(0) + other.var(0)) / count)
    assert (np.abs(mine.mean(0) - other.mean(0)) <= 5 * errors).all(), (mine.mean(0), other.mean(0))


def test_scan_of_single_poses_is_jaxnavs():
    """Also where robots overlap, stand in corners or look along lines between cells."""
    ours = Navigation(robots=2, lidar_range=5.0, num_beams=90, lidar_resolution=0.1)
    theirs = _quiet(
        jaxnav.JaxNav, 2, lidar_max_range=5.0, lidar_num_beams=90, lidar_range_resolution=0.1
    )
    generator = np.random.default_rng(0)
    cells = np.pad(
        generator.random((64, 9, 9)) < 0.3, [(0, 0), (1, 1), (1, 1)], constant_values=True
    )
    x, y = generator.uniform(1.0, 10.0, (2, 64, 2)).astype(np.float32)
    near = generator.random(64) < 0.3
    x[near, 1], y[near, 1] = x[near, 0] + 0.2, y[near, 0] - 0.1
    heading = generator.uniform(-np.pi, np.pi, (64, 2)).astype(np.float32)
    rest = np.zeros_like(x)

    def mine(cells, x, y, heading, rest):
        motion = Motion(x, y, heading, rest, rest)
        nobody = jnp.zeros(2, bool)
        state = NavigationState(
            Walls.of_cells(cells), motion, x, y, nobody, nobody, jnp.float32(0.5)
        )
        return ours.observe(state), state

    seen, states = jax.jit(jax.vmap(mine))(cells, x, y, heading, rest)
    other = _quiet(jax.jit(jax.vmap(theirs._get_obs)), _theirs(states, theirs))
    different = np.abs(np.asarray(seen - other)[..., :90]) > 0.5 / 49
    assert different.mean() <= 2e-3
