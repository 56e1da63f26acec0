import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled_multi_agent_envs import Hunt, Relay

import kiloworlds as kw
from kiloworlds.compat import jaxmarl as ours
from kiloworlds.compat.jaxmarl_names import NAMES, Entry
from kiloworlds.core.errors import InvalidValueError, UnknownNameError
from kiloworlds.core.time_limit import with_time_limit

KEY = jax.random.PRNGKey(0)
OFFERED = [name for name, entry in NAMES.items() if isinstance(entry, Entry)]


def test_the_interface_with_dying_agents():
    env = ours.JaxMARLEnv(Relay(bonus=2.0), world_state=True)
    assert env.agents == ["runner_0", "runner_1", "runner_2"]
    assert env.num_agents == 3
    assert env.agent_classes == {"runner": env.agents}
    assert env.action_space("runner_1").n == 4
    assert env.observation_space("runner_1").shape == (2,)
    observations, state = env.reset(KEY)
    start = observations["world_state"][0]
    assert observations["runner_1"].tolist() == [start + 1, 1]
    masks = env.get_avail_actions(state)
    assert masks["runner_1"].tolist() == [True, True, False, False]
    assert env.get_legal_moves(state).keys() == masks.keys()
    actions = {"runner_0": 0, "runner_1": 1, "runner_2": 2}
    observations, state, rewards, dones, infos = env.step(KEY, state, actions)
    assert rewards == {"runner_0": 0, "runner_1": 12, "runner_2": 24}
    assert dones == {"runner_0": True, "runner_1": False, "runner_2": False, "__all__": False}
    assert observations["runner_0"].tolist() == [0, 0]
    assert observations["world_state"].tolist() == [start, 1]
    assert infos["shaped_reward"] == {"runner_0": 0, "runner_1": 6, "runner_2": 12}
    assert infos["won"].tolist() == infos["truncated"].tolist() == [False] * 3
    assert env.get_obs(state)["runner_2"].tolist() == [start + 1, 2]
    _, state, *_ = env.step(KEY, state, actions)
    last, after, *_ = env.step_env(KEY, state, actions)
    assert last["world_state"].tolist() == [start, 3]
    assert int(after.steps) == 3
    first, state, rewards, dones, infos = env.step(KEY, state, actions)
    assert rewards == {"runner_0": 0, "runner_1": 0, "runner_2": 24}
    assert all(dones.values())
    assert infos["won"].all()
    assert int(state.steps) == 0
    assert first["runner_0"].tolist() == [float(state.start) + 1, 1]
    assert float(state.start) != start


def test_a_given_state_to_start_over_from():
    env = ours.JaxMARLEnv(with_time_limit(Hunt(), 1))
    actions = {"hunter_0": 0, "hunter_1": 0, "prey": 1}
    _, state = env.reset(KEY)
    _, wanted = env.reset(jax.random.PRNGKey(5))
    observations, state, _, dones, infos = env.step(KEY, state, actions, wanted)
    assert dones["__all__"]
    assert infos["truncated"].all()
    jax.tree.map(np.testing.assert_array_equal, state, wanted)
    assert observations["prey"].tolist() == [wanted.inner.place]
    assert observations["hunter_1"].shape == (3,)


def test_keys_of_every_kind_and_streams():
    env = ours.JaxMARLEnv(Relay())
    typed = jax.random.key(0)
    assert env.reset(KEY)[1].start == env.reset(typed)[1].start
    keys = jax.random.split(jax.random.key(1, impl="rbg"), 64)
    starts = jax.vmap(env.reset)(keys)[1].start
    assert len(np.unique(starts)) > 50
    sequence = jnp.stack([jax.random.PRNGKey(seed) for seed in range(64)])
    assert len(np.unique(jax.vmap(env.reset)(sequence)[1].start)) > 50


def test_under_jit_vmap_and_scan():
    env = ours.JaxMARLEnv(with_time_limit(Hunt(), 3))
    calm = {"hunter_0": 0, "hunter_1": 0, "prey": 2}

    def rollout(key):
        _, state = env.reset(key)

        def advance(state, key):
            _, state, rewards, dones, _ = env.step(key, state, calm)
            return state, (rewards, dones["__all__"], state.inner.place)

        return jax.lax.scan(advance, state, jax.random.split(key, 12))[1]

    rewards, over, places = jax.jit(jax.vmap(rollout))(jax.random.split(KEY, 16))
    assert over.tolist() == [[False, False, True] * 4] * 16
    assert (rewards["prey"] == 2).all()
    assert len(np.unique(places[:, 2::3])) == 4  # each start is drawn anew


