"""Battles against JaxMARL's SMAX: from equal states, with equal draws, the same comes of each action."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kiloworlds.core.random import fast_key
from kiloworlds.envs.multiagent.battle import heuristic, rules
from kiloworlds.envs.multiagent.battle.environment import Battle, BattleState, Draws
from kiloworlds.testing.distributions import same_distribution

jaxmarl = pytest.importorskip("jaxmarl", reason="needs the extra peers")
smax = pytest.importorskip("jaxmarl.environments.smax")
heuristic_enemy = pytest.importorskip("jaxmarl.environments.smax.heuristic_enemy_smax_env")

CLOSE = {"rtol": 1e-4, "atol": 2e-5}


def peer_of(scenario, learned=False, **settings):
    name = "SMAX" if learned else "HeuristicEnemySMAX"
    return jaxmarl.make(name, scenario=smax.map_name_to_scenario(scenario), **settings)


def from_peer(env, peer_state):
    """Our state with the peer's contents."""
    has_memory = env.opponent == "heuristic"
    units = peer_state.state if has_memory else peer_state
    num_allies = env.num_allies
    attack = np.asarray(units.prev_attack_actions)
    number = attack - 5
    target = np.append(number[:num_allies], num_allies - 1 - number[num_allies:])
    memory = None
    if has_memory:
        policy = peer_state.enemy_policy_state
        heading = np.asarray(policy.default_target)
        if not np.asarray(heading).any():  # the peer sets it with the first action
            heading = [32.0, 32.0] - np.asarray(units.unit_positions)[num_allies:]
        last = jnp.asarray(policy.last_attacked_enemy, jnp.int32)
        memory = heuristic.Memory(jnp.float32(heading[:, 0]), jnp.float32(heading[:, 1]), last)
    return BattleState(
        units.unit_positions[:, 0],
        units.unit_positions[:, 1],
        units.unit_health,
        units.unit_weapon_cooldowns,
        jnp.asarray(units.unit_types, jnp.int32),
        units.prev_movement_actions[:, 0],
        units.prev_movement_actions[:, 1],
        jnp.asarray(np.where(attack == 0, -1, target), jnp.int32),
        jnp.zeros(attack.shape, bool),
        memory,
    )


def delays(env, before, sequence):
    """What the peer drew for each unit's shot: its cooldown rises at none but that instant."""
    cooldown = np.asarray(sequence.unit_weapon_cooldowns)
    steps = np.diff(cooldown, axis=0, prepend=np.asarray(before.unit_weapon_cooldowns)[None])
    instant = np.argmax(steps > 0, axis=0)
    shot = (steps > 0).any(0)
    assert (steps > 0).sum(0).max() <= 1  # a unit never shoots twice during an action
    full = np.asarray(env.unit_types.cooldown)[np.asarray(before.unit_types)]
    drawn = cooldown[instant, np.arange(len(full))] - full
    return jnp.float32(np.where(shot, drawn, 0.0)), shot


def peer_draws(num_enemies, key):
    """The peer's draws for its heuristic, from the key of a step."""
    _, action_key = jax.random.split(key)
    pairs = jax.vmap(jax.random.split)(jax.random.split(action_key, num_enemies))
    chase, choice = (jax.vmap(jax.random.uniform)(pairs[:, side]) for side in (0, 1))
    return 1 - chase, 1 - choice


def eager_for_battle(mask, rng):
    """A random legal action; often an attack, else often the last of the moves."""
    legal = np.flatnonzero(mask)
    attacks = legal[legal > 4]
    if len(attacks) and rng.random() < 0.8:
        return rng.choice(attacks)
    return 1 if rng.random() < 0.6 and mask[1] else rng.choice(legal)


def peer_functions(peer, learned):
    """The peer's step as the states of all instants and what its heuristic remembers then; its rewards
    and views. Compiled apart, for each is slow to compile."""

    def step(key, state, actions):
        sequence = peer.step_env(key, state, actions, get_state_sequence=True)
        if learned:
            return sequence, None
        seen = peer.get_obs_unit_list(state.state)
        seen = jnp.stack([seen[agent] for agent in peer.enemy_agents])
        _, action_key = jax.random.split(key)
        return sequence, peer.get_enemy_actions(action_key, state.enemy_policy_state, seen)[1]

    def view(state):
        return peer.get_obs(state), peer.get_avail_actions(state), peer.get_world_state(state)

    return jax.jit(step), jax.jit(peer.compute_reward), jax.jit(view)


