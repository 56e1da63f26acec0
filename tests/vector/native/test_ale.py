import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from kiloworlds.core.errors import InvalidValueError, UnknownNameError, WrongCallError
from kiloworlds.vector.pixels import PixelOptions, preprocess
from kiloworlds.vector.sync import SyncExecutor

pytest.importorskip("ale_py")
pytest.importorskip("cv2")

from kiloworlds.vector.native.ale import ALEExecutor

EXACT = {"noop_max": 0, "sticky_actions": 0.0}


@pytest.fixture
def make_ale():
    made = []

    def make(game="Breakout", num_envs=2, pixels=None, **settings):
        options = PixelOptions(**(EXACT if pixels is None else pixels))
        made.append(ALEExecutor(f"ALE/{game}-v5", num_envs, pixels=options, **settings))
        return made[-1]

    yield make
    for envs in made:
        envs.close()


def emulator_seed(seed):
    """What Gymnasium's environment hands to the emulator."""
    return int(np.random.SeedSequence(seed).generate_state(2)[1])


@pytest.mark.parametrize(
    ("game", "options"),
    [
        ("Breakout", EXACT),
        ("Qbert", {**EXACT, "life_loss": True, "frame_skip": 5, "clip_rewards": False}),
        (
            "Breakout",
            {
                **EXACT,
                "life_loss": True,
                "gray_scale": False,
                "max_pool": False,
                "size": 50,
                "frame_stack": 2,
                "full_action_space": True,
            },
        ),
        ("Pong", {"noop_max": 0, "sticky_actions": 0.25, "fire_reset": False}),
    ],
)
def test_it_equals_the_preprocessed_environment(make_ale, game, options):
    """Every byte, reward, flag and episode, through lost lives and ends of games."""
    seeds = [seed for seed in range(20) if emulator_seed(seed) < 2**31][:2]
    ours = make_ale(game, pixels=options)
    theirs = SyncExecutor(
        preprocess(lambda: gymnasium.make(f"ALE/{game}-v5"), PixelOptions(**options)),
        2,
        episode_statistics=False,
    )
    assert ours.single_observation_space == theirs.single_observation_space
    assert ours.single_action_space == theirs.single_action_space
    first, _ = ours.reset(seed=[emulator_seed(seed) for seed in seeds])
    np.testing.assert_array_equal(first, theirs.reset(seed=seeds)[0])
    rng = np.random.default_rng(0)
    episodes, ends = 0, 0
    for _ in range(400):
        actions = rng.integers(0, ours.single_action_space.n, 2)
        *a, infos = ours.step(actions)
        *b, expected = theirs.step(actions)
        for left, right in zip(a, b, strict=True):
            np.testing.assert_array_equal(left, right)
        np.testing.assert_array_equal(infos["lives"], expected["lives"])
        ended = a[2] | a[3]
        ends += ended.sum()
        for index in np.nonzero(ended)[0]:
            np.testing.assert_array_equal(infos["final_obs"][index], expected["final_obs"][index])
        final = expected.get("final_info", {})
        assert ("episode" in infos) == ("episode" in final)
        if "episode" in infos:
            np.testing.assert_array_equal(infos["_episode"], final["_episode"])
            for key in ("r", "l"):
                np.testing.assert_array_equal(infos["episode"][key], final["episode"][key])
            episodes += infos["_episode"].sum()
    theirs.close()
    if game != "Pong":
        assert ends >= 1
    if options.get("life_loss"):
        assert ends > episodes


def test_environment_i_gets_seed_s_plus_i(make_ale):
    options = {"noop_max": 30, "sticky_actions": 0.25}
    envs = make_ale("Pong", 3, pixels=options, seed=5)
    alone = make_ale("Pong", 1, pixels=options)
    together, infos = envs.reset()
    assert len(set(infos["episode_frame_number"].tolist())) > 1
    actions = np.random.default_rng(0).integers(0, 6, (20, 3))
    runs = [envs.step(row)[0] for row in actions]
    single, _ = alone.reset(seed=7)
    np.testing.assert_array_equal(single[0], together[2])
    for row, observations in zip(actions, runs, strict=True):
        np.testing.assert_array_equal(alone.step(row[2:])[0][0], observations[2])


def test_unseeded_games_differ(make_ale):
    envs = make_ale("Pong", 8, pixels={"noop_max": 30})
    assert len(set(envs.reset()[1]["episode_frame_number"].tolist())) > 2


def until_the_end(envs):
    rng = np.random.default_rng(2)
    while True:
        result = envs.step(rng.integers(0, 4, envs.num_envs))
        if (result[2] | result[3]).any():
            return result


