"""Messages name what to type instead."""

import pytest
from attrs import frozen
from command_line import said
from framework_parts import ActorCritic, Gaussian, Pendulum
from gymnasium import spaces

import framework
from framework import UsageError
from framework.cli import main
from framework.parts import Part
from framework.setup.loading import load
from framework.setup.suggestions import INSTEAD, flag_for, gymnasium_hint, refuse_actions

LOADED = load()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--total-timesteps", "1000"], "no option --total-timesteps: here it is --steps N"),
        (["--total_timesteps=1000"], "no option --total_timesteps: here it is --steps N"),
        (["--lr", "0.1"], "no option --lr: here it is --optimizer.lr X"),
        (["--learning-rate", "0.1"], "no option --learning-rate: here it is --optimizer.lr X"),
        (["--gamma", "0.9"], "no option --gamma: here it is --estimator.gamma X"),
        (["--num-envs", "8"], "no option --num-envs: here it is --rollout.lanes N"),
        (["--n_steps", "8"], "no option --n_steps: here it is --rollout.fixed-steps N"),
        (["--env-id", "X-v1"], "no option --env-id: here it is --environment gymnasium --environment.id ID"),
        (["--batch-size", "8"], "no option --batch-size: here it is --update.minibatches N, how many there are"),
    ],
)
def test_a_flag_of_another_library_is_answered_with_the_one_here(words, message, capsys):
    assert said(capsys, "run", *words, code=2).err == f"error: {message}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--recipe", "ppo", "--environment.id", "X-v1"],
            "no option --environment.id.\n"
            "Environment 'gymnasium' has 'id': choose that part, too (--environment gymnasium)",
        ),
        (
            ["--estimator.lam=0.9"],
            "no option --estimator.lam.\nThese parts have 'lam': gae, lambda_returns. "
            "Choose one of them, too (--estimator NAME)",
        ),
        (
            ["--policy.no-shared"],
            "no option --policy.no-shared.\n"
            "Policy 'actor_critic' has 'shared': choose that part, too (--policy actor_critic)",
        ),
        (
            ["--loss", "ppo", "--loss.clip-range", "0.1"],
            "no option --loss.clip-range.\n'clip_range' of other libraries is loss.clip here (on the command line, "
            "--loss.clip X)",
        ),
        (
            ["--optimizer.betas", "0.9", "0.95"],
            "no option --optimizer.betas: here it is --optimizer.options betas VALUE",
        ),
        (
            ["--optimizer.options.betas", "[0.9, 0.95]"],
            "no option --optimizer.options.betas: a table takes names and values in turn, "
            "--optimizer.options betas VALUE",
        ),
    ],
    ids=lambda value: value[-2] if isinstance(value, list) and len(value) > 1 else "",
)
def test_an_option_that_the_chosen_parts_do_not_have_is_answered_with_what_has_it(words, message, capsys):
    assert said(capsys, "run", *words, code=2).err == f"error: {message}\n"


@pytest.mark.parametrize("given", [{"environment": {"id": "X-v1"}}, {"environment__id": "X-v1"}])
def test_a_setting_of_another_part_is_answered_in_python_too(given):
    with pytest.raises(UsageError, match="Environment 'gymnasium' has 'id': choose that part, too"):
        framework.train(**given)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--steps", "1e6"], "--steps: it must be an integer, such as 1000000, and is 1e6"),
        (["--rollout.episodes", "few"], "--rollout.episodes: it must be an integer, and is few"),
        (["--update.max-grad-norm", "no"], "--update.max-grad-norm: it must be a number, and is no"),
    ],
)
def test_a_number_that_is_none_is_answered_with_what_is_expected(words, message, capsys):
    with pytest.raises(SystemExit):
        main(["run", *words])
    reported = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in reported
    assert "class" not in reported


@pytest.mark.slow
def test_every_flag_that_is_offered_exists(capsys):
    """Of the recipe ppo with the extensions that are named: each is in its help."""
    text = said(capsys, "run", "--recipe", "ppo", "--extensions", "evaluate", "--help").out
    text += said(capsys, "run", "--environment", "gymnasium", "--help").out
    for flag in INSTEAD:
        for word in flag.replace(",", " ").split():
            if word.startswith("--"):
                assert f"{word} " in text or f"{word}," in text, word