def test_renamed_and_reordered_agents():
    env = ours.JaxMARLEnv(Relay(), agents=("a", "b", "c"), order=("c", "a", "b"), team_reward=True)
    assert env.agents == ["c", "a", "b"]
    _, state = env.reset(KEY)
    _, state, rewards, dones, infos = env.step(KEY, state, {"a": 0, "b": 1, "c": 2})
    assert rewards == {"a": 0, "b": 11, "c": 22, "__all__": 0}
    assert dones["a"]
    assert not dones["c"]
    assert infos["shaped_reward"] == {"a": 0, "b": 5.5, "c": 11}


def test_what_is_wrong_is_named():
    env = ours.JaxMARLEnv(Relay())
    _, state = env.reset(KEY)
    with pytest.raises(InvalidValueError, match="no action of agent 'runner_1'"):
        env.step(KEY, state, {"runner_0": 0, "runner_2": 0})
    with pytest.raises(InvalidValueError, match=r"'runer_1' is no agent of Relay.*'runner_1'"):
        env.action_space("runer_1")


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (None, "actions of type NoneType; give a dictionary"),
        (np.zeros(3, int), "actions of type ndarray; give a dictionary"),
        ({"bob": 1}, r"'bob' is no agent of Relay.* Its agents are"),
        ({"runner_1": 9}, r"action of agent 'runner_1' is 9, outside Discrete"),
        ({"runner_1": 2**40}, r"action of agent 'runner_1' is 1099511627776, outside Discrete"),
        ({"runner_1": 0.5}, r"action of agent 'runner_1' is 0.5, outside Discrete"),
        ({"runner_1": [0, [1]]}, r"action of agent 'runner_1' is \[0, \[1\]\]; it must be numbers"),
        ({"runner_1": None}, "action of agent 'runner_1' is None; it must be numbers of shape"),
        ({"runner_1": "left"}, "action of agent 'runner_1' is 'left'"),
        ({"runner_1": np.zeros(2, int)}, r"agent 'runner_1' has shape \(2,\); it must be \(\)"),
    ],
)
def test_actions_that_are_none(actions, message):
    env = ours.JaxMARLEnv(Relay())
    _, state = env.reset(KEY)
    if isinstance(actions, dict):
        actions = dict.fromkeys(env.agents, 0) | actions
    for step in (env.step, env.step_env):
        with pytest.raises(InvalidValueError, match=message):
            step(KEY, state, actions)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
def test_keys_of_every_generator(impl):
    env = ours.JaxMARLEnv(Relay())
    key = jax.random.key(0, impl=impl)
    for given in (key, jax.random.key_data(key)):
        observations, _ = env.reset(given)
        assert sorted(observations) == env.agents


@pytest.mark.parametrize("key", [0, None, "x", np.zeros(2), jnp.zeros((3, 2), jnp.uint32)])
def test_what_is_no_key(key):
    with pytest.raises(InvalidValueError, match="is not one key") as caught:
        ours.JaxMARLEnv(Relay()).reset(key)
    assert "Tracer" not in str(caught.value)


def test_continuous_actions_may_be_lists_but_not_nan():
    env = ours.make("MPE_simple_spread_v3", action_type="Continuous")
    _, state = env.reset(KEY)
    listed = env.step(KEY, state, dict.fromkeys(env.agents, (0, 0, 1.0, 0, 0)))
    arrays = env.step(KEY, state, dict.fromkeys(env.agents, jnp.array([0, 0, 1.0, 0, 0])))
    np.testing.assert_array_equal(listed[0]["agent_0"], arrays[0]["agent_0"])
    with pytest.raises(InvalidValueError, match="must be finite"):
        env.step(KEY, state, dict.fromkeys(env.agents, np.full(5, np.nan)))
    with pytest.raises(InvalidValueError, match="got the state None"):
        env.step(KEY, None, dict.fromkeys(env.agents, np.zeros(5)))


def test_one_environment_has_one_set_of_parameters():
    with pytest.raises(InvalidValueError, match=r"for kiloworlds\.make, which makes many"):
        ours.make("MPE_simple_spread_v3", local_ratio=np.array([0.5]))
    with pytest.raises(InvalidValueError, match="it must have 0 axes"):
        ours.make("MPE_simple_spread_v3", local_ratio=np.linspace(0, 1, 3))


