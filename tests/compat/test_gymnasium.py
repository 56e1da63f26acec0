"""Gymnasium's vector constructors, held against Gymnasium's own."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from pool_envs import CountingEnv

from kiloworlds.compat.gymnasium import (
    AsyncVectorEnv,
    SyncVectorEnv,
    make_vec,
    replacing_gymnasium,
)
from kiloworlds.core.errors import InvalidValueError, UnknownNameError, WrongCallError


def same(ours, theirs):
    """Whether two results of step or reset are equal, infos included."""
    if isinstance(theirs, dict):
        return set(ours) == set(theirs) and all(same(ours[key], theirs[key]) for key in theirs)
    if isinstance(theirs, tuple):
        return len(ours) == len(theirs) and all(map(same, ours, theirs))
    return ours.dtype == theirs.dtype and ours.tolist() == theirs.tolist()


def numbers_only(result):
    """Without the infos whose batching is Gymnasium's own affair: text and arrays."""
    *rest, infos = result
    return (*rest, {key: infos[key] for key in infos if key.strip("_") in ("steps", "half")})


@pytest.mark.parametrize("ours", [AsyncVectorEnv, SyncVectorEnv])
@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_results_are_gymnasiums(ours, mode):
    env_fns = [lambda length=length: CountingEnv(length) for length in (2, 3, 4)]
    envs = ours(env_fns, autoreset_mode=mode)
    theirs = gymnasium.vector.SyncVectorEnv(env_fns, autoreset_mode=mode)
    assert envs.metadata["autoreset_mode"] == mode
    assert same(numbers_only(envs.reset(seed=4)), numbers_only(theirs.reset(seed=4)))
    for step in range(9):
        actions = np.array([step % 3, 1, 2])
        assert same(numbers_only(envs.step(actions)), numbers_only(theirs.step(actions))), step
    envs.close()


def test_next_step_is_the_default():
    for made in (make_vec("CartPole-v1", 2), SyncVectorEnv([CountingEnv])):
        assert made.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP


def test_halves_of_calls_give_what_whole_calls_give():
    halves = AsyncVectorEnv([lambda: CountingEnv(3)] * 4, max_concurrency=2)
    whole = AsyncVectorEnv([lambda: CountingEnv(3)] * 4)
    assert halves.num_workers == 2
    halves.reset_async(seed=1)
    with pytest.raises(WrongCallError, match=r"step_async.*reset_wait"):
        halves.step_async(np.ones(4, int))
    assert same(numbers_only(halves.reset_wait()), numbers_only(whole.reset(seed=1)))
    for step in range(7):
        actions = np.full(4, step % 3)
        halves.step_async(actions)
        result = halves.step_wait()
        assert {"steps", "_steps", "name"} <= set(result[4])
        assert "env_id" not in result[4]
        assert same(numbers_only(result), numbers_only(whole.step(actions)))
    halves.call_async("double", 3)
    assert halves.call_wait() == (6, 6, 6, 6)
    with pytest.raises(WrongCallError, match=r"step_wait.*step_async"):
        halves.step_wait()
    with pytest.raises(InvalidValueError, match=r"timeout=2"):
        halves.step_wait(timeout=2)
    halves.close(timeout=1)
    whole.close(terminate=True)
    with pytest.raises(WrongCallError, match="close"):
        halves.step_async(np.ones(4, int))


@pytest.mark.parametrize("vector_class", [AsyncVectorEnv, SyncVectorEnv])
def test_attributes(vector_class):
    envs = vector_class([lambda: CountingEnv(3)] * 2)
    envs.set_attr("length", [7, 8])
    assert tuple(envs.get_attr("length")) == (7, 8)
    assert tuple(envs.call("double", 2)) == (4, 4)
    envs.close()


def test_harmless_arguments_are_accepted():
    envs = AsyncVectorEnv(
        [CountingEnv] * 2, shared_memory=False, copy=False, context="spawn", daemon=False
    )
    first, _ = envs.reset(seed=0)
    kept = first.copy()
    envs.step(np.zeros(2, int))
    envs.step(np.zeros(2, int))
    assert not np.array_equal(first, kept)  # a view, as copy=False has it
    envs.close()
    SyncVectorEnv([CountingEnv], copy=False)