def run_along(env, peer, steps, seed):
    """Steps both from the peer's states; yields what each says of every step."""
    rng = np.random.default_rng(seed)
    learned = env.opponent == "learned"
    key = jax.random.PRNGKey(seed)
    step = jax.jit(lambda draws, state, action: env.step_with(draws, state, action))
    see = jax.jit(lambda s: (env.observe(s), env.available_actions(s), env.global_state(s)))
    peer_step, peer_reward, peer_view = peer_functions(peer, learned)
    _, peer_state = peer.reset(key)
    for _ in range(steps):
        key, step_key = jax.random.split(key)
        views = peer_view(peer_state)
        masks = {agent: np.asarray(mask) for agent, mask in views[1].items()}
        before = peer_state if learned else peer_state.state
        yield "view", see(from_peer(env, peer_state)), views, before
        actions = {agent: eager_for_battle(mask, rng) for agent, mask in masks.items()}
        sequence, memory = peer_step(step_key, peer_state, actions)
        delay, shot = delays(env, before, sequence)
        draws = Draws(delay, *peer_draws(env.num_enemies, step_key))
        arrays = [jnp.int32([actions[f"ally_{i}"] for i in range(env.num_allies)])]
        if learned:
            arrays.append(jnp.int32([actions[f"enemy_{i}"] for i in range(env.num_enemies)]))
        ours = dict(zip(("ally", "enemy"), arrays, strict=True)) if learned else arrays[0]
        after = jax.tree.map(lambda leaf: leaf[-1], sequence)
        rewards = peer_reward(after, before.unit_health, after.unit_health)
        our_step = step(draws, from_peer(env, peer_state), ours)
        acting = np.asarray(before.unit_alive)
        peer_state = (
            after if learned else peer_state.replace(state=after, enemy_policy_state=memory)
        )
        yield "step", our_step, (peer_state, after, rewards, acting), shot
        if bool(our_step[1].terminated):
            key, reset_key = jax.random.split(key)
            _, peer_state = peer.reset(reset_key)


def check_seen(env, ours, theirs, alive):
    """Observations, masks and the global state of one state."""
    observation, legal, everything = ours
    peer_observation, peer_legal, peer_everything = theirs
    blocks = {"ally": observation} if env.opponent == "heuristic" else observation
    masks = {"ally": legal} if env.opponent == "heuristic" else legal
    for kind, block in blocks.items():
        for index, seen in enumerate(np.asarray(block)):
            agent = f"{kind}_{index}"
            np.testing.assert_allclose(seen, peer_observation[agent], **CLOSE, err_msg=agent)
            unit = index if kind == "ally" else env.num_allies + index
            mask = np.asarray(masks[kind][index])
            if alive[unit]:
                np.testing.assert_array_equal(mask, peer_legal[agent].astype(bool))
            else:
                assert mask.all()
                assert not seen.any()
    np.testing.assert_allclose(everything, peer_everything, **CLOSE)


def check_state(env, state, observation, peer_state, acting):
    expected = from_peer(env, peer_state)
    for name in ("x", "y", "health", "cooldown", "target"):
        ours, theirs = np.asarray(getattr(state, name)), np.asarray(getattr(expected, name))
        np.testing.assert_allclose(ours, theirs, **CLOSE, err_msg=name)
    for name in ("move_x", "move_y"):  # what the dead are told to do differs, and nobody sees it
        ours, theirs = np.asarray(getattr(state, name)), np.asarray(getattr(expected, name))
        np.testing.assert_allclose(ours[acting], theirs[acting], **CLOSE, err_msg=name)
    seen = env.observe(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), observation, seen)
    if env.opponent == "heuristic":
        alive = np.asarray(expected.health)[env.num_allies :] > 0
        for ours, theirs in zip(state.memory, expected.memory, strict=True):
            np.testing.assert_allclose(ours[alive], theirs[alive], **CLOSE)


@pytest.mark.parametrize(
    ("scenario", "settings"),
    [
        ("3m", {}),
        ("5m_vs_6m", {"attack_mode": "random", "see_enemy_actions": False}),
        ("3s_vs_5z", {"won_battle_bonus": 2.5}),
        ("6h_vs_8z", {"enemy_shoots": False, "world_steps_per_env_step": 5}),
        ("smacv2_5_units", {"walls_cause_death": False}),
    ],
)
def test_the_same_comes_of_every_action(scenario, settings):
    env = Battle(scenario=scenario, **settings)
    peer = peer_of(scenario, **settings)
    ends, shots, rewards = set(), 0, []
    for what, ours, theirs, more in run_along(env, peer, steps=90, seed=3):
        if what == "step":
            state, step = ours
            peer_state, peer_units, peer_reward, acting = theirs
            check_state(env, state, step.observation, peer_state, acting)
            alive = np.asarray(peer_units.unit_alive)
            np.testing.assert_array_equal(state.shot, more)
            np.testing.assert_allclose(
                step.reward, [peer_reward[f"ally_{i}"] for i in range(env.num_allies)], **CLOSE
            )
            ally, enemy = alive[: env.num_allies].any(), alive[env.num_allies :].any()
            assert bool(step.terminated) == (not ally or not enemy)
            assert bool(step.info["won"]) == (ally and not enemy)
            if step.terminated:
                ends.add("won" if step.info["won"] else "lost")
            shots += int(np.sum(more))
            rewards.append(float(step.reward[0]))
        else:
            check_seen(env, ours, theirs, np.asarray(more.unit_alive))
    assert ends
    assert shots > 50
    assert np.ptp(rewards) > 0


