"""What a recipe says stays, except what is given: from Python exactly as on the command line."""

import copy
import pickle
import tomllib
import warnings

import attrs
import framework_recipes
import numpy as np
import pytest
from attrs import frozen
from framework_parts import (
    PPO,
    ActorCritic,
    CartPole,
    Constant,
    Gymnasium,
    LineWorld,
    NStep,
    Recurrent,
    Standardize,
    TotalReturn,
)

import framework
from framework import OptimizerSettings, RolloutSettings, UpdateSettings, UsageError
from framework.cli import main
from framework.config import DEFAULTS
from framework.setup.layers import merge
from framework.setup.loading import load
from framework.setup.resolving import recipe_of, resolve_arguments
from framework.setup.tree import configure, to_tree

LOADED = load()
RECIPES = LOADED.names("recipe")


def resolved(recipe=None, **given):
    """The tree that `framework.train` with these arguments would run, and the settings that objects left alone."""
    own = ("environment", "policy", "estimator", "baseline", "loss", "extensions", "rollout", "update", "optimizer")
    own += ("iterations", "steps", "seed", "device", "threads", "compile", "trace_gradients")
    arguments = {key: value for key, value in given.items() if key in own}
    flags = {key: value for key, value in given.items() if key not in own}
    config, kept = resolve_arguments(LOADED, (DEFAULTS, recipe_of(LOADED, recipe), {"reports": []}), arguments, flags)
    return to_tree(config, LOADED), kept


def shown(capsys, *words):
    assert main(["show", *words]) == 0
    return tomllib.loads(capsys.readouterr().out)


# What is said on the command line, and the same from Python in several ways
OVERRIDES = {
    "nothing": ("", {}),
    "epochs": (
        "--update.epochs 10",
        {"update": {"epochs": 10}},
        {"update": UpdateSettings(epochs=10)},
        {"update__epochs": 10},
        {"update.epochs": 10},
    ),
    "norm": ("--update.max-grad-norm None", {"update": {"max_grad_norm": None}}, {"update.max-grad-norm": "None"}),
    "lanes": ("--rollout.lanes 32", {"rollout": RolloutSettings(lanes=32)}, {"rollout": {"lanes": 32}}),
    "way": ("--rollout.episodes 64", {"rollout": RolloutSettings(episodes=64)}, {"rollout__episodes": 64}),
    "rate": (
        "--optimizer.lr 0.5",
        {"optimizer": OptimizerSettings(lr=0.5)},
        {"optimizer": {"lr": 0.5}},
    ),
    "option": (
        "--optimizer.options weight_decay 0.1 betas [0.8,0.9]",
        {"optimizer": {"options": {"weight_decay": 0.1, "betas": (0.8, 0.9)}}},
        {"optimizer__options__weight_decay": 0.1, "optimizer__options__betas": [0.8, 0.9]},
    ),
    "optimizer": (
        "--optimizer.name SGD --optimizer.options nesterov true momentum 0.9",
        {"optimizer": {"name": "SGD", "options": {"nesterov": True, "momentum": 0.9}}},
        {"optimizer": OptimizerSettings(name="SGD", options={"nesterov": True, "momentum": 0.9})},
    ),
    "environment": (
        "--environment cartpole --environment.max-steps 50",
        {"environment": {"name": "cartpole", "max_steps": 50}},
        {"environment": CartPole(max_steps=50)},
        {"environment": "cartpole", "environment__max_steps": 50},
    ),
    "policy's setting": (
        "--policy.hidden 8 8",
        {"policy": {"hidden": [8, 8]}},
        {"policy__hidden": (8, 8)},
    ),
    "estimator's setting": ("--estimator.gamma 0.5", {"estimator": {"gamma": 0.5}}, {"estimator.gamma": 0.5}),
    "loss's setting": ("--loss.entropy 0.1", {"loss": {"entropy": 0.1}}, {"loss__entropy": 0.1}),
    "extension": ("--extensions evaluate", {"extensions": ["evaluate"]}, {"extensions": {"evaluate": True}}),
    "extension's setting": (
        "--extensions evaluate,standardize --extensions.evaluate.every 3 --extensions.standardize.epsilon 0.1",
        {
            "extensions": {
                "names": ["evaluate", "standardize"],
                "evaluate": {"every": 3},
                "standardize": {"epsilon": 0.1},
            }
        },
        {
            "extensions": "evaluate,standardize",
            "extensions__evaluate__every": 3,
            "extensions.standardize.epsilon": 0.1,
        },
    ),
    "extension removed": (
        "--extensions.no-standardize",
        {"extensions": {"standardize": False}},
        {"extensions__standardize": False},
    ),
    "length": ("--steps 5000 --seed 3", {"steps": 5000, "seed": 3}),
    "both lengths": ("--steps 5000 --iterations 7", {"steps": 5000, "iterations": 7}),
    "numbers of numpy": (
        "--iterations 7 --optimizer.lr 0.5",
        {"iterations": np.int64(7), "optimizer": {"lr": np.float64(0.5)}},
    ),
}


