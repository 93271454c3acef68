"""A third party's package, tests/third_party/: its mathematics, its use as a file, and its life from wheel to removal.

Nothing in the framework knows of it: what works for it works for anyone's.
"""

import csv
import hashlib
import json
import math
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from framework_reinforce.monte_carlo import RewardsToGo
from hypothesis import given
from hypothesis import strategies as st
from mutants import is_killed, mutate

import framework
from framework.cli import main
from framework.config import DEFAULTS
from framework.setup.building import build
from framework.setup.loading import load
from framework.setup.tree import configure
from framework.stages import Core
from framework.testing.strategies import assemble, episodes, lanes_of_episodes, real_steps

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tests" / "third_party"
MODULE = PACKAGE / "acme_rl.py"
PROJECT = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
acme = load([str(MODULE)]).plugins[0].module

TAKE, WAIT = 0, 1
CPU = torch.device("cpu")


# The estimator: each law takes the class under test first, so that a mutant can be put in its place.

LANES = lanes_of_episodes()
RATES = st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0])


def close(left, right):
    """float32 sums of at most five numbers of size ≤ 2: errors stay below 5 · 10 · 2⁻²³ ≈ 6e-6."""
    return len(left) == len(right) and all(math.isclose(a, b, abs_tol=6e-6) for a, b in zip(left, right, strict=True))


def law_definition(cls, lanes, rate):
    """Every real step's return and value target is Σₖ rₜ₊ₖ / (1 + rate·k) of its own episode, in float64."""
    estimate = cls(rate=rate)(assemble(lanes))
    expected = [
        [sum(r / (1 + rate * k) for k, r in enumerate(episode.rewards[t:])) for t in range(len(episode.rewards))]
        for lane in lanes
        for episode in lane
    ]
    for table in (estimate.returns, estimate.value_targets):
        assert all(close(a, b) for a, b in zip(real_steps(lanes, table), expected, strict=True))


def law_mixture_of_discounts(cls, lanes):
    """1/(1 + k) = ∫₀¹ γᵏ dγ (Fedus et al. 2019): with rate 1, the mean of rewards-to-go over all γ.

    At most five steps give a polynomial in γ of degree 4, which three Gauss–Legendre nodes integrate exactly.
    """
    rollout = assemble(lanes)
    nodes, weights = np.polynomial.legendre.leggauss(3)
    mean = sum(w / 2 * RewardsToGo(gamma=(1 + x) / 2)(rollout).returns for x, w in zip(nodes, weights, strict=True))
    returns = cls(rate=1.0)(rollout).returns
    assert all(close(a, b) for a, b in zip(real_steps(lanes, returns), real_steps(lanes, mean), strict=True))


def law_patience_is_the_plain_sum(cls, lanes):
    """Rate 0 discounts nothing: rewards-to-go with γ = 1, exactly, for the stories' rewards are quarters."""
    rollout = assemble(lanes)
    assert torch.equal(cls(rate=0.0)(rollout).returns, RewardsToGo(gamma=1.0)(rollout).returns)


def law_episodes_do_not_leak(cls, lanes, rate, other):
    """Another episode behind, in each lane, changes no return before it."""
    longer = [[*lane, other] for lane in lanes]
    alone, followed = (cls(rate=rate)(assemble(reported)).returns for reported in (lanes, longer))
    for n, lane in enumerate(lanes):
        steps = sum(len(episode.rewards) for episode in lane)
        assert torch.equal(alone[:steps, n], followed[:steps, n])


def law_padding_is_inert(cls, lanes, rate):
    """More padding changes no real step, and returns of padding are 0."""
    rollout = assemble(lanes, extra_padding=2)
    padded = cls(rate=rate)(rollout).returns
    assert real_steps(lanes, padded) == real_steps(lanes, cls(rate=rate)(assemble(lanes)).returns)
    assert not padded[~rollout.mask].any()


