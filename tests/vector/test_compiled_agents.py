import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled_multi_agent_envs import Hunt, Relay, legal_actions
from gymnasium import spaces

import kiloworlds as kw
from kiloworlds.core.errors import InvalidValueError, WrongCallError
from kiloworlds.core.random import fast_key
from kiloworlds.core.time_limit import with_time_limit
from kiloworlds.vector.compiled_agents import CompiledAgentsVectorEnv
from kiloworlds.vector.pettingzoo import PettingZooVectorEnv
from kiloworlds.vector.random_rollout import random_rollout

_FIRST = {"prey": 1}  # its actions begin at 1


def hunt():
    return with_time_limit(Hunt(), 5)


def _same(ours, theirs, path=""):
    """Whether nested results agree in structure and values; types of numbers may differ."""
    assert type(ours) is type(theirs), path
    if isinstance(ours, dict):
        assert set(ours) == set(theirs), path
        for key in ours:
            _same(ours[key], theirs[key], f"{path}[{key!r}]")
    elif ours.dtype == object:
        for first, second in zip(ours, theirs, strict=True):
            assert (first is None) == (second is None), path
            if first is not None:
                _same(first, second, path)
    else:
        assert ours.shape == theirs.shape, path
        np.testing.assert_array_equal(ours, theirs, err_msg=path)


_OF_ALL = ("alive", "acting", "action_mask", "episode", "final_obs")


def _shared(infos):
    """The infos that both vectors give under one name, without durations."""
    shared = {key: infos[key] for key in infos if key.removeprefix("_") in _OF_ALL}
    if "episode" in shared:
        shared["episode"] = {key: infos["episode"][key] for key in ("r", "l")}
    return shared