@pytest.mark.parametrize(
    "arguments",
    [{"context": "fork"}, {"worker": print}, {"observation_mode": "different"}],
)
def test_arguments_without_a_meaning_are_refused_by_name(arguments):
    with pytest.raises(InvalidValueError, match=next(iter(arguments))):
        AsyncVectorEnv([CountingEnv], **arguments)


def test_env_fns_must_be_functions():
    with pytest.raises(InvalidValueError, match="CountingEnv"):
        SyncVectorEnv(CountingEnv())  # type: ignore[arg-type]


def test_modes_of_make_vec():
    modes = {None: "compiled", "vector_entry_point": "compiled", "async": "process", "sync": "sync"}
    for mode, backend in modes.items():
        envs = make_vec("CartPole-v1", 3, mode, max_episode_steps=6)
        assert envs.backend == backend
        envs.reset(seed=1)
        for _ in range(6):
            *_, truncated, infos = envs.step(np.array([0, 1, 0]))
        assert truncated.all()
        assert "episode" not in infos
        twin = make_vec(envs.spec)
        assert (twin.backend, twin.num_envs) == (backend, 3)
        envs.close()
        twin.close()
    with pytest.raises(InvalidValueError, match=r"Did you mean 'async'"):
        make_vec("CartPole-v1", 2, "asinc")


def test_wrappers_and_vector_kwargs_of_make_vec():
    wrappers = [gymnasium.wrappers.FlattenObservation, gymnasium.wrappers.RecordEpisodeStatistics]
    envs = make_vec(
        "FrozenLake-v1",
        2,
        vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP},
        wrappers=wrappers,
        is_slippery=False,
    )
    assert envs.single_observation_space.shape == (16,)
    envs.reset(seed=0)
    for action in (2, 1):  # right, down: into the hole
        *_, infos = envs.step(np.full(2, action))
    assert infos["final_info"]["episode"]["l"].tolist() == [2, 2]
    envs.close()
    with pytest.raises(InvalidValueError, match="wrappers"):
        make_vec("CartPole-v1", 2, "vector_entry_point", wrappers=wrappers)
    with pytest.raises(InvalidValueError, match=r"'context'.*It takes: copy"):
        make_vec("CartPole-v1", 2, "sync", {"context": "spawn"})
    compiled = make_vec("CartPole-v1", 2, vector_kwargs={"output": "jax"})
    assert not isinstance(compiled.reset(seed=0)[0], np.ndarray)


def test_specs_of_gymnasium_are_taken():
    envs = make_vec(gymnasium.spec("MountainCar-v0"), 2, "sync", max_episode_steps=3)
    assert envs.get_attr("spec")[0].max_episode_steps == 3
    with pytest.raises(InvalidValueError, match="int"):
        make_vec(3)  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="CartPole-v1"):
        make_vec("CartPol-v1", 2)


def test_gymnasiums_wrappers_take_our_vectors():
    envs = make_vec("CartPole-v1", 2)
    envs = gymnasium.wrappers.vector.RecordEpisodeStatistics(envs)
    envs = gymnasium.wrappers.vector.NormalizeObservation(envs)
    envs.reset(seed=0)
    lengths = []
    for _ in range(40):
        *_, infos = envs.step(np.zeros(2, int))
        lengths += infos["episode"]["l"][infos["_episode"]].tolist() if "episode" in infos else []
    assert lengths
    assert 7 < np.mean(lengths) < 12  # always left: falls within ten steps or so


def test_replacing_gymnasium_ends_with_its_context():
    originals = (gymnasium.make_vec, gymnasium.vector.SyncVectorEnv)
    with replacing_gymnasium(parallel=True):
        assert gymnasium.make_vec is make_vec
        assert gymnasium.vector.SyncVectorEnv is AsyncVectorEnv
        with replacing_gymnasium():
            assert gymnasium.vector.SyncVectorEnv is SyncVectorEnv
        assert gymnasium.vector.SyncVectorEnv is AsyncVectorEnv
    assert (gymnasium.make_vec, gymnasium.vector.SyncVectorEnv) == originals