@pytest.mark.parametrize("name", OVERRIDES)
@pytest.mark.parametrize(
    "recipe",
    ["ppo", *(pytest.param(one, marks=pytest.mark.slow) for one in [None, *RECIPES] if one != "ppo")],
)
def test_the_command_line_and_python_come_to_the_same_configuration(recipe, name, capsys):
    """Or to the same refusal, such as of betas for a recipe's RMSprop."""
    words, *ways = OVERRIDES[name]
    code = main(["show", *([] if recipe is None else ["--recipe", recipe]), "--reports", *words.split()])
    said = capsys.readouterr()
    for given in ways:
        if code == 0:
            assert resolved(recipe, **given)[0] == tomllib.loads(said.out), given
            continue
        with pytest.raises(UsageError) as caught:
            resolved(recipe, **given)
        assert said.err == f"error: {caught.value}\n", given


@pytest.mark.parametrize("recipe", RECIPES)
def test_what_a_recipe_says_stays_but_for_what_was_given(recipe):
    """The sections of every recipe, with an object that gives one field: all the others are the recipe's."""
    plain, _ = resolved(recipe)
    objects = {
        "update": UpdateSettings(epochs=9),
        "optimizer": OptimizerSettings(lr=0.125),
        "rollout": RolloutSettings(lanes=64),
    }
    changed, kept = resolved(recipe, **objects)
    assert kept == []
    expected = {**plain, "update": {**plain["update"], "epochs": 9}, "optimizer": {**plain["optimizer"], "lr": 0.125}}
    assert changed == {**expected, "rollout": {**plain["rollout"], "lanes": 64}}


def test_a_parts_object_keeps_the_recipes_settings_and_says_which(monkeypatch):
    """An object that does not know what it was given: here the baseline `constant`."""
    monkeypatch.setitem(framework_recipes.RLOO, "baseline", {"name": "constant", "value": 3.0})
    with pytest.warns(
        UserWarning, match="recipe 'rloo' sets baseline.value = 3.0, and the object given leaves"
    ) as reported:
        result = framework.train(recipe="rloo", baseline=Constant(), iterations=1)
    assert len(reported) == 1
    assert reported[0].filename == __file__
    assert result.config.baseline.settings == Constant(value=3.0)