@pytest.mark.parametrize("mode", ["same_step", "next_step", "disabled"])
@pytest.mark.parametrize("make_env", [Relay, hunt], ids=["relay", "hunt"])
def test_the_interface_is_that_of_pettingzoo_vectors(make_env, mode):
    ours = kw.make(make_env(), 3, autoreset_mode=mode)
    theirs = PettingZooVectorEnv(
        lambda: kw.to_pettingzoo(make_env()), 3, backend="sync", autoreset_mode=mode
    )
    assert isinstance(ours, CompiledAgentsVectorEnv)
    assert ours.backend == "compiled"
    for name in ("possible_agents", "num_agents", "kinds", "is_turn_based"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("single_observation_space", "single_action_space", "action_space"):
        assert getattr(ours, name) == getattr(theirs, name), name
    rng = np.random.default_rng(1)
    results = [ours.reset(seed=7), theirs.reset(seed=7)]
    _same(results[0][0], results[1][0])
    _same(_shared(results[0][1]), _shared(results[1][1]))
    ended = 0
    # Under same-step autoreset the streams of random numbers part with the second episode.
    for step in range(5 if mode == "same_step" else 12):
        infos = results[0][-1]
        actions = legal_actions(infos["action_mask"], rng, _FIRST)
        results = [vector.step(actions) for vector in (ours, theirs)]
        first, second = results
        over = (first[2] | first[3]).all(axis=1)
        ended += over.sum()
        if mode == "same_step" and over.any():
            del first[4]["action_mask"], second[4]["action_mask"]  # of the next episode
            _same(_shared(first[4]), _shared(second[4]))
            for one, other in zip(first[1:4], second[1:4], strict=True):
                _same(one, other)
            break
        for name, one, other in zip(
            ("observations", "rewards", "terminated", "truncated"), first, second, strict=False
        ):
            _same(one, other, f"{name} of step {step}")
        _same(_shared(first[4]), _shared(second[4]), f"infos of step {step}")
        if mode == "disabled" and over.any():
            results = [vector.reset(options={"reset_mask": over}) for vector in (ours, theirs)]
            _same(results[0][0], results[1][0])
            _same(_shared(results[0][1]), _shared(results[1][1]))
    assert ended >= 3


def test_flags_rewards_and_masks_of_agents_that_drop_out():
    envs = kw.make(Relay(bonus=2.0), 2)
    observations, infos = envs.reset(seed=0)
    assert observations.shape == (2, 3, 2)
    assert infos["alive"].all()
    first = observations[0, 0, 0]
    actions = np.array([[0, 1, 2], [0, 0, 1]])
    observations, rewards, terminated, truncated, infos = envs.step(actions)
    assert rewards.tolist() == [[0, 12, 24], [0, 10, 22]]
    assert terminated.tolist() == [[True, False, False]] * 2
    assert not truncated.any()
    assert observations[0].tolist() == [[0, 0], [first, 2], [first, 2]]
    assert infos["alive"].tolist() == infos["acting"].tolist() == [[False, True, True]] * 2
    assert infos["action_mask"][0].tolist() == [[True] * 4, [True, True, True, False], [True] * 4]
    *_, infos = envs.step(np.array([[3, 2, 0], [0, 2, 3]]))  # that of the first is not read
    observations, rewards, terminated, truncated, infos = envs.step(np.array([[3, 3, 1]] * 2))
    assert rewards.tolist() == [[0, 0, 22]] * 2
    assert terminated.all()
    assert not truncated.any()
    assert infos["episode"]["r"].tolist() == [[0, 26, 66], [0, 24, 70]]
    assert infos["episode"]["l"].tolist() == [3, 3]
    assert infos["final_obs"][1].tolist() == [[0, 0]] * 3
    assert observations[:, :, 1].tolist() == [[1, 1, 1]] * 2
    assert infos["alive"].all()  # of the next episode, as the observations are


def test_infos_of_the_environment_tell_of_steps_only():
    envs = kw.make(Relay(), 1)
    assert "won" not in envs.reset(seed=0)[1]
    for _ in range(3):
        *_, infos = envs.step(np.array([[0, 1, 2]]))
    assert infos["final_info"]["won"].tolist() == [True]
    assert infos["final_info"]["shaped_reward"].tolist() == [[0, 0, 11]]
    assert infos["_won"].tolist() == [False]  # a new episode has begun, of which it says nothing
    next_step = kw.make(Relay(), 1, autoreset_mode="next_step")
    next_step.reset(seed=0)
    told = [next_step.step(np.array([[0, 1, 2]]))[4]["_won"][0] for _ in range(4)]
    assert told == [True, True, True, False]


def test_truncation_is_of_those_that_live():
    envs = kw.make(with_time_limit(Hunt(), 2), 2)
    _, infos = envs.reset(seed=0)
    calm = {"hunter": np.zeros((2, 2), int), "prey": np.ones((2, 1), int)}
    caught = calm | {"hunter": np.array([[2, 0], [0, 0]])}
    _, rewards, terminated, _, infos = envs.step(caught)
    assert rewards.tolist() == [[5, 5, 1], [-0.5, -0.5, 1]]
    assert terminated.tolist() == [[False, False, True], [False, False, False]]
    assert infos["action_mask"]["prey"][0].tolist() == [[True, True]]
    observations, _, terminated, truncated, infos = envs.step(calm)
    assert terminated.tolist() == [[False, False, True], [False, False, False]]
    assert truncated.tolist() == [[True, True, False], [True, True, True]]
    assert infos["episode"]["r"].tolist() == [[4.5, 4.5, 1], [-1, -1, 2]]
    assert infos["final_obs"][0]["prey"].tolist() == [[0]]
    assert infos["place"].tolist() == (observations["prey"][:, 0, 0]).tolist()
    assert infos["_place"].all()  # this environment tells of starts as well


def test_agents_that_die_on_the_last_step_are_both():
    envs = kw.make(with_time_limit(Hunt(), 1), 1)
    envs.reset(seed=0)
    _, _, terminated, truncated, _ = envs.step(
        {"hunter": np.array([[2, 0]]), "prey": np.ones((1, 1), int)}
    )
    assert terminated.tolist() == [[False, False, True]]
    assert truncated.tolist() == [[True, True, True]]


def test_jax_output():
    envs = kw.make(hunt(), 2, output="jax")
    observations, infos = envs.reset(seed=0)
    assert isinstance(observations["hunter"], jax.Array)
    assert isinstance(infos["action_mask"]["prey"], jax.Array)
    actions = {"hunter": jnp.zeros((2, 2), int), "prey": jnp.ones((2, 1), int)}
    *results, infos = envs.step(actions)
    for array in (*results[1:], infos["alive"], infos["acting"]):
        assert isinstance(array, jax.Array)
    assert results[2].shape == (2, 3)


def test_devices_do_not_change_results():
    steps = []
    for devices in (1, 2):
        envs = kw.make(hunt(), 4, devices=devices)
        rng = np.random.default_rng(0)
        _, infos = envs.reset(seed=0)
        for _ in range(6):
            *results, infos = envs.step(legal_actions(infos["action_mask"], rng, _FIRST))
            steps.append((results, infos["alive"], envs.global_state()))
    for one, two in zip(steps[:6], steps[6:], strict=True):
        jax.tree.map(np.testing.assert_array_equal, one, two)


def test_functional_equals_step():
    envs = kw.make(Relay(), 2, seed=3)
    observations, _ = envs.reset()
    state = envs.state
    _, step = envs.functional()
    actions = np.array([[0, 1, 2], [0, 0, 2]])
    _, result = jax.jit(step)(state, actions)
    observations, rewards, terminated, _, infos = envs.step(actions)
    np.testing.assert_array_equal(result.observation, observations)
    np.testing.assert_array_equal(result.reward, rewards)
    np.testing.assert_array_equal(result.agents.terminated, terminated)
    np.testing.assert_array_equal(result.agents.next.alive, infos["alive"])


def test_global_state():
    envs = kw.make(Relay(), 2)
    with pytest.raises(WrongCallError, match="before reset"):
        envs.global_state()
    observations, _ = envs.reset(seed=0)
    assert envs.global_state_space.shape == (2,)
    np.testing.assert_array_equal(envs.global_state() + 1, observations[:, 0])
    views = kw.make(hunt(), 2)
    views.reset(seed=0)
    assert views.global_state().shape == (2, 3, 2)


def test_parameters_differ_per_environment():
    envs = kw.make(Relay(bonus=np.array([1.0, 5.0])), 2)
    envs.reset(seed=0)
    rewards = envs.step(np.array([[0, 1, 2]] * 2))[1]
    assert rewards.tolist() == [[0, 11, 22], [0, 15, 30]]


def test_illegal_actions_are_named():
    envs = kw.make(Relay(), 2)
    _, infos = envs.reset(seed=0)
    message = r"environment 1, agent 'runner_1': the action 3 is illegal now; legal are 0, 1\."
    with pytest.raises(InvalidValueError, match=message):
        envs.step(np.array([[0, 1, 2], [0, 3, 2]]))
    envs.step(np.array([[0, 1, 2], [0, 1, 2]]))
    envs.step(np.array([[3, 1, 2], [3, 1, 2]]))  # of one that is out nothing is read
    blocks = kw.make(hunt(), 1)
    _, infos = blocks.reset(seed=1)
    legal = np.flatnonzero(infos["action_mask"]["prey"][0, 0]) + 1
    if len(legal) == 1:
        wrong = 3 - int(legal[0])
        message = f"agent 'prey': the action {wrong} is illegal now; legal are {legal[0]}"
        with pytest.raises(InvalidValueError, match=message):
            blocks.step({"hunter": np.zeros((1, 2), int), "prey": np.array([[wrong]])})
    hunters = np.array([[0, 2]], np.uint8)
    with pytest.raises(InvalidValueError, match=r"'hunter_1': the action 2 .* legal are 0, 1"):
        blocks.step({"hunter": hunters, "prey": legal[:1][None]})


def test_a_mask_without_a_legal_action_is_named():
    envs = kw.make(Relay(fault="stalled"), 1)
    envs.reset(seed=0)
    envs.step(np.array([[0, 1, 2]]))
    with pytest.raises(InvalidValueError, match=r"environment 0, agent 'runner_1': .* all False"):
        envs.step(np.array([[0, 0, 2]]))


def test_when_legality_is_checked():
    illegal = np.array([[3, 3, 3]])
    for options in ({"check_legal": False}, {"output": "jax"}):
        envs = kw.make(Relay(), 1, **options)
        envs.reset(seed=0)
        envs.step(illegal)
    envs = kw.make(Relay(), 1, output="jax", check_legal=True)
    envs.reset(seed=0)
    with pytest.raises(InvalidValueError, match="runner_0"):
        envs.step(jnp.asarray(illegal))


@pytest.mark.parametrize(
    ("env", "options", "message"),
    [
        (Relay(), {"check_legal": "maybe"}, "check_legal='maybe' must be True or False"),
        ("CartPole-v1", {"check_legal": True}, "check_legal=True is a setting .* several agents"),
        ("CartPole-v1", {"check_legal": False, "backend": "sync"}, "setting .* several agents"),
        (Relay(), {"backend": "process"}, "backend='process' runs Gymnasium environments"),
    ],
)
def test_settings_that_do_not_fit(env, options, message):
    with pytest.raises(InvalidValueError, match=message):
        kw.make(env, 1, **options)


def test_wrong_actions_are_named():
    envs = kw.make(hunt(), 2)
    envs.reset(seed=0)
    hunters = np.zeros((2, 2), int)
    with pytest.raises(InvalidValueError, match=r"actions lack 'prey'"):
        envs.step({"hunter": hunters})
    with pytest.raises(InvalidValueError, match=r"\['prey'\] have shape \(2,\); .*\(2, 1\)"):
        envs.step({"hunter": hunters, "prey": np.ones(2, int)})
    with pytest.raises(InvalidValueError, match=r"environment 1 at \['prey'\] is \[0\], outside"):
        envs.step({"hunter": hunters, "prey": np.array([[1], [0]])})


def test_no_episode_statistics_and_a_repr():
    envs = kw.make(with_time_limit(Hunt(), 1), 1, episode_statistics=False)
    envs.reset(seed=0)
    *_, infos = envs.step({"hunter": np.zeros((1, 2), int), "prey": np.ones((1, 1), int)})
    assert "episode" not in infos
    assert repr(envs) == "CompiledAgentsVectorEnv(Hunt, num_envs=1, num_agents=3)"
    assert envs.render()[0].shape == (4, 6, 3)


def test_random_rollouts_keep_to_the_masks():
    step = random_rollout(kw.make(Relay(), 8), 5)(0)
    assert step.reward.shape == (8, 3)
    # The second step of the second episode: runner k may take the actions 0 to k + 1.
    bonus = step.reward - 10 * np.arange(3)
    assert (step.reward[:, 0] == 0).all()
    assert (bonus[:, 1:] <= [2, 3]).all()
    assert (bonus[:, 1:] >= 0).all()


def test_results_may_be_written_to():
    envs = kw.make(Relay(), 1)
    _, infos = envs.reset(seed=0)
    infos["alive"][:] = False
    infos["action_mask"][:] = False
    assert infos["acting"].all()
    envs.step(np.array([[0, 1, 2]]))


def test_seeds_of_one_environment_do_not_depend_on_others():
    many, one = kw.make(Relay(), 5), kw.make(Relay(), 1)
    assert isinstance(many.single_action_space, spaces.MultiDiscrete)
    observations, _ = many.reset(seed=10)
    np.testing.assert_array_equal(observations[3], one.reset(seed=13)[0][0])
    init, _ = many.functional()
    assert init(fast_key(0))[1].shape == (5, 3, 2)