def test_no_flag_of_ours_is_taken_for_another_librarys():
    """A name in the table that is one of our own flags would be refused where it works."""
    ours = {"iterations", "steps", "seed", "device", "threads", "compile", "config", "recipe", "reports", "plugins"}
    ours |= {"environment", "policy", "estimator", "baseline", "loss", "extensions", "name", "quiet"}
    assert not [name for name in ours if flag_for(name)]


def test_the_flags_of_a_command_are_its_own(tmp_path, monkeypatch, capsys):
    """`--lanes` is one of evaluate's."""
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--iterations", "1", "--name", "first", "--quiet"]) == 0
    assert '"episodes": 2,' in said(capsys, "evaluate", "runs/first", "--lanes", "2", "--episodes", "2").out
    assert "here it is --rollout.lanes N" in said(capsys, "run", "--lanes", "2", code=2).err


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("CartPole-v1", "CartPole-v1"),
        ("cartpole-v1", "CartPole-v1"),
        ("Cartpole-v1", "CartPole-v1"),
        ("ALE/Pong-v5", "ALE/Pong-v5"),
        ("my_worlds:Mine-v0", "my_worlds:Mine-v0"),
        ("HalfCheetah-v9", "HalfCheetah-v9"),
    ],
)
def test_an_id_of_gymnasium_is_answered_with_how_its_plugin_makes_it(name, whole, capsys):
    error = said(capsys, "run", "--environment", name, code=2).err
    expected = f"--environment gymnasium --environment.id {whole}, or environment="
    assert expected in error or name == "HalfCheetah-v9"
    assert "--environment gymnasium --environment.id HalfCheetah-v" in error or name != "HalfCheetah-v9"
    with pytest.raises(UsageError, match="An environment of Gymnasium is named by its id: --environment gymnasium"):
        framework.train(environment=name)


def test_other_names_are_not():
    for name in ("line_wrld", "cartpol", "my-world", "v1"):
        assert gymnasium_hint(name) == ""


@pytest.mark.parametrize(
    ("policy", "space", "message"),
    [
        (
            ActorCritic(),
            spaces.Box(-2, 2, (1,)),
            "policy 'actor_critic' takes Discrete actions, and the environment's are Box(-2.0, 2.0, (1,), float32): "
            "choose --policy gaussian, or --recipe ppo_continuous",
        ),
        (
            ActorCritic(),
            spaces.MultiDiscrete([2, 3]),
            "policy 'actor_critic' takes Discrete actions, and the environment's are MultiDiscrete([2 3]): "
            "choose --policy multi_categorical",
        ),
        (
            Gaussian(),
            spaces.Discrete(2),
            "policy 'gaussian' takes Box actions, and the environment's are Discrete(2): choose --policy actor_critic, "
            "categorical, recurrent or tabular, or --recipe a2c, grpo, ppo, reinforce or rloo",
        ),
        (
            Gaussian(),
            spaces.Text(3),
            "policy 'gaussian' takes Box actions, and the environment's are Text(1, 3, charset=",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_policy_that_does_not_take_the_actions_names_those_that_do_and_the_recipe(policy, space, message):
    with pytest.raises(UsageError) as caught:
        refuse_actions(LOADED.part_of("policy", policy), space, LOADED)
    assert str(caught.value).startswith(message)


def test_it_is_said_before_the_first_step():
    with pytest.raises(UsageError, match="choose --policy gaussian, or --recipe ppo_continuous$"):
        framework.train(recipe="ppo", environment=Pendulum())


@frozen
class Anything:
    """A policy of one's own, which says nothing of what it takes."""


@pytest.mark.parametrize(
    "declared",
    [5, "Discrete", (5,), [spaces.Discrete(2)], property(lambda self: ())],
    ids=lambda given: type(given).__name__,
)
def test_what_is_no_tuple_of_classes_is_the_policys(declared):
    cls = frozen(type("Odd", (), {"takes": declared, "__annotations__": {}}))
    with pytest.raises(UsageError, match="^policy 'odd' .plugin mine.: takes must be a tuple of classes of gymnasium"):
        refuse_actions(Part("policy", "odd", "mine", cls()), spaces.Discrete(2), LOADED)


def test_a_policy_that_declares_nothing_is_asked_itself():
    refuse_actions(Part("policy", "anything", "mine", Anything()), spaces.Text(3), LOADED)