def test_a_built_in_parts_object_gives_what_it_was_made_with():
    """Even what is the class's default; nothing is left to guess, and so there is no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = framework.train(recipe="ppo", loss=PPO(entropy=0.5), iterations=1, rollout__fixed_steps=16)
        assert result.config.loss.settings == PPO(entropy=0.5, target_kl=0.05, clip=0.2, value=0.5)
        result = framework.train(recipe="ppo", loss=PPO(target_kl=None), iterations=1, rollout__fixed_steps=16)
        assert result.config.loss.settings == PPO(target_kl=None, clip=0.2, value=0.5)
    tree, _ = resolved("ppo", policy=ActorCritic(shared=True))
    assert tree["policy"] == {**resolved("ppo")[0]["policy"], "shared": True}
    tree, _ = resolved("ppo", policy=ActorCritic(hidden=(32,)))
    assert tree["policy"] == {**resolved("ppo")[0]["policy"], "hidden": [32]}
    tree, _ = resolved("ppo", extensions=[Standardize(within="batch")])
    assert tree["extensions"]["standardize"]["within"] == "batch"
    tree, _ = resolved("grpo", environment=LineWorld(goal=6))
    assert (tree["environment"]["goal"], tree["environment"]["group_size"]) == (6, 8)
    tree, _ = resolved("rloo", estimator=TotalReturn(gamma=0.99))
    assert tree["estimator"]["gamma"] == 0.99
    tree, _ = resolved("a2c", estimator=NStep(gamma=0.9))
    assert tree["estimator"] == {"name": "n_step", "gamma": 0.9, "n": 5}


def test_an_object_that_says_all_that_the_recipe_does_gets_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        settings = PPO(clip=0.1, target_kl=0.5)
        result = framework.train(recipe="ppo", loss=settings, iterations=1, rollout__fixed_steps=16)
        assert result.config.loss.settings is settings
        framework.train(recipe="ppo", environment=CartPole(), iterations=1, rollout__fixed_steps=16)


def test_an_environment_of_gymnasium_is_the_one_that_was_given():
    """Its id is given, though it is the class's default: the recipe's would be another world."""
    tree, kept = resolved("ppo_continuous", environment=Gymnasium(id="CartPole-v1"))
    assert tree["environment"]["id"] == "CartPole-v1"
    assert kept == []
    assert resolved("ppo_continuous", environment=Gymnasium(metrics=()))[0]["environment"]["id"] == "Pendulum-v1"


def test_an_object_of_another_part_is_complete_as_it_is():
    tree, kept = resolved("ppo", policy=Recurrent())
    assert tree["policy"]["name"] == "recurrent"
    assert tree["policy"]["activation"] == "relu"
    assert kept == []


@pytest.mark.parametrize(
    "settings",
    [
        RolloutSettings(lanes=4),
        RolloutSettings(4, fixed_steps=5),
        UpdateSettings(epochs=2, max_grad_norm=None),
        OptimizerSettings("SGD", lr=0.5, options={"momentum": 0.9}),
    ],
    ids=repr,
)
def test_a_copy_of_a_section_still_knows_what_was_given(settings):
    for other in (copy.copy(settings), copy.deepcopy(settings), pickle.loads(pickle.dumps(settings))):
        assert other == settings
        assert hash(repr(other)) == hash(repr(settings))
        assert other.given() == settings.given()
    every = {field.name for field in attrs.fields(type(settings))}
    assert attrs.evolve(settings).given().keys() == every


# Extensions


def test_naming_extensions_adds_them_in_every_layer():
    layers = ({"extensions": {"names": ["a"], "a": {"x": 1}}}, {"extensions": {"names": ["b", "a"]}})
    assert merge(*layers) == {"extensions": {"names": ["a", "b"], "a": {"x": 1}}}
    assert merge(*layers, {"extensions": {"a": False}}) == {"extensions": {"names": ["b"], "a": False}}
    again = merge(*layers, {"extensions": {"a": False}}, {"extensions": {"names": ["a"]}})
    assert again == {"extensions": {"names": ["b", "a"]}}  # with its own defaults


def test_a_file_adds_to_a_recipes_extensions_and_takes_them_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "more.toml").write_text("[extensions]\nnames = ['evaluate']\n")
    (tmp_path / "less.toml").write_text("[extensions]\nstandardize = false\n")
    (tmp_path / "odd.toml").write_text("[extensions]\nstandardise = false\n")
    (tmp_path / "report.toml").write_text("[extensions]\nplot = false\n")
    tree = shown(capsys, "--recipe", "ppo", "--config", "more.toml")
    assert tree["extensions"]["names"] == ["standardize", "evaluate"]
    assert tree["extensions"]["standardize"]["within"] == "minibatch"
    assert shown(capsys, "--recipe", "ppo", "--config", "less.toml")["extensions"]["names"] == []
    for name, message in {
        "odd": "error: odd.toml: no extension 'standardise'. Did you mean 'standardize'?",
        "report": "error: report.toml: extension 'plot' is one of the reports: leave it out there, reports = […]",
    }.items():
        assert main(["show", "--config", f"{name}.toml"]) == 2
        assert capsys.readouterr().err.startswith(message)


def test_a_record_repeats_exactly_its_extensions_with_a_recipe_below_it_too(tmp_path, monkeypatch, capsys):
    """Its config.toml is complete: nothing of a recipe is left, not even what TOML leaves out because it is None."""
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--iterations", "1", "--name", "first", "--quiet", "--reports", "record"]) == 0
    expected = (tmp_path / "runs" / "first" / "config.toml").read_text()
    for words in (["--config", "runs/first"], ["--config", "runs/first/config.toml", "--recipe", "ppo"]):
        assert main(["show", *words]) == 0
        assert capsys.readouterr().out == expected


def test_evaluating_changes_no_bit_of_a_recipes_run(tmp_path, monkeypatch, capsys):
    """As docs/howto/evaluate.md says: `--extensions evaluate` on the recipe ppo, whose own extension stays."""
    monkeypatch.chdir(tmp_path)
    words = ["run", "--recipe", "ppo", "--environment", "cartpole", "--iterations", "4", "--quiet"]
    assert main([*words, "--name", "plain"]) == 0
    evaluating = ["--extensions", "evaluate", "--extensions.evaluate.every", "2", "--extensions.evaluate.episodes", "3"]
    assert main([*words, "--name", "evaluated", *evaluating]) == 0
    one, other = (tmp_path / "runs" / name / "policy.safetensors" for name in ("plain", "evaluated"))
    assert one.read_bytes() == other.read_bytes()
    assert (tmp_path / "runs" / "evaluated" / "best.safetensors").is_file()


# Refusals


@frozen
class Own:
    """An estimator of one's own."""

    factor: float = 1.0

    def __call__(self, rollout):
        return framework.Estimate(rollout.rewards, rollout.rewards)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"itterations": 3}, "no section or key 'itterations'. Did you mean 'iterations'? There is: "),
        (
            {"total_timesteps": 3},
            "no section or key 'total_timesteps': here it is steps (on the command line, ",
        ),
        ({"learning_rate": 3}, "no section or key 'learning_rate': here it is optimizer.lr (on the command line, "),
        ({"update__epcohs": 3}, "no setting of update 'epcohs'. Did you mean 'epochs'?"),
        ({"policy": {"hiden": 3}}, "no setting of policy 'hiden'. Did you mean 'hidden'?"),
        ({"policy": "actor_critc"}, "no policy 'actor_critc'. Did you mean 'actor_critic'?"),
        ({"policy": 5}, "policy must be a name, a dict or a settings object, got 5"),
        ({"update": 5}, "update must be a dict or UpdateSettings(…), got 5"),
        ({"update": RolloutSettings()}, "update must be a dict or UpdateSettings(…), got RolloutSettings("),
        ({"extensions": 5}, "extensions must be a list of names and settings objects, or a dict, got 5"),
        ({"recipe": 5}, "recipe must be a string: 5"),
        ({"recipe": "pop"}, "no recipe 'pop'. Did you mean 'ppo'?"),
        (
            {"policy": ActorCritic(), "policy.name": "gaussian"},
            "policy is given as an object and by the name 'gaussian'",
        ),
        (
            {"extensions": ["standardize"], "recipe": "ppo", "extensions__standardize": 3},
            "extensions.standardize must be",
        ),
        ({"environment": "CartPole-v1"}, "no environment 'CartPole-v1'."),
        ({"plugins": 5}, "train: plugins must be a list of strings: 5"),
        ({"estimator": Own(factor="much")}, "estimator.factor must be a number: 'much'"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused_in_words(given, message):
    with pytest.raises(UsageError) as caught:
        framework.train(**given)
    assert str(caught.value).startswith(message)


def test_an_own_class_takes_settings_by_keyword_too():
    config, _ = resolve_arguments(LOADED, (DEFAULTS,), {"estimator": Own()}, {"estimator__factor": 0.5})
    assert config.estimator.settings == Own(0.5)


def test_settings_are_of_the_part_that_is_implied(capsys):
    """As with flags: `--baseline.ridge` is the implied baseline's where the estimator implies one."""
    assert configure(LOADED, merge(DEFAULTS)).baseline.name == "none"
    with pytest.raises(UsageError, match="no setting of baseline 'ridge'"):
        resolved(estimator="gae", policy="actor_critic", loss="ppo", baseline={"ridge": 1.0})