LAWS = {
    law_definition: (LANES, RATES),
    law_mixture_of_discounts: (LANES,),
    law_patience_is_the_plain_sum: (LANES,),
    law_episodes_do_not_leak: (LANES, RATES, episodes()),
    law_padding_is_inert: (LANES, RATES),
}
MUTANTS = {
    "counts k from 1": (law_definition, ("self.rate * k)", "self.rate * (k + 1))")),
    "discounts by the root": (law_mixture_of_discounts, ("(1 + self.rate * k)", "(1 + self.rate * k) ** 0.5")),
    "stops a step early": (law_patience_is_the_plain_sum, ("rollout.times.max()) + 1", "rollout.times.max())")),
    "lets episodes leak": (law_episodes_do_not_leak, ("episodes[now] == episodes[later]", "True")),
    "gives padding a return": (law_padding_is_inert, ("Estimate(returns, returns)", "Estimate(returns + 1, returns)")),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_hyperbolic_returns_obey(law):
    given(st.tuples(*LAWS[law]))(lambda drawn: law(acme.HyperbolicReturns, *drawn))()


def test_every_law_has_a_mutant():
    assert {law for law, _ in MUTANTS.values()} == set(LAWS)


@pytest.mark.parametrize("name", MUTANTS)
def test_law_kills_the_mutant_that(name):
    law, change = MUTANTS[name]
    is_killed(law, *LAWS[law], arguments=(mutate(acme.__name__, change).HyperbolicReturns,))


# The environment.


@st.composite
def marshmallow_stories(draw):
    """Settings, a seed, and some steps of some lanes' actions."""
    settings = {"max_steps": draw(st.integers(1, 4)), "chance": draw(st.sampled_from([0.0, 0.5, 1.0]))}
    lanes = draw(st.integers(1, 3))
    row = st.lists(st.sampled_from([TAKE, WAIT]), min_size=lanes, max_size=lanes)
    return settings, draw(st.integers(0, 99)), draw(st.lists(row, min_size=1, max_size=9))


def law_marshmallow_follows_its_rules(cls, story):
    """Each lane's every step: reward, true successor, how the episode ended, and where the next observation is from."""
    settings, seed, actions = story
    world, generator = cls(small=1.0, large=3.0, **settings), torch.Generator().manual_seed(seed)
    environment = world.build(len(actions[0]), CPU)
    seen = environment.reset(generator).tolist()
    assert not any(seen)
    for row in actions:
        step = environment.step(torch.tensor(row), generator)
        for lane, action in enumerate(row):
            reward, terminated, truncated = (
                getattr(step, name)[lane].item() for name in ("rewards", "terminated", "truncated")
            )
            came = action == WAIT and reward == 3.0
            assert reward == (1.0 if action == TAKE else 3.0 if came else 0.0)
            assert action == TAKE or world.chance == 0.5 or came == bool(world.chance)
            assert terminated == (action == TAKE or came)
            assert truncated == (not terminated and seen[lane] + 1 == world.max_steps)
            assert step.successors[lane] == seen[lane] + 1
            assert step.observations[lane] == (0 if terminated or truncated else seen[lane] + 1)
        seen = step.observations.tolist()


MARSHMALLOW_MUTANTS = {
    "ends twice": ("truncated = ~terminated & (successors == settings.max_steps)", "truncated = successors == 20"),
    "shows the next beginning as successor": ("Step(self.waited, successors,", "Step(self.waited, self.waited,"),
    "does not begin anew": ("successors * ~(terminated | truncated)", "successors"),
    "pays those who take twice": ("came = ~taken & (", "came = ("),
}


@given(marshmallow_stories())
def test_marshmallow_follows_its_rules(story):
    law_marshmallow_follows_its_rules(acme.Marshmallow, story)


@pytest.mark.parametrize("name", MARSHMALLOW_MUTANTS)
def test_the_rules_kill_the_marshmallow_that(name):
    mutant = mutate(acme.__name__, MARSHMALLOW_MUTANTS[name]).Marshmallow
    is_killed(law_marshmallow_follows_its_rules, marshmallow_stories(), arguments=(mutant,))


def test_the_large_reward_comes_as_often_as_its_chance_says_and_from_the_generator_alone():
    """One step of 20,000 waiting lanes: within six standard errors, 6·√(20,000·¼·¾) ≈ 367, and the same again."""
    environment = acme.Marshmallow(chance=0.25).build(20_000, CPU)

    def came(seed):
        generator = torch.Generator().manual_seed(seed)
        environment.reset(generator)
        return environment.step(torch.full((20_000,), WAIT), generator).terminated

    assert abs(int(came(1).sum()) - 5_000) < 367
    assert torch.equal(came(1), came(1))
    assert not torch.equal(came(1), came(2))


# The extension, and the three together.


def rollout_of(extensions):
    """One rollout of a world with rewards of both signs, and the scores that the run keeps."""
    loaded = load(["reinforce", str(MODULE)])
    tree = {"environment": {"name": "marshmallow", "small": -2.0, "chance": 0.5}, "extensions": extensions}
    run = build(configure(loaded, {**DEFAULTS, "reports": [], **tree}), loaded, Core())
    return run.hook.collect_rollout(run=run), run.finished


def test_clip_rewards_clips_what_is_learnt_from_and_not_the_score():
    plain, scores = rollout_of({"names": []})
    clipped, same_scores = rollout_of({"names": ["clip_rewards"], "clip_rewards": {"limit": 1.5}})
    assert set(plain.rewards.unique().tolist()) == {-2.0, 0.0, 3.0}
    assert torch.equal(clipped.rewards, plain.rewards.clamp(-1.5, 1.5))
    assert torch.equal(clipped.actions, plain.actions)
    assert np.array_equal(scores.returns, same_scores.returns)


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "limit", "waits"), [(0.1, None, True), (1.0, None, False), (0.1, 1.0, False)])
def test_who_discounts_more_waits_less(rate, limit, waits):
    """Always waiting is worth Σₖ 0.1·0.9ᵏ·3/(1 + rate·k), k < 20: 1.78 with rate 0.1, 0.75 with rate 1; taking, 1.

    With rewards clipped to 1 it is a third of that, 0.59. Objects are handed in; no name is needed.
    """
    result = framework.train(
        environment=acme.Marshmallow(),
        estimator=acme.HyperbolicReturns(rate=rate),
        extensions=[] if limit is None else [acme.ClipRewards(limit=limit)],
        optimizer=framework.OptimizerSettings(lr=0.01),
    )
    with torch.no_grad():
        assert (float(result.policy.table().exp()[0, WAIT]) > 0.5) == waits