def test_names_that_are_not_there():
    with pytest.raises(UnknownNameError, match=r"'MPE_simple_spred_v3'.*'MPE_simple_spread_v3'"):
        ours.make("MPE_simple_spred_v3")
    with pytest.raises(InvalidValueError, match=r"make\('ant_4x2'\): Brax"):
        ours.make("ant_4x2")
    with pytest.raises(InvalidValueError, match="None is no id"):
        ours.make(None)
    with pytest.raises(InvalidValueError, match="CartPole-v1 has a single agent"):
        ours.make("CartPole-v1")
    assert "halfcheetah_6x1" in ours.registered_envs


def _shapes(tree):
    return jax.tree.map(lambda leaf: leaf.shape, tree)


@pytest.mark.parametrize("name", OFFERED)
def test_every_name_that_is_offered_can_be_made(name):
    env = ours.make(name)
    assert env.name == name
    observations, state = jax.eval_shape(env.reset, KEY)
    actions = {agent: jax.eval_shape(env.action_space(agent).sample, KEY) for agent in env.agents}
    stepped = jax.eval_shape(env.step, KEY, state, actions)
    assert stepped[0].keys() == observations.keys() >= set(env.agents)
    assert stepped[3].keys() == {*env.agents, "__all__"}
    for agent in env.agents:
        sampled = jax.eval_shape(env.observation_space(agent).sample, KEY)
        assert _shapes(stepped[0][agent]) == _shapes(sampled)
        assert stepped[2][agent].shape == ()


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("MPE_simple_spread_v3", {"num_agents": 4, "num_landmarks": 4, "max_steps": 7}, 4),
        ("MPE_simple_tag_v3", {"num_good_agents": 2, "num_adversaries": 4, "num_obs": 1}, 6),
        ("mpe/simple_spread_v3", {"N": 5}, 5),
    ],
)
def test_parameters_by_the_names_of_jaxmarl(name, given, expected):
    env = ours.make(name, **given)
    assert env.num_agents == expected
    assert env.env.max_episode_steps == given.get("max_steps", 25)


def test_continuous_actions():
    env = ours.make("MPE_simple_spread_v3", action_type="Continuous")
    assert env.action_space("agent_0").shape == (5,)
    _, state = env.reset(KEY)
    with pytest.raises(InvalidValueError, match="actions of 'agent_0' are Box"):
        env.get_avail_actions(state)


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("MPE_simple_spread_v3", {"num_landmarks": 2}, "num_landmarks=2 is not supported.*each"),
        ("MPE_simple_push_v3", {"num_landmarks": 3}, "num_landmarks=3 is not .*: here it is 2"),
        ("MPE_simple_tag_v3", {"action_type": "Turbo"}, "give 'Discrete' or 'Continuous'"),
        ("MPE_simple_tag_v3", {"num_goods": 2}, "takes no argument 'num_goods'.*'num_good'"),
    ],
)
def test_parameters_that_do_not_fit(name, given, message):
    with pytest.raises(InvalidValueError, match=message):
        ours.make(name, **given)


def test_steps_are_those_of_the_vector():
    """The same rules, whatever the interface: equal states and actions give equal rewards."""
    env = ours.make("MPE_simple_spread_v3")
    envs = kw.make("mpe/simple_spread_v3", 2, seed=1)
    envs.reset()
    actions = np.array([[1, 2, 3], [4, 0, 1]])
    state = envs.state_of(1)
    observations, rewards, *_ = envs.step(actions)
    stepped = env.step(KEY, state, dict(zip(env.agents, actions[1], strict=True)))
    for index, agent in enumerate(env.agents):
        np.testing.assert_allclose(stepped[0][agent], observations[1, index], atol=1e-6)
        np.testing.assert_allclose(stepped[2][agent], rewards[1, index], rtol=1e-6)