@pytest.mark.parametrize("scenario", ["3s_vs_5z", "smacv2_5_units"])
def test_the_same_comes_of_every_action_where_enemies_are_agents(scenario):
    env = Battle(scenario=scenario, opponent="learned", use_self_play_reward=True)
    peer = peer_of(scenario, learned=True, use_self_play_reward=True)
    ends = 0
    for what, ours, theirs, more in run_along(env, peer, steps=60, seed=5):
        if what == "step":
            state, step = ours
            peer_state, _, peer_reward, acting = theirs
            check_state(env, state, step.observation, peer_state, acting)
            names = env.possible_agents
            expected = np.array([peer_reward[name] for name in names])
            np.testing.assert_allclose(step.reward, np.where(acting, expected, 0.0), **CLOSE)
            ends += bool(step.terminated)
        else:
            check_seen(env, ours, theirs, np.asarray(more.unit_alive))
    assert ends


def test_units_are_pushed_apart_alike_where_they_crowd():
    env, peer = Battle(scenario="smacv2_10_units"), peer_of("smacv2_10_units")
    _, peer_state = peer.reset(jax.random.PRNGKey(0))
    rng = np.random.default_rng(0)
    for _ in range(5):
        units = peer_state.state.replace(
            unit_positions=jnp.float32(rng.normal(16, 1.0, (20, 2))),
            unit_alive=jnp.asarray(rng.random(20) < 0.8),
            unit_types=jnp.asarray(rng.integers(0, 6, 20), jnp.uint8),
        )
        x, y = rules.push_apart(
            units.unit_positions[:, 0],
            units.unit_positions[:, 1],
            units.unit_alive,
            jnp.asarray(env.unit_types.radius[np.asarray(units.unit_types)]),
        )
        pushed = peer._push_units_away(units).unit_positions
        assert float(jnp.abs(pushed - units.unit_positions).max()) > 0.1
        np.testing.assert_allclose(jnp.stack([x, y], 1), pushed, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scenario", ["5m_vs_6m", "smacv2_5_units"])
def test_battles_start_alike(scenario):
    env, peer = Battle(scenario=scenario), peer_of(scenario)
    state, _ = jax.jit(jax.vmap(env.reset))(jax.random.split(fast_key(1), 3000))
    _, peer_state = jax.jit(jax.vmap(peer.reset))(jax.random.split(jax.random.PRNGKey(1), 3000))
    units = peer_state.state
    for unit in (0, env.num_allies):
        theirs = np.asarray(units.unit_positions[:, unit])
        ours = np.stack([state.x[:, unit], state.y[:, unit]], axis=1)
        assert same_distribution(ours, theirs) > 1e-3
        # Of both armies together, for how they stand to each other.
        other = (unit + env.num_allies) % (env.num_allies + env.num_enemies)
        apart = np.hypot(ours[:, 0] - state.x[:, other], ours[:, 1] - state.y[:, other])
        their_apart = np.linalg.norm(theirs - units.unit_positions[:, other], axis=-1)
        assert same_distribution(apart[:, None], their_apart[:, None]) > 1e-3
        types = np.asarray(units.unit_types[:, [unit, other]], np.int32)
        assert same_distribution(state.unit_type[:, [unit, other]], types) > 1e-3
    np.testing.assert_array_equal(np.unique(state.cooldown), np.unique(units.unit_weapon_cooldowns))


def test_sectors_are_seen_alike_where_all_live_and_the_first_ally_is_far():
    env = Battle(scenario="smacv2_5_units", observation_type="conic")
    peer = peer_of("smacv2_5_units", observation_type="conic")
    _, peer_state = peer.reset(jax.random.PRNGKey(2))
    observe, peer_observe = jax.jit(lambda s: env.observe(s)), jax.jit(peer.get_obs)
    rng = np.random.default_rng(2)
    seen = 0
    for _ in range(20):
        positions = rng.uniform(12, 28, (10, 2))
        positions[0] = 0.5, 0.5
        units = peer_state.state.replace(
            unit_positions=jnp.float32(positions),
            unit_health=peer_state.state.unit_health * jnp.float32(rng.uniform(0.1, 1, 10)),
            unit_weapon_cooldowns=jnp.float32(rng.uniform(-1, 1, 10)),
            prev_movement_actions=jnp.float32(rng.normal(size=(10, 2))),
            prev_attack_actions=jnp.asarray(rng.choice([0, 5, 6, 9], 10), jnp.int32),
        )
        state = peer_state.replace(state=units)
        theirs = peer_observe(state)
        ours = np.asarray(observe(from_peer(env, state)))
        for index in range(1, 5):
            np.testing.assert_allclose(ours[index], theirs[f"ally_{index}"], **CLOSE)
        seen += int((ours[1:, : 64 * 13 : 13] > 0).sum())
    assert seen > 200
