import gymnasium
import numpy as np
import pytest

from kiloworlds.core.errors import InvalidValueError
from kiloworlds.vector.pixels import PixelOptions, pixel_options, preprocess

pytest.importorskip("ale_py")
pytest.importorskip("cv2")

# Nothing is drawn at random.
EXACT = {"noop_max": 0, "sticky_actions": 0.0}


class Screen(gymnasium.Env):
    """Shows the number of the step as the brightness of a screen, half red and half black."""

    observation_space = gymnasium.spaces.Box(0, 255, (20, 30, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length=10):
        self.length = length

    def _see(self):
        screen = np.zeros((20, 30, 3), np.uint8)
        screen[:, :15, 0] = 10 * self.time
        return screen

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._see(), {}

    def step(self, action):
        self.time += 1
        return self._see(), 2.0, self.time == self.length, False, {}


def atari(game, **options):
    return preprocess(lambda: gymnasium.make(f"ALE/{game}-v5"), PixelOptions(**options))()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"size": 0},
            "size=0 must be a whole number between 1 and 4096; the nearest valid value is 1",
        ),
        ({"frame_stack": 1.5}, "frame_stack=1.5 must be a whole number"),
        ({"frame_skip": True}, "frame_skip=True must be a whole number"),
        ({"sticky_actions": 1.25}, "nearest valid value is 1"),
        ({"sticky_actions": float("nan")}, "must be a number between 0 and 1.0"),
        ({"noop_max": -1}, "nearest valid value is 0"),
        ({"life_loss": "yes"}, "life_loss='yes' must be True or False"),
        ({"grey_scale": False}, "Did you mean 'gray_scale'"),
        ("atarii", "must be 'atari' or options"),
        (None, "must be 'atari' or options"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(InvalidValueError, match=message):
        pixel_options(options)


def test_options_as_users_write_them():
    assert pixel_options("atari") == PixelOptions()
    options = pixel_options({"size": 64, "life_loss": True})
    assert (options.size, options.life_loss, options.clip_rewards) == (64, True, True)
    assert pixel_options(options) is options
    assert not options.for_evaluation().hides_episodes
    assert options.for_evaluation().size == 64


def test_the_shape_of_atari_observations():
    for options in ({"size": 42, "frame_stack": 2}, {"gray_scale": False, "frame_stack": 3}):
        env = atari("Pong", **options)
        observation, _ = env.reset(seed=0)
        assert env.observation_space.shape == PixelOptions(**options).observation_shape
        assert observation in env.observation_space
        assert not observation[:-1].any()
        assert observation[-1].any()
        env.close()


def test_the_simulator_gets_its_options():
    env = atari("Breakout", frame_skip=3, full_action_space=True, **EXACT)
    assert env.action_space.n == 18
    env.reset(seed=0)
    before = env.unwrapped.ale.getEpisodeFrameNumber()
    env.step(0)
    assert env.unwrapped.ale.getEpisodeFrameNumber() - before == 3
    assert env.unwrapped.ale.getFloat("repeat_action_probability") == 0.0
    env.close()


def test_fire_starts_the_game():
    frames = {}
    for fire in (False, True):
        env = atari("Breakout", fire_reset=fire, **EXACT)
        frames[fire] = env.reset(seed=0)[1]["episode_frame_number"]
        env.close()
    assert frames[True] == frames[False] + 1


def test_max_pool_keeps_what_flickers():
    shown = {}
    for pooled in (False, True):
        env = atari("Asteroids", max_pool=pooled, **EXACT)
        env.reset(seed=0)
        shown[pooled] = np.stack([env.step(0)[0][-1] for _ in range(8)])
        env.close()
    assert (shown[True] >= shown[False]).all()
    assert shown[True].sum() > shown[False].sum()


def test_a_lost_life_ends_an_episode_and_not_the_game():
    env = atari("Breakout", life_loss=True, **EXACT)
    env.reset(seed=0)
    rng = np.random.default_rng(0)
    episodes, length, whole = 0, 0, None
    while whole is None:
        observation, _, terminated, truncated, info = env.step(int(rng.integers(4)))
        length += 1
        whole = info.get("episode")
        assert not truncated
        if terminated:
            episodes += 1
            if whole is None:
                again, info = env.reset()
                np.testing.assert_array_equal(again, observation)
                assert info["lives"] == 5 - episodes
    assert episodes == 5
    assert whole["l"] == length
    _, info = env.reset()
    assert info["lives"] == 5
    env.close()


def test_a_seed_starts_a_new_game_after_a_lost_life():
    env = atari("Breakout", life_loss=True, **EXACT)
    first, _ = env.reset(seed=3)
    while not env.step(1)[2]:
        pass
    again, info = env.reset(seed=3)
    np.testing.assert_array_equal(first, again)
    assert info["lives"] == 5
    env.close()


def test_reported_returns_are_not_clipped():
    env = atari("Qbert", **EXACT)
    env.reset(seed=0)
    rng = np.random.default_rng(1)
    total, clipped = 0, set()
    while True:
        _, reward, terminated, _, info = env.step(int(rng.integers(6)))
        clipped.add(float(reward))
        total += reward
        if terminated:
            break
    assert clipped == {0.0, 1.0}
    assert info["episode"]["r"] >= 25 * total > 0
    env.close()


def test_other_images():
    options = PixelOptions(size=10, frame_stack=3, frame_skip=4, sticky_actions=0.25)
    env = preprocess(lambda: Screen(), options)()
    observation, _ = env.reset(seed=0)
    assert env.observation_space.shape == observation.shape == (3, 10, 10)
    observation, reward, terminated, _, _ = env.step(0)
    assert reward == 1.0  # 8 before clipping
    # Grey of red 40: weight 0.2125 or so of the luminance formula.
    assert observation[-1, 0, 0] == pytest.approx(0.2125 * 40, abs=1)
    assert observation[-1, 0, 9] == 0
    env.step(0)
    observation, _, terminated, _, info = env.step(0)
    assert terminated
    assert info["episode"]["r"] == 20.0
    assert [int(frame[0, 0]) for frame in observation] == [8, 17, 21]
    env.close()


def test_colours_stay_last():
    options = PixelOptions(size=10, gray_scale=False, frame_stack=2, frame_skip=1)
    env = preprocess(lambda: Screen(), options)()
    env.reset(seed=0)
    observation = env.step(0)[0]
    assert observation.shape == options.observation_shape == (2, 10, 10, 3)
    assert observation[-1, 0, 0].tolist() == [10, 0, 0]
    env.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [("life_loss", True), ("sticky_actions", 0.5), ("noop_max", 7), ("full_action_space", True)],
)
def test_options_for_atari_are_refused_elsewhere_by_name(name, value):
    with pytest.raises(InvalidValueError, match=f"{name}={value!r} is an option for ALE"):
        preprocess(lambda: Screen(), PixelOptions(**{name: value}))()


def test_what_is_no_image_is_refused():
    build = preprocess(lambda: gymnasium.make("CartPole-v1"), PixelOptions())
    with pytest.raises(InvalidValueError, match="CartPole-v1 observes Box"):
        build()
