"""The rules of battles, worked out by hand."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kiloworlds.core.errors import InvalidValueError, UnknownNameError
from kiloworlds.core.random import fast_key
from kiloworlds.core.registry import make_environment
from kiloworlds.envs.multiagent.battle import heuristic, rules
from kiloworlds.envs.multiagent.battle.batching import batch_last
from kiloworlds.envs.multiagent.battle.environment import Battle, BattleState, Draws
from kiloworlds.envs.multiagent.battle.scenarios import (
    SCENARIOS,
    STARCRAFT_UNITS,
    UNIT_NAMES,
    Scenario,
)
from kiloworlds.testing.distributions import matches_probabilities, same_distribution

NORTH, EAST, SOUTH, WEST, STOP, FIRST = range(6)


# Three against three, of any types; those a test does not need are dead from the start.
ARMIES = Scenario(("marine",) * 3, ("marine",) * 3, random_types=True)


class Unit(NamedTuple):
    kind: str
    x: float
    y: float
    health: float | None = None
    wait: float = 0.0


def battle(**settings):
    """A battle in which the enemies too are agents, so that nobody moves unasked."""
    numbers = {name: jnp.float32(v) for name, v in settings.items() if isinstance(v, float)}
    return Battle(scenario=ARMIES, **{"opponent": "learned"} | settings | numbers)


def placed(env, allies, enemies):
    """A state with these units."""
    spare = Unit("marine", 31.0, 1.0, health=0.0)
    units = [*allies, *[spare] * (3 - len(allies)), *enemies, *[spare] * (3 - len(enemies))]
    kinds = np.array([UNIT_NAMES.index(unit.kind) for unit in units], np.int32)
    full = env.unit_types.health[kinds]
    health = [most if u.health is None else u.health for u, most in zip(units, full, strict=True)]
    zeros, none = jnp.zeros(6), jnp.full(6, -1, jnp.int32)
    memory = heuristic.Memory(zeros[:3], zeros[:3], none[:3])
    return BattleState(
        jnp.float32([unit.x for unit in units]),
        jnp.float32([unit.y for unit in units]),
        jnp.float32(health),
        jnp.float32([unit.wait for unit in units]),
        jnp.asarray(kinds),
        zeros,
        zeros,
        none,
        zeros > 0,
        memory if env.opponent == "heuristic" else None,
    )


# Compiled once for all environments that differ in numbers only.
_step_with = eqx.filter_jit(lambda env, draws, state, action: env.step_with(draws, state, action))
_observe = eqx.filter_jit(lambda env, state: env.observe(state))


def act(env, state, allies, enemies=None, delay=0.0):
    """A step of both armies without anything random; units without an action stop."""
    ours, theirs = (
        jnp.int32([*actions, *[STOP] * (3 - len(actions))]) for actions in (allies, enemies or [])
    )
    draws = Draws(jnp.full(6, delay), jnp.ones(3), jnp.ones(3))
    action = {"ally": ours, "enemy": theirs} if env.opponent == "learned" else ours
    return _step_with(env, draws, state, action)


def test_units_walk_at_their_speed_for_half_a_second():
    env = battle()
    allies = Unit("marine", 4, 16), Unit("marauder", 10, 16), Unit("stalker", 16, 16)
    enemies = Unit("zealot", 22, 16), Unit("zergling", 28, 4)
    state, _ = act(env, placed(env, allies, enemies), [NORTH, EAST, SOUTH], [WEST, STOP])
    # 3.15, 2.25, 4.13 and 3.15 lengths a second.
    expected_x, expected_y = [4, 11.125, 16, 20.425, 28], [17.575, 16, 13.935, 16, 4]
    np.testing.assert_allclose(state.x[jnp.array([0, 1, 2, 3, 4])], expected_x, atol=1e-5)
    np.testing.assert_allclose(state.y[jnp.array([0, 1, 2, 3, 4])], expected_y, atol=1e-5)
    np.testing.assert_allclose(state.cooldown, -0.5, atol=1e-6)
    slow = battle(time_per_step=0.02, world_steps_per_env_step=5)
    state, _ = act(slow, placed(slow, allies, enemies), [NORTH], [WEST])
    np.testing.assert_allclose([state.y[0], state.x[3]], [16.315, 21.685], atol=1e-5)


@pytest.mark.parametrize(("distance", "hits"), [(4.99, True), (5.01, False)])
def test_a_weapon_reaches_its_range_and_then_cools_down(distance, hits):
    env = battle()
    before = placed(env, [Unit("marine", 8, 16)], [Unit("zealot", 8 + distance, 16)])
    state, step = act(env, before, [FIRST], [FIRST + 2], delay=0.05)
    assert float(state.health[3]) == (141.0 if hits else 150.0)
    np.testing.assert_array_equal(state.shot, [hits, *[False] * 5])
    # The shot falls in the first of eight instants; the cooldown starts with the second.
    after = 0.61 + 0.05 - 7 / 16 if hits else -0.5
    np.testing.assert_allclose(state.cooldown[jnp.array([0, 3])], [after, -0.5], atol=1e-6)
    # Of three enemies one lost 9 of 150.
    np.testing.assert_allclose(step.reward[0], 9 / 150 / 3 if hits else 0.0, atol=1e-6)
    np.testing.assert_allclose(step.reward[3], 0.0)


def test_a_weapon_waits_until_it_is_ready_and_shoots_once():
    env = battle()
    # Ready after 0.2 s, in the fifth instant; again after more than 0.61 s, in the next action.
    state = placed(env, [Unit("marine", 8, 16, wait=0.2)], [Unit("zealot", 12, 16)])
    state, _ = act(env, state, [FIRST])
    assert float(state.health[3]) == 141.0
    np.testing.assert_allclose(state.cooldown[0], 0.61 - 3 / 16, atol=1e-6)
    state, _ = act(env, state, [FIRST])
    assert float(state.health[3]) == 132.0


def test_enemies_count_their_targets_from_the_last_ally():
    env = battle()
    allies = Unit("zealot", 9, 16), Unit("zealot", 10, 16), Unit("zealot", 12, 16)
    enemies = Unit("stalker", 13, 20), Unit("stalker", 13.5, 16)
    orders = [STOP, STOP, FIRST + 1], [FIRST + 1, FIRST + 2]
    state, _ = act(env, placed(env, allies, enemies), *orders)
    # Stalkers deal 13 as far as 6 away, zealots 8 as far as 2.
    np.testing.assert_array_equal(state.health[:5], [137, 137, 150, 160, 152])
    np.testing.assert_array_equal(state.target, [-1, -1, 1, 1, 0, -1])


def test_shots_of_several_add_up_and_armies_shoot_at_once():
    env = battle(won_battle_bonus=3.0)
    allies = Unit("marine", 8, 16, health=9), Unit("marine", 8, 18)
    state = placed(env, allies, [Unit("marine", 11, 17, health=18)])
    state, step = act(env, state, [FIRST, FIRST], [FIRST + 2])
    # The enemy aims at the first ally; both shots kill in the same instant.
    np.testing.assert_array_equal(state.health[:4], [0, 45, 0, 0])
    assert bool(step.terminated)
    assert bool(step.info["won"])
    assert not bool(step.info["enemy_won"])
    # One of three enemies lost 18 of 45, one of three allies 9 of 45. Who dies now is paid, who was
    # dead before is not.
    won, lost = 18 / 45 / 3 + 3.0, 9 / 45 / 3
    np.testing.assert_allclose(step.reward, [won, won, 0, lost, 0, 0], atol=1e-6)


def test_a_team_is_paid_for_what_its_dead_did():
    env = battle(opponent="heuristic", enemy_shoots=False, won_battle_bonus=3.0)
    allies = Unit("marine", 8, 16, health=0), Unit("marine", 8, 18)
    state = placed(env, allies, [Unit("marine", 11, 17, health=9)])
    _, step = act(env, state, [STOP, FIRST])
    np.testing.assert_allclose(step.reward, np.full(3, 9 / 45 / 3 + 3.0), atol=1e-6)
    assert set(step.info) == {"won"}
    assert bool(step.info["won"])


def test_nobody_wins_where_all_die():
    env = battle(opponent="heuristic", won_battle_bonus=2.0)
    state = placed(env, [Unit("marine", 8, 16, health=9)], [Unit("marine", 11, 16, health=9)])
    state, step = act(env, state, [FIRST])
    assert not np.asarray(state.health).any()
    assert bool(step.terminated)
    assert not bool(step.info["won"])
    np.testing.assert_allclose(step.reward, np.full(3, 9 / 45 / 3), atol=1e-6)


def test_the_loser_pays_where_rewards_add_up_to_zero():
    env = battle(use_self_play_reward=True, won_battle_bonus=2.0)
    marines = Unit("marine", 8, 16, health=9), Unit("marine", 8, 18, health=0)
    strong, far = Unit("marine", 11, 16), Unit("marine", 20, 4)
    _, step = act(env, placed(env, marines, [strong, far]), [STOP], [FIRST + 2])
    np.testing.assert_allclose(step.reward, [-2, 0, 0, 2, 2, 0])
    _, step = act(env, placed(env, [strong, far], marines), [FIRST])
    np.testing.assert_allclose(step.reward, [2, 2, 0, -2, 0, 0])
    _, step = act(env, placed(env, marines, [strong._replace(health=9)]), [FIRST], [FIRST + 2])
    np.testing.assert_allclose(step.reward, np.zeros(6))


@pytest.mark.parametrize("walls_cause_death", [True, False])
def test_the_border_kills_who_touches_it(walls_cause_death):
    env = battle(walls_cause_death=walls_cause_death, map_height=20.0)
    state = placed(env, [Unit("marine", 8, 19)], [Unit("zealot", 1, 8)])
    state, step = act(env, state, [NORTH], [WEST])
    np.testing.assert_allclose([state.y[0], state.x[3]], [20, 0])
    left = [0, 0] if walls_cause_death else [45, 150]
    np.testing.assert_array_equal(state.health[jnp.array([0, 3])], left)
    assert bool(step.terminated) == walls_cause_death


def test_who_overlaps_is_pushed_apart_by_half():
    # Radii of 0.375 and 0.5 at a distance of 0.7 overlap by 0.175; the third touches nobody.
    before = np.array([[10, 10], [10, 10.7], [10.8, 10]], np.float32)
    radius = jnp.float32([0.375, 0.5, 0.375])
    x, y = rules.push_apart(*before.T, jnp.ones(3, bool), radius)
    np.testing.assert_allclose(x, before[:, 0], atol=1e-6)
    np.testing.assert_allclose(y, before[:, 1] + [-0.0875, 0.0875, 0], atol=1e-5)
    x, y = rules.push_apart(*before.T, jnp.array([False, True, True]), jnp.full(3, 0.5))
    np.testing.assert_allclose(np.stack([x, y], 1), before, atol=1e-6)


def test_the_dead_do_nothing_see_nothing_and_may_do_anything():
    env = battle()
    allies = Unit("marine", 8, 16, health=0), Unit("marine", 9, 18)
    state = placed(env, allies, [Unit("marine", 11, 17)])
    after, step = act(env, state, [FIRST, STOP], [FIRST + 2])
    np.testing.assert_array_equal(after.health, [0, 45, 0, 45, 0, 0])
    assert (after.x[0], after.y[0]) == (8, 16)
    assert not step.observation["ally"][0].any()
    assert step.observation["ally"][1].any()
    # Nobody sees it, nor can anybody aim at it.
    assert not step.observation["ally"][1, :13].any()
    legal = env.available_actions(state)
    assert legal["ally"][0].all()
    np.testing.assert_array_equal(legal["enemy"][0], [1, 1, 1, 1, 1, 0, 1, 0])
    np.testing.assert_array_equal(env.alive(state), [False, True, False, True, False, False])


def test_what_is_observed():
    env = battle(map_width=40.0)
    allies = (
        Unit("marine", 8, 16, health=30, wait=0.305),
        Unit("zealot", 9, 12, health=75, wait=-1.0),
        Unit("zealot", 30, 12),
    )
    enemies = (
        Unit("hydralisk", 10, 20, wait=3.0),
        Unit("marine", 10, 16, health=0),
        Unit("stalker", 12, 15, health=40),
    )
    state = placed(env, allies, enemies)._replace(
        move_x=jnp.float32([1, 0, 0, 0, 0, 0]),
        move_y=jnp.float32([0, 0, 0, -1, 0, 0]),
        target=jnp.int32([-1, 2, -1, -1, -1, 0]),
    )
    observation = _observe(env, state)
    bits = dict(zip(UNIT_NAMES, np.eye(6), strict=True))

    def seen(health, x, y, move, target, wait, unit):
        return [health, x, y, *move, target, wait, *bits[unit]]

    # The marine sees as far as 9. Its comrade attacks the last enemy, the last action (7 of 7).
    first = [
        *seen(0.5, 1 / 9, -4 / 9, (0, 0), 1.0, 0, "zealot"),
        *[0] * 13,
        *seen(1.0, 2 / 9, 4 / 9, (0, -1), 0, 1, "hydralisk"),
        *[0] * 13,
        *seen(0.25, 4 / 9, -1 / 9, (0, 0), 1.0, 0, "stalker"),  # attacks the ally counted last
        *(30 / 45, 8 / 40, 16 / 32, 0.5, *bits["marine"]),
    ]
    np.testing.assert_allclose(observation["ally"][0], first, atol=1e-6)
    # The stalker sees as far as 10, and lists all in reverse, itself left out.
    last = [
        *[0] * 13,
        *seen(1.0, -2 / 10, 5 / 10, (0, -1), 0, 1, "hydralisk"),
        *[0] * 13,
        *seen(0.5, -3 / 10, -3 / 10, (0, 0), 1.0, 0, "zealot"),
        *seen(30 / 45, -4 / 10, 1 / 10, (1, 0), 0, 0.5, "marine"),
        *(40 / 160, 12 / 40, 15 / 32, 0, *bits["stalker"]),
    ]
    np.testing.assert_allclose(observation["enemy"][2], last, atol=1e-6)
    hidden = _observe(battle(see_enemy_actions=False), state)["ally"][0]
    np.testing.assert_allclose(hidden[3:6], [0, 0, 1], atol=1e-6)
    assert not hidden[29:32].any()
    assert not hidden[55:58].any()
    np.testing.assert_allclose(hidden[jnp.array([26, 52])], [1.0, 0.25])
    # One step too far for the marine, not for the stalker.
    state = state._replace(x=state.x.at[5].set(17.1), y=state.y.at[5].set(16))
    observation = _observe(env, state)
    assert not observation["ally"][0, 52:65].any()
    assert observation["enemy"][2, 52:65].any()


def test_the_global_state_and_the_masks():
    env = battle()
    allies = Unit("marine", 8, 16, health=30, wait=0.305), Unit("zealot", 9, 12, wait=-1.0)
    state = placed(env, allies, [Unit("hydralisk", 12, 17)])
    expected = [
        *(30 / 45, 8, 16, 0.305, 1, 0, 0, 0, 0, 0),
        *(1.0, 9, 12, -1.0, 0, 0, 0, 1, 0, 0),
        *[0] * 10,
        *(1.0, 12, 17, 0, 0, 0, 0, 0, 0, 1),
        *[0] * 20,
        *(0, 0, 0, 1, 1, 1),
        *(0, 3, 0, 5, 0, 0),
    ]
    np.testing.assert_allclose(env.global_state(state), expected, atol=1e-6)
    assert env.global_state_space.shape == (72,)
    legal = env.available_actions(state)
    moves = [1, 1, 1, 1, 1]
    # The marine shoots 5 far and is 4.12 away, the zealot 2.
    np.testing.assert_array_equal(legal["ally"][:2], [[*moves, 1, 0, 0], [*moves, 0, 0, 0]])
    # The hydralisk shoots 5 far as well: the zealot is 5.83 away.
    np.testing.assert_array_equal(legal["enemy"][0], [*moves, 0, 0, 1])


def test_the_view_by_sectors():
    env = battle(observation_type="conic")
    # From the second ally: the first lies due east but a bit north, two more behind it, and one enemy
    # to the south-west.
    allies = Unit("marine", 18, 16.1), Unit("marine", 16, 16), Unit("marine", 19, 16.2)
    enemies = Unit("zealot", 15, 15.01), Unit("marine", 20, 16.3)
    observation = _observe(env, placed(env, allies, enemies))
    assert observation["ally"].shape == (3, 64 * 13 + 10)
    slots = np.asarray(observation["ally"][1, :-10]).reshape(32, 2, 13)
    assert set(zip(*np.nonzero(slots[..., 0]), strict=True)) == {(16, 0), (16, 1), (3, 0)}
    np.testing.assert_allclose(slots[16, 0, 1:3], [2 / 9, 0.1 / 9], atol=1e-6)
    np.testing.assert_allclose(slots[16, 1, 1:3], [3 / 9, 0.2 / 9], atol=1e-6)
    np.testing.assert_allclose(slots[3, 0, 1:3], [-1 / 9, -0.99 / 9], atol=1e-6)
    np.testing.assert_allclose(observation["ally"][1, -10:-6], [1, 0.5, 0.5, 0], atol=1e-6)
    # The dead are not seen and leave room for others.
    fallen = allies[0]._replace(health=0)
    observation = _observe(env, placed(env, [fallen, *allies[1:]], enemies))
    slots = np.asarray(observation["ally"][1, :-10]).reshape(32, 2, 13)
    np.testing.assert_allclose(slots[16, :, 1], [3 / 9, 4 / 9], atol=1e-6)
    assert not observation["ally"][0].any()


def commanded(enemy, allies, memory, attack_mode="closest", chase=1.0, choice=1.0, shoots=True):
    """The action of a single enemy marine at a place, by the built-in commander.

    Allies are numbered as the enemy does, the last one first.
    """
    column = jnp.float32(allies).T[..., None]
    zeros = jnp.zeros((1, 1))
    kind = [values[0].reshape(1, 1) for values in STARCRAFT_UNITS]
    action, memory = heuristic.decide(
        rules.Units(zeros + enemy[0], zeros + enemy[1], zeros + 45, zeros),
        rules.Abilities(*kind),
        rules.Units(column[0], column[1], column[2], jnp.zeros_like(column[0])),
        heuristic.Memory(zeros + memory[0], zeros + memory[1], jnp.full((1, 1), memory[2])),
        zeros + chase,
        zeros + choice,
        shoots,
        attack_mode,
    )
    return int(action[0, 0]), int(memory.target[0, 0])


def test_the_built_in_enemy():
    heading = (8.0, 4.0, -1)
    nobody, far, near = (25, 25, 45), (20, 15, 45), (17, 16, 45)
    # Nobody in sight: along the longer side of the way to where it heads for.
    assert commanded((16, 16), [nobody, nobody], heading) == (SOUTH, -1)
    assert commanded((2, 5), [nobody, nobody], heading) == (EAST, -1)
    # In sight, out of range: towards the one drawn.
    seen = [(16, 24.5, 45), (9, 16, 45), (16, 23.5, 0)]
    assert commanded((16, 16), seen, heading, chase=0.5) == (NORTH, -1)
    assert commanded((16, 16), seen, heading, chase=0.51) == (WEST, -1)
    # In range: the closest, and the same again while it stays in range.
    assert commanded((16, 16), [far, near], heading) == (FIRST + 1, 1)
    assert commanded((16, 16), [far, near], (8.0, 4.0, 0)) == (FIRST, 0)
    assert commanded((16, 16), [nobody, near], (8.0, 4.0, 0)) == (FIRST + 1, 1)
    assert commanded((16, 16), [(17, 16, 0), far], (8.0, 4.0, 0)) == (FIRST + 1, 1)
    assert commanded((16, 16), [nobody, nobody], (8.0, 4.0, 1)) == (SOUTH, -1)
    # A random one, if asked for; the last drawn stays.
    three = [near, nobody, far]
    assert commanded((16, 16), three, heading, "random", choice=0.5) == (FIRST, 0)
    assert commanded((16, 16), three, heading, "random", choice=0.51) == (FIRST + 2, 2)
    assert commanded((16, 16), three, (8.0, 4.0, 2), "random", choice=0.5) == (FIRST + 2, 2)
    # One that does not shoot goes on walking.
    assert commanded((16, 16), [nobody, near], heading, shoots=False)[0] == EAST


def test_the_built_in_enemy_heads_for_the_mirror_image_of_its_start():
    env = Battle(scenario="3s_vs_5z", map_width=40.0)
    state, _ = env.reset(fast_key(3))
    np.testing.assert_allclose(state.memory.heading_x, 40 - state.x[3:], atol=1e-5)
    np.testing.assert_allclose(state.memory.heading_y, 32 - state.y[3:], atol=1e-5)
    assert (state.memory.target == -1).all()


def test_delays_are_drawn_from_one_instant_less_to_two_more():
    env = battle(opponent="heuristic")
    state = placed(env, [Unit("marine", 8, 16)], [Unit("zealot", 12, 16)])
    keys, action = jax.random.split(fast_key(4), 4000), jnp.int32([FIRST, STOP, STOP])
    state, _ = jax.jit(jax.vmap(lambda key: env.step(key, state, action)))(keys)
    delay = np.asarray(state.cooldown[:, 0]) - 0.61 + 7 / 16
    expected = np.random.default_rng(0).uniform(-1 / 16, 2 / 16, (4000, 1))
    assert same_distribution(delay[:, None], expected) > 1e-3


def test_two_shots_never_fall_into_one_action():
    # So that one delay for each action is all there is to draw.
    least = STARCRAFT_UNITS.cooldown.min() - 1 / 16
    assert np.ceil(least * 16) + 1 >= 8


def test_armies_start_face_to_face():
    env = Battle(scenario="2s3z")
    state, _ = jax.jit(jax.vmap(env.reset))(jax.random.split(fast_key(5), 50))
    np.testing.assert_array_equal(state.unit_type[7], [2, 2, 3, 3, 3] * 2)
    assert (np.abs(state.x[:, :5] - 8) < 4).all()
    assert (np.abs(state.x[:, 5:] - 24) < 4).all()
    assert (np.abs(state.y - 16) < 4).all()
    np.testing.assert_array_equal(state.health[0], [160, 160, 150, 150, 150] * 2)


def test_armies_start_around_or_opposite_each_other():
    armies = Scenario(("marine",) * 4, ("marine",) * 6, random_types=True, random_positions=True)
    # So small that nobody is pushed.
    env = Battle(
        scenario=armies, unit_types=STARCRAFT_UNITS._replace(radius=np.full(6, 1e-6, np.float32))
    )
    state, _ = jax.jit(jax.vmap(env.reset))(jax.random.split(fast_key(6), 3000))
    x, y = np.asarray(state.x), np.asarray(state.y)
    inside = (np.abs(x - 16) <= 2) & (np.abs(y - 16) <= 2)
    opposite = np.isclose(x[:, :4], 32 - x[:, 4:8], atol=1e-4) & np.isclose(y[:, :4], y[:, 4:8])
    case = np.where(
        inside[:, :4].all(1),
        "allies inside",
        np.where(inside[:, 4:].all(1), "enemies inside", "opposite"),
    )
    assert opposite.all(1)[case == "opposite"].all()
    expected = {"allies inside": 0.25, "enemies inside": 0.25, "opposite": 0.5}
    assert matches_probabilities(case, expected) > 1e-3
    # Those outside stand towards the corners, on the diagonals up to 2.
    outer_x, outer_y = (np.abs(v[case == "allies inside", 4:] - 16) for v in (x, y))
    assert (np.abs(outer_x - outer_y) <= 4).all()
    assert outer_x.max() > 15
    np.testing.assert_array_equal(state.unit_type[:, :4], state.unit_type[:, 4:8])
    assert matches_probabilities(state.unit_type[:, 9], dict.fromkeys(range(6), 1 / 6)) > 1e-3
    np.testing.assert_array_equal(state.health, STARCRAFT_UNITS.health[state.unit_type])


def test_every_size_of_batch_gives_the_same():
    def function(one, many, shared):
        return {"sum": (many * shared).sum(0) + one, "turned": many[::-1], "shared": shared[0]}

    blocks = batch_last(function, 1 << 14)  # of 16
    rng = np.random.default_rng(0)
    one, many = jnp.float32(rng.normal(size=37)), jnp.float32(rng.normal(size=(37, 5, 3)))
    shared = jnp.float32(rng.normal(size=(5, 3)))
    results = jax.vmap(blocks, (0, 0, None))(one, many, shared)
    np.testing.assert_allclose(
        results["sum"], (many * shared).sum(1) + one[:, None], rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(results["turned"], many[:, ::-1])
    np.testing.assert_array_equal(results["shared"], np.broadcast_to(shared[0], (37, 3)))
    nested = jax.vmap(jax.vmap(blocks, (0, 0, None)), (0, 0, None))
    halves = nested(one[:36].reshape(2, 18), many[:36].reshape(2, 18, 5, 3), shared)
    np.testing.assert_allclose(halves["sum"].reshape(36, 3), results["sum"][:36], rtol=1e-6)
    single = blocks(one[3], many[3], shared)
    np.testing.assert_allclose(single["sum"], results["sum"][3], rtol=1e-6)


def test_environments_in_a_batch_may_have_their_own_units_and_maps():
    start = placed(battle(), [Unit("marine", 8, 16)], [Unit("marine", 24, 16)])
    stop = jnp.full(3, STOP)
    actions = {"ally": stop.at[0].set(NORTH), "enemy": stop.at[0].set(EAST)}

    def walk(speed, width):
        types = STARCRAFT_UNITS._replace(speed=speed)
        env = battle(unit_types=types, map_width=width)
        return env.step(fast_key(0), start, actions)

    speed = jnp.stack([jnp.asarray(STARCRAFT_UNITS.speed), jnp.full(6, 1.0)])
    state, _ = jax.jit(jax.vmap(walk))(speed, jnp.float32([24.5, 32.0]))
    np.testing.assert_allclose(state.y[:, 0], [17.575, 16.5], atol=1e-5)
    np.testing.assert_allclose(state.x[:, 3], [24.5, 24.5], atol=1e-5)
    np.testing.assert_array_equal(state.health[:, 3], [0, 45])


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_has_its_armies_and_a_time_limit(name):
    env = make_environment(f"smax/{name}")
    assert env.max_episode_steps == 100
    inner = env.unwrapped
    counts = {
        "3m": (3, 3),
        "2s3z": (5, 5),
        "25m": (25, 25),
        "3s5z": (8, 8),
        "8m": (8, 8),
        "5m_vs_6m": (5, 6),
        "10m_vs_11m": (10, 11),
        "27m_vs_30m": (27, 30),
        "3s5z_vs_3s6z": (8, 9),
        "3s_vs_5z": (3, 5),
        "6h_vs_8z": (6, 8),
        "smacv2_5_units": (5, 5),
        "smacv2_10_units": (10, 10),
        "smacv2_20_units": (20, 20),
    }
    allies, enemies = counts[name]
    assert (inner.num_allies, inner.num_enemies) == (allies, enemies)
    assert env.possible_agents[-1] == f"ally_{allies - 1}"
    assert env.action_space.space.n == 5 + enemies
    assert env.observation_space.shape == (allies, 13 * (allies + enemies - 1) + 10)
    both = make_environment(f"smax/{name}", opponent="learned")
    assert both.possible_agents[-1] == f"enemy_{enemies - 1}"
    assert both.action_space["enemy"].space.n == 5 + allies


def test_the_whole_battle_in_words():
    env = battle()
    allies = Unit("marine", 8, 16, health=30, wait=-1), Unit("zealot", 9, 12, health=75, wait=0.5)
    state = placed(env, allies, [Unit("stalker", 12, 17, wait=1.0)])._replace(
        move_y=jnp.float32([-1, 0, 0, 0, 0, 0]),
        target=jnp.int32([-1, 0, -1, 1, -1, -1]),
        shot=jnp.arange(6) == 3,
    )
    text = env.describe(state)
    for line in (
        "A battle of 3 allies against 3 enemies on a map 32 wide",
        "its border is deadly",
        "stalker: health 160, damage 13 each 1.87 s within 6, sees as far as 10",
        "Allies, 2 of 3 alive:",
        "ally_0 marine: at (8.00, 16.00), health 30/45, weapon ready, moved south, can attack enemy_0 "
        "(action 5, 4.1 away)",
        "ally_1 zealot: at (9.00, 12.00), health 75/150, weapon ready in 0.50 s, aimed at enemy_0, "
        "nobody within its range of 2, sees enemy_0 (5.8 away)",
        "ally_2 marine: dead",
        "Enemies, 1 of 3 alive:",
        "enemy_0 stalker: at (12.00, 17.00), health 160/160, weapon ready in 1.00 s, shot at ally_1, "
        "can attack ally_1 (action 6, 5.8 away), ally_0 (action 7, 4.1 away)",
    ):
        assert line in text
    assert "hydralisk" not in text
    assert "deadly" not in battle(walls_cause_death=False).describe(state)


def pixels_of(picture, color):
    rgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(picture.astype(int) - rgb).max(-1) < 8).sum())


def test_the_picture_shows_armies_shots_and_health():
    env = battle()
    allies = Unit("marine", 8, 16), Unit("zealot", 9, 12)
    state = placed(env, allies, [Unit("stalker", 12, 17), Unit("marine", 12, 14)])
    quiet = env.render(state)
    assert quiet.shape[1] == 800
    shooting = env.render(
        state._replace(shot=jnp.arange(6) == 0, target=jnp.int32([0, -1, -1, -1, -1, -1]))
    )
    blue, light_blue, orange, green = "#0072b2", "#56b4e9", "#d55e00", "#009e73"
    assert pixels_of(quiet, blue) > 2000
    assert pixels_of(quiet, orange) > 2000
    assert pixels_of(shooting, light_blue) > pixels_of(quiet, light_blue) + 200
    hurt = env.render(state._replace(health=state.health.at[3].set(1)))
    assert pixels_of(hurt, green) < pixels_of(quiet, green) - 100
    # Units far apart are shown on the whole map, where each is smaller.
    spread = env.render(state._replace(x=state.x.at[0].set(1), y=state.y.at[1].set(31)))
    assert pixels_of(spread, orange) < pixels_of(quiet, orange) / 2
    dead = env.render(state._replace(health=jnp.zeros(6)))
    assert pixels_of(dead, orange) < pixels_of(spread, orange)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"opponent": "random"}, "opponent='random' is not one of 'heuristic', 'learned'"),
        ({"observation_type": "list"}, "'unit_list'"),
        ({"attack_mode": "closet"}, "Did you mean 'closest'?"),
        ({"enemy_shoots": 1}, "enemy_shoots=1 must be True or False"),
        ({"world_steps_per_env_step": 0}, "the nearest valid value is 1"),
        ({"world_steps_per_env_step": 10**9}, "the nearest valid value is 1000"),
        ({"map_width": 0}, "map_width=0 .*the nearest valid value is 8"),
        ({"unit_types": 3}, "unit_types=3 must be UnitTypes"),
        (
            {"unit_types": STARCRAFT_UNITS._replace(health=[np.nan] * 6)},
            "health=.* finite numbers",
        ),
        (
            {"unit_types": STARCRAFT_UNITS._replace(speed=np.ones(5))},
            r"speed=.* finite numbers of the shape \[6\], one for each of marine",
        ),
    ],
)
def test_settings_that_do_not_exist_are_refused(settings, words):
    with pytest.raises(InvalidValueError, match=words):
        Battle(**settings)


def test_unknown_scenarios_and_units_are_answered_with_near_ones():
    with pytest.raises(UnknownNameError, match="Did you mean '3s5z_vs_3s6z'"):
        Battle(scenario="3s5z_vs_3s6")
    with pytest.raises(UnknownNameError, match="'smax/6h_vs_8z'"):
        make_environment("smax/6h_vs_8")
    with pytest.raises(UnknownNameError, match=r"Unknown scenario '{}'"):
        Battle(scenario={})
    with pytest.raises(InvalidValueError, match="Did you mean 'zealot'"):
        Scenario(("marine",), ("zealots",))
    with pytest.raises(InvalidValueError, match=r"allies=\(\) must have at least one unit"):
        Scenario((), ("zealot",))
