import json
import re
import shutil
from html.parser import HTMLParser

import pytest

import kiloworlds as kw
from kiloworlds.cli.main import main
from kiloworlds.core.words import number
from kiloworlds.evaluation.evaluate import evaluate_run

SMALL = {"num_envs": 8, "num_steps": 16, "total_steps": 1024}


class Page(HTMLParser):
    """The words of a page, and what it would load from elsewhere."""

    def __init__(self, text: str):
        super().__init__()
        self.words: list[str] = []
        self.sources: list[str] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_data(self, data):
        self.words.append(data.strip())

    @property
    def text(self) -> str:
        return " ".join(word for word in self.words if word)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "run"
    return kw.train("ppo", "CartPole-v1", run_dir=path, num_seeds=2, learning_rate=0.01, **SMALL)


def test_one_page_holds_everything(run, capsys):
    assert main(["report", str(run.path), "--episodes", "4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["report"] == str(run.path / "report.html")
    page = Page((run.path / "report.html").read_text())
    assert page.sources
    assert all(source.startswith("data:image/") for source in page.sources)
    assert "script" not in page.tags
    kinds = [source.split(";")[0] for source in page.sources]
    assert kinds.count("data:image/gif") == 3
    assert kinds[0] == "data:image/svg+xml"
    for words in (
        "PPO on CartPole-v1, 2 seeds",
        "learning_rate 0.01 0.002",
        "seed 1",
        "Where it comes",
    ):
        assert words in page.text
    mean = run.evaluate(episodes=4).mean_return
    shown = re.search(r"seed 0 ([\d.,]+)", page.text)
    assert shown is not None
    assert float(shown[1]) == pytest.approx(mean, rel=1e-3)


def test_it_says_whose_policy_plays(run):
    assert main(["report", str(run.path), "--episodes", "1"]) == 0
    page = Page((run.path / "report.html").read_text())
    assert "The policy of seed 0 (one of 2 seeds) plays, by the most likely actions." in page.text
    assert "their returns are equal" not in page.text


def test_episodes_of_one_return_are_shown_once(tmp_path):
    env_kwargs = {"max_episode_steps": 3}  # all get so far
    run = kw.train("ppo", "CartPole-v1", run_dir=tmp_path / "run", env_kwargs=env_kwargs, **SMALL)
    assert main(["report", str(run.path), "--episodes", "1"]) == 0
    page = Page((run.path / "report.html").read_text())
    assert sum(source.startswith("data:image/gif") for source in page.sources) == 1
    assert "best, median and worst of 32: return 3.000, 3 steps" in page.text
    assert "their returns are equal, and one is shown" in page.text
    assert "The policy of seed 0 plays" in page.text


def test_a_population_is_told_entry_by_entry(population):
    assert main(["report", str(population), "--episodes", "2"]) == 0
    page = Page((population / "report.html").read_text())
    means = evaluate_run(kw.load(population), episodes=2).returns.mean(axis=1)
    entries = means.reshape(3, 2)
    best = entries.mean(axis=1).argmax()
    interval = f"(95% interval {number(entries[best].min())} to {number(entries[best].max())})"
    for words in (
        "PPO on CartPole-v1, 3 values of learning_rate x 2 seeds",
        f"learning_rate=0.02, seed 1 {number(means[5])}",
        f"learning_rate=0.002 {number(means[2:4].mean())}",
        "2 episodes, by the most likely actions, of each of 2 seeds; the interval is over seeds",
        f"episode length {number(entries[best].mean())} steps",  # of CartPole, whose returns they are
        f"best return {number(entries[best].mean())} {interval}, learning_rate=",
        f"The policy of learning_rate={(0.001, 0.002, 0.02)[best]:g}, seed 0 (one of 3 x 2 trainings)",
    ):
        assert words in page.text


def test_names_from_a_run_are_words_and_no_markup(run, tmp_path):
    folder = tmp_path / "<script>alert(1)<script>"
    folder.mkdir()
    for name in ("config.yaml", "environment.json", "metrics.jsonl"):
        (folder / name).write_bytes((run.path / name).read_bytes())
    facts = json.loads((folder / "environment.json").read_text())
    facts["command"] = ["<img src=x onerror=alert(1)>"]
    (folder / "environment.json").write_text(json.dumps(facts))
    (folder / "checkpoints").symlink_to(run.path / "checkpoints")
    assert main(["report", str(folder), "--episodes", "1", "--no-videos"]) == 0
    text = (folder / "report.html").read_text()
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text


def test_a_run_without_returns_has_no_curve(run, tmp_path):
    folder = tmp_path / "short"
    folder.mkdir()
    for name in ("config.yaml", "environment.json"):
        (folder / name).write_bytes((run.path / name).read_bytes())
    row = {name: None for name in run.metrics} | {"step": 1, "seconds": 1.0}
    row["rollout/ep_rew_mean"] = [None, None]
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "checkpoints").symlink_to(run.path / "checkpoints")
    output = tmp_path / "new" / "elsewhere.html"
    assert main(["report", str(folder), "-n", "1", "--no-videos", "-o", str(output)]) == 0
    assert "there is no curve" in output.read_text()


@pytest.mark.parametrize(
    ("keep", "words"),
    [
        (0, "holds no metrics: nothing was trained yet, or they were deleted"),
        (1, "is damaged in line 2: metrics end before it, and 1 line is left out"),
    ],
)
def test_what_is_lacking_is_said(run, tmp_path, keep, words):
    folder = shutil.copytree(run.path, tmp_path / "run")
    lines = (run.path / "metrics.jsonl").read_text().splitlines()[:keep]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in [*lines, *keep * ["x"]]))
    assert main(["report", str(folder), "-n", "1", "--no-videos"]) == 0
    text = Page((folder / "report.html").read_text()).text
    assert words in text
    assert ("Last row of metrics" in text) == (keep > 0)


def test_wrong_use(run, tmp_path, capsys):
    assert main(["report", str(run.path), "-o", str(tmp_path)]) == 2
    assert (
        f"is a directory; name a file, such as '{tmp_path}/report.html'" in capsys.readouterr().err
    )
    assert main(["report", str(tmp_path / "none")]) == 2
    assert "there is no run directory" in capsys.readouterr().err
    assert main(["report", str(tmp_path), "--episodes", "0"]) == 2