# As a file, without packaging.


FILE = "reinforce,./acme_rl.py"
TIMES = ("seconds", "steps_per_second")


def command(*words, folder, expect=0):
    """Run a command in `folder`; nothing of this checkout reaches it but what it is given."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == expect, f"{words} in {folder}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def metrics_of(record):
    """metrics.csv as rows without the columns that hold times."""
    with (record / "metrics.csv").open(newline="") as file:
        return [{name: row[name] for name in row if name not in TIMES} for row in csv.DictReader(file)]


def learnt_the_same(one, other):
    """Whether two records hold the same numbers, bit for bit."""
    policies = [(record / "policy.safetensors").read_bytes() for record in (one, other)]
    return metrics_of(one) == metrics_of(other) and policies[0] == policies[1]


def assert_configured(config, chance, rate):
    """The package's environment, estimator and extension, with these two settings."""
    environment = {"name": "marshmallow", "small": 1.0, "large": 3.0, "chance": chance, "max_steps": 20}
    assert config["environment"] == environment
    assert config["estimator"] == {"name": "hyperbolic", "rate": rate}
    assert config["extensions"]["names"] == ["clip_rewards"]
    assert config["extensions"]["clip_rewards"] == {"limit": 2.0}


def config_of(record):
    return tomllib.loads((record / "config.toml").read_text(encoding="utf-8"))


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.slow
def test_a_file_is_selected_configured_trained_with_and_recorded(tmp_path):
    """`--plugins ./acme_rl.py`: all three parts by name, with flags of their own, and the record repeats the run."""
    shutil.copy(MODULE, tmp_path)
    run = (sys.executable, "-m", "framework", "run")
    parts = shlex.split(
        "--environment marshmallow --environment.chance 0.3 --estimator hyperbolic --estimator.rate 0.5"
        " --extensions clip_rewards --extensions.clip_rewards.limit 2 --iterations 3 --seed 7 --name mine"
    )
    summary = json.loads(command(*run, "--plugins", FILE, *parts, folder=tmp_path).stdout)
    assert (summary["iterations"], Path(summary["record"])) == (3, Path("runs/mine"))
    assert summary["mean_return"] > 0
    assert set(summary["action_probabilities"]) == {"TAKE", "WAIT"}

    mine = tmp_path / "runs" / "mine"
    config = config_of(mine)
    assert_configured(config, chance=0.3, rate=0.5)
    recorded = {plugin["name"]: plugin for plugin in json.loads((mine / "plugins.json").read_text())["plugins"]}
    assert set(recorded) == {"acme_rl", "reinforce", "reports"}
    assert recorded["acme_rl"]["sha256"] == sha256_of(MODULE)
    assert recorded["acme_rl"]["distribution"] == ""
    assert len(metrics_of(mine)) == 3

    command(*run, "--config", mine / "config.toml", "--name", "again", folder=tmp_path)
    assert learnt_the_same(mine, tmp_path / "runs" / "again")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--estimator hyperbolic --estimator.rate -1", "estimator.rate must be >= 0.0: -1.0"),
        ("--environment.chance 1.5", "environment.chance must be <= 1.0: 1.5"),
        ("--extensions clip_rewards --extensions.clip_rewards.limit 0", "extensions.clip_rewards.limit must be > 0.0"),
        ("--estimator hyperbolik", "no estimator 'hyperbolik'. Did you mean 'hyperbolic'?"),
        (
            "--estimator hyperbolic --rollout.fixed_steps 8",
            "estimator 'hyperbolic' needs complete episodes, and rollout.fixed_steps cuts them",
        ),
    ],
)
def test_what_a_stranger_declares_is_enforced_before_any_work(flags, message, tmp_path, monkeypatch, capsys):
    """Validators and `needs` of the file's classes: exit code 2, the flag's name in the message, and no record."""
    shutil.copy(MODULE, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--plugins", FILE, "--environment", "marshmallow", *shlex.split(flags)]) == 2
    assert message in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_strangers_settings_are_flags_with_their_comments_as_help(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    flags = ["--plugins", f"reinforce,{MODULE}", "--environment", "marshmallow", "--estimator", "hyperbolic"]
    with pytest.raises(SystemExit) as exit:
        main(["run", *flags, "--extensions", "clip_rewards", "--help"])
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert exit.value.code == 0
    for words in ("--estimator.rate", "impatience, per step; 0: none", "that it comes, each step", "size of a reward"):
        assert words in text


# Installed: the project's wheel and the third party's, by pip, in an environment of their own.


class Shop:
    """A folder with two wheels and an environment into which the project's was installed."""

    def __init__(self, folder):
        self.folder = folder
        for source in (ROOT, PACKAGE):
            command(
                sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source, folder=folder
            )
        command(sys.executable, "-m", "venv", folder / "venv", folder=folder)
        self.install("framework_rl")

    def install(self, project):
        (wheel,) = self.folder.glob(f"{project}-*.whl")
        # bytecode of all of torch would take a minute; what is imported is compiled then
        self.pip("install", "--quiet", "--no-compile", "--constraint", ROOT / "constraints.txt", wheel)

    def pip(self, *words):
        return command(self.folder / "venv" / "bin" / "python", "-m", "pip", *words, folder=self.folder)

    def framework(self, *words, expect=0):
        return command(self.folder / "venv" / "bin" / "framework", *words, folder=self.folder, expect=expect)

    def run(self, name, *words):
        """Train, and return the record's folder."""
        self.framework("run", *words, "--name", name)
        return self.folder / "runs" / name

    def listed(self):
        """What `framework plugins` says, by plugin."""
        return {plugin["name"]: plugin for plugin in json.loads(self.framework("plugins").stdout)["plugins"]}


@pytest.fixture(scope="module")
def shop():
    """With the framework, and no plugin but its own."""
    with tempfile.TemporaryDirectory(prefix="third-party-") as folder:
        yield Shop(Path(folder).resolve())


@pytest.fixture
def stocked(shop):
    """With the third party's package as well."""
    shop.install("acme_rl")
    yield shop
    shop.pip("uninstall", "--yes", PROJECT["name"])


def readme_command():
    """The flags of the command that the package's own README shows."""
    (line,) = [
        line for line in (PACKAGE / "README.md").read_text().splitlines() if line.startswith("framework run --env")
    ]
    return shlex.split(line)[2:]


@pytest.mark.slow
def test_the_wheel_brings_the_framework_and_its_own_plugins(shop):
    """What runs here is the installed wheel, not this checkout, and its plugins are all that there is."""
    where = command(shop.folder / "venv/bin/python", "-c", "import framework; print(framework.__file__)", folder="/")
    assert Path(where.stdout).is_relative_to(shop.folder)
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["framework.plugins"]
    listed = shop.listed()
    assert set(listed) == set(ours)
    assert {plugin["distribution"] for plugin in listed.values()} == {"framework-rl"}


@pytest.mark.slow
def test_an_installed_package_is_listed_with_distribution_and_version(stocked):
    assert stocked.listed()["acme"] == {
        "name": "acme",
        "distribution": PROJECT["name"],
        "version": PROJECT["version"],
        "source": "acme",
        "provides": {
            "environment": ["marshmallow"],
            "estimator": ["hyperbolic"],
            "extension": ["clip_rewards"],
        },
    }


@pytest.mark.slow
def test_an_installed_package_is_chosen_configured_recorded_and_repeated(stocked):
    """The README's command: settings in config.toml, provenance in plugins.json, and `--config` repeats every bit."""
    flags = [*readme_command(), "--iterations", "4"]
    record = stocked.run("readme", *flags, "--seed", "7")
    config = config_of(record)
    assert_configured(config, chance=0.2, rate=1.0)
    recorded = json.loads((record / "plugins.json").read_text())["plugins"]
    assert {
        "name": "acme",
        "version": PROJECT["version"],
        "distribution": PROJECT["name"],
        "module": "acme_rl",
        "sha256": sha256_of(MODULE),
    } in recorded
    assert len(metrics_of(record)) == 4

    again = stocked.run("readme-again", "--config", record / "config.toml")
    assert config_of(again) == config
    assert learnt_the_same(record, again)
    assert not learnt_the_same(record, stocked.run("readme-other", *flags, "--seed", "8"))


@pytest.mark.slow
def test_installing_a_package_changes_no_run_that_does_not_name_it(shop):
    """The same seed before, with and after it: the same metrics and the same policy, bit for bit."""
    flags = ("--seed", "3", "--iterations", "10")
    before = shop.run("before", *flags)
    shop.install("acme_rl")
    try:
        assert "acme" in shop.listed()
        between = shop.run("between", *flags)
    finally:
        shop.pip("uninstall", "--yes", PROJECT["name"])
    assert learnt_the_same(before, between)
    assert learnt_the_same(before, shop.run("after", *flags))


@pytest.mark.slow
def test_a_removed_package_is_gone_and_naming_it_is_a_usage_error(shop):
    """Not listed; its parts, its name and its record are refused with exit code 2 and reasons; other runs go on."""
    shop.install("acme_rl")
    record = shop.run("removed", *readme_command(), "--iterations", "1")
    shop.pip("uninstall", "--yes", PROJECT["name"])
    assert "acme" not in shop.listed()
    for words, message in {
        ("--estimator", "hyperbolic"): "error: no estimator 'hyperbolic'.",
        ("--plugins", "acme"): "error: no plugin 'acme'.",
        ("--config", record / "config.toml"): "error: no plugin 'acme'.",
    }.items():
        assert shop.framework("run", *words, expect=2).stderr.startswith(message)
    summary = json.loads(shop.framework("run", "--iterations", "2").stdout)
    assert summary["iterations"] == 2
