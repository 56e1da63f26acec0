import pytest

QUICK = ("--seconds", "0.01", "--repeats", "1")


def test_compiled_tells_each_size_and_the_best(json_of):
    result = json_of("bench", "CartPole-v1", "--num-envs", "64", "128", "--devices", "1", *QUICK)
    assert result["backend"] == "compiled"
    sizes = [entry["num_envs"] for entry in result["measurements"]]
    assert sizes == [64, 128]
    rates = [entry["steps_per_second"] for entry in result["measurements"]]
    assert result["steps_per_second"] == max(rates)
    assert result["num_envs"] == sizes[rates.index(max(rates))]


def test_several_agents(json_of):
    options = ("--num-envs", "64", "--devices", "2", "--env.N", "2")
    result = json_of("bench", "mpe/simple_spread_v3", *options, *QUICK)
    assert result["backend"] == "compiled"
    assert result["steps_per_second"] > 0


def test_sync(json_of):
    result = json_of("bench", "CartPole-v1", "--backend", "sync", "--num-envs", "2", *QUICK)
    assert result["backend"] == "sync"
    assert result["steps_per_second"] > 0


def test_words_without_json(command):
    code, out, _ = command("bench", "CartPole-v1", "--num-envs", "8", "--devices", "1", *QUICK)
    assert code == 0
    assert "steps/s" in out


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["CartPole-v7"], "Did you mean 'CartPole-v1'"),
        (["CartPole-v1", "--env.lenth", "1"], "lenth"),
        (["CartPole-v1", "--env.length"], "--env.length needs a name and a value"),
        (["CartPole-v1", "--num-envs", "0"], "num_envs=0 must be a whole number of 1 or more"),
        (["CartPole-v1", "--num-envs", "many"], "--num-envs"),
        (["CartPole-v1", "--backend", "compield"], "Did you mean 'compiled'"),
        (["CartPole-v1", "--seconds", "0"], "--seconds 0"),
        (["CartPole-v1", "--repeats", "0"], "--repeats 0"),
        (["CartPole-v1", "--num-env", "8"], "--num-envs"),
        (["CartPole-v1", "--env-kwargs", "3"], "is not JSON such as"),
    ],
)
def test_wrong_use(command, words, complaint):
    code, out, err = command("bench", *words, *QUICK[:2] if "--seconds" not in words else ())
    assert (code, out) == (2, "")
    assert complaint in err