def test_the_next_step_begins_a_game(make_ale):
    envs = make_ale(autoreset_mode="next_step")
    assert envs.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    envs.reset(seed=0)
    *_, terminated, _, infos = until_the_end(envs)
    index = int(np.argmax(terminated))
    assert "final_obs" not in infos
    assert infos["episode"]["l"][index] > 100
    _, rewards, terminated, _, infos = envs.step(np.ones(2, int))
    assert (infos["lives"][index], rewards[index], terminated[index]) == (5, 0.0, False)
    assert envs._episodes.lengths[index] == 0


def test_disabled_games_wait_for_their_reset(make_ale):
    envs = make_ale(autoreset_mode="disabled")
    envs.reset(seed=0)
    observations, _, ended, *_ = until_the_end(envs)
    with pytest.raises(WrongCallError, match=f"environment {int(np.argmax(ended))} has ended"):
        envs.step(np.zeros(2, int))
    again, infos = envs.reset(options={"reset_mask": ended})
    np.testing.assert_array_equal(infos["_lives"], ended)
    np.testing.assert_array_equal(again[~ended], observations[~ended])
    assert not again[ended][:, :-1].any()
    envs.step(np.zeros(2, int))


def test_apart(make_ale):
    envs = make_ale("Pong", 6, batch_size=2, num_workers=1)
    together = make_ale("Pong", 6)
    together.reset(seed=4)
    script = np.random.default_rng(0).integers(0, 6, (8, 6))
    expected = [together.step(row)[0] for row in script]
    envs.async_reset(seed=4)
    taken = np.zeros(6, int)
    for _ in range(3 * 6):
        observations, rewards, _, _, infos = envs.recv()
        rows = infos["env_id"]
        assert observations.shape == (2, 4, 84, 84)
        assert rewards.shape == (2,)
        for position, row in enumerate(rows):
            if taken[row]:
                np.testing.assert_array_equal(observations[position], expected[taken[row] - 1][row])
        order = rows[::-1]  # any order will do
        envs.send(script[np.minimum(taken[order], 7), order], order)
        taken[rows] += 1
    assert taken.min() >= 3
    np.testing.assert_array_equal(envs._episodes.lengths.max(), taken.max() - 1)


def test_calls_out_of_order(make_ale):
    envs = make_ale("Pong", 4, batch_size=2)
    with pytest.raises(WrongCallError, match="0 are pending"):
        envs.recv()
    with pytest.raises(WrongCallError, match="async_reset"):
        envs.reset()
    envs.async_reset(seed=0)
    with pytest.raises(WrongCallError, match="without a result"):
        envs.send(np.zeros(2, int), [0, 1])
    with pytest.raises(WrongCallError, match="4 results pending"):
        envs.async_reset(seed=0)
    rows = envs.recv()[-1]["env_id"]
    with pytest.raises(WrongCallError, match="recv\\(\\) twice"):
        envs.recv()
    others = [row for row in range(4) if row not in rows]
    with pytest.raises(InvalidValueError, match="takes the environments of the last recv"):
        envs.send(np.zeros(2, int), others)
    with pytest.raises(InvalidValueError, match="outside Discrete"):
        envs.send(np.array([0, 6]), rows)
    envs.send(np.zeros(2, int), rows)


@pytest.mark.parametrize(
    ("env_id", "settings", "error", "message"),
    [
        ("ALE/Pnog-v5", {}, UnknownNameError, "'ALE/Pong-v5'"),
        ("CartPole-v1", {}, InvalidValueError, "no ALE/\\* game"),
        ("ALE/Pong-v5", {"batch_size": 3}, InvalidValueError, "more than num_envs=2"),
        ("ALE/Pong-v5", {"num_workers": 0}, InvalidValueError, "num_workers=0"),
        (
            "ALE/Pong-v5",
            {"pixels": PixelOptions(life_loss=True), "autoreset_mode": "next_step"},
            InvalidValueError,
            "life_loss=True with autoreset_mode='next_step'",
        ),
    ],
)
def test_wrong_settings(env_id, settings, error, message):
    with pytest.raises(error, match=message):
        ALEExecutor(env_id, 2, **settings)


def test_what_it_cannot_do_is_said(make_ale):
    envs = make_ale()
    with pytest.raises(WrongCallError, match="step\\(\\) before reset"):
        envs.step(np.zeros(2, int))
    with pytest.raises(InvalidValueError, match="no options but 'reset_mask'"):
        envs.reset(options={"mode": 1})
    with pytest.raises(WrongCallError, match="backend='process'"):
        envs.render()
    envs.close()
    with pytest.raises(WrongCallError, match="after close"):
        envs.reset()