def test_kitchens_of_numbers_of_cells():
    kitchen = {
        "height": 3,
        "width": 6,
        "wall_idx": np.array([0, 1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16, 17]),
        "agent_idx": np.array([7, 10]),
        "goal_idx": np.array([17 - 1]),
        "plate_pile_idx": np.array([15]),
        "onion_pile_idx": np.array([1, 4]),
        "pot_idx": np.array([2]),
    }
    env = ours.make("overcooked", layout=kitchen, max_steps=9)
    assert env.env.unwrapped.layout.rows == ("W0PW0W", "W    W", "WWWBXW")
    assert env.env.unwrapped.layout.starts == (7, 10)
    assert (env.env.max_episode_steps, env.env.unwrapped.horizon) == (9, 9)
    with pytest.raises(InvalidValueError, match=r"agent_idx=\[10, 7\].* numbered in reading order"):
        ours.make("overcooked", layout=kitchen | {"agent_idx": np.array([10, 7])})


@pytest.mark.parametrize(
    ("name", "given", "checked"),
    [
        ("HeuristicEnemySMAX", {"num_allies": 2, "num_enemies": 4}, {"num_allies": 2}),
        ("SMAX", {"scenario": "2s3z"}, {"num_enemies": 5, "opponent": "learned"}),
        ("HeuristicEnemySMAX", {"see_enemy_actions": False}, {"see_enemy_actions": False}),
        ("storm_np", {"num_agents": 3, "num_inner_steps": 9}, {"num_inner_steps": None}),
        ("coin_game", {"num_outer_steps": 3}, {"num_inner_steps": 10}),
        ("overcooked_v2", {"negative_rewards": True}, {"wrong_delivery_reward": -20}),
        (
            "jaxnav",
            {"num_agents": 3, "evaporating": True, "lidar_thresh": 0.2, "act_type": "Discrete"},
            {"robots": 3, "finished": "vanish", "proximity_distance": 0.5},
        ),
        (
            "jaxnav",
            {"map_params": {"map_size": (9, 7)}, "fixed_lambda": False, "lambda_range": (0.2, 0.7)},
            {"map_size": (9, 7), "reward_lambda": 0.2, "max_reward_lambda": 0.7},
        ),
    ],
)
def test_parameters_that_are_said_otherwise(name, given, checked):
    env = ours.make(name, **given).env.unwrapped
    assert {key: getattr(env, key) for key in checked} == checked


_NUMBERS = ("wall_idx", "agent_idx", "goal_idx", "plate_pile_idx", "onion_pile_idx", "pot_idx")
_KITCHEN = {"width": 3, "height": 3} | {name: [0] for name in _NUMBERS}


@pytest.mark.parametrize(
    ("name", "given", "limit"),
    [
        ("coin_game", {"num_outer_steps": 3}, 30),
        ("storm_2p", {"num_outer_steps": 2}, 304),
        ("storm_2p", {"num_inner_steps": 20}, 20),
    ],
)
def test_rounds_of_steps(name, given, limit):
    assert ours.make(name, **given).env.max_episode_steps == limit


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("HeuristicEnemySMAX", {"scenario": 3}, "give a name or what map_name_to_scenario gives"),
        ("SMAX", {"action_type": "continuous"}, "here it is 'discrete'"),
        ("jaxnav", {"map_params": {"cell_size": 2}}, "here they hold map_size, fill"),
        ("overcooked_v2", {"layout": 3}, "give the name of a kitchen, or a text"),
        ("overcooked_v2", {"op_ingredient_permutations": 3}, "permuted_ingredients=3 must be"),
        ("overcooked", {"layout": {"width": 3, "height": 3}}, "it lacks wall_idx, agent_idx"),
        ("overcooked", {"layout": _KITCHEN | {"foo": 1}}, "layout='foo' is not supported"),
        ("overcooked", {"layout": _KITCHEN | {"height": 10**6}}, "layout: height=1000000 .* is 64"),
        ("overcooked", {"layout": _KITCHEN | {"width": "x"}}, "layout: width='x' must be a whole"),
        ("overcooked", {"layout": _KITCHEN | {"pot_idx": [9]}}, "layout: pot_idx=9 .* 0 and 8"),
        ("SMAX", {"num_allies": "x"}, "num_allies='x' must be a whole number"),
        ("coin_game", {"num_outer_steps": "2"}, "num_outer_steps='2' must be a whole number"),
    ],
)
def test_what_the_other_worlds_refuse(name, given, message):
    with pytest.raises(InvalidValueError, match=message):
        ours.make(name, **given)


def test_scenarios_by_name():
    assert len(ours.map_name_to_scenario("27m_vs_30m").enemies) == 30
    with pytest.raises(UnknownNameError, match="'27m_vs_30m'"):
        ours.map_name_to_scenario("27m_v_30m")
