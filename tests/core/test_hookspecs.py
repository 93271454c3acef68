"""Hooks: the stages accept wrappers only, extensions work in the order named, and only where they are named."""

import math
import time

import attrs
import numpy as np
import pytest
import torch
from attrs import frozen
from foreign import publish

import framework
from framework import RolloutSettings, UpdateSettings, UsageError, hookimpl
from framework.hookspecs import STAGES, Providers, RunHooks
from framework.setup.plugin_hooks import names

OBSERVERS = ("run_started", "iteration_finished", "run_finished", "run_failed")
COLLECTING = ("measure", "should_stop")


def extension(name="Extension", **hooks):
    """An extension's settings whose working object has these methods."""

    def build(self, run):
        return type(f"Working{name}", (), hooks)()

    return frozen(type(name, (), {"__doc__": "Of this test.", "build": build}))()


def test_the_hooks_are_those_that_the_design_promises():
    """Other people's packages rely on the names: to take one away, this test has to be changed on purpose."""
    assert set(names(Providers)) == {
        *("environments", "policies", "estimators", "baselines", "losses", "extensions", "recipes")
    }
    assert set(names(RunHooks)) == {*STAGES, *OBSERVERS, *COLLECTING}
    assert STAGES == ("collect_rollout", "estimate_advantages", "prepare_batch", "compute_loss", "apply_gradients")


@pytest.mark.parametrize("hook", [*names(Providers), *names(RunHooks)])
def test_every_hook_says_what_it_is_for(hook):
    specification = getattr(Providers, hook, None) or getattr(RunHooks, hook)
    assert len(specification.__doc__.split()) >= 8


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("marker", [hookimpl, hookimpl(hookwrapper=True), hookimpl(tryfirst=True)])
def test_a_stage_that_is_not_wrapped_is_refused(stage, marker):
    def replace(self):
        yield

    with pytest.raises(UsageError) as caught:
        framework.train(extensions=[extension(**{stage: marker(replace)})], iterations=1)
    assert str(caught.value) == (
        f"extension 'Extension' (plugin test_hookspecs): {stage} is a stage and would be replaced: "
        "wrap it, with @hookimpl(wrapper=True)"
    )


@pytest.mark.parametrize(
    ("hooks", "message"),
    [
        ({"run_started": lambda self: None}, "implements no hook; is @hookimpl missing?"),
        (
            {"run_strted": hookimpl(lambda self: None)},
            "unknown hook 'run_strted'. Did you mean 'run_started'? There is: ",
        ),
        ({"run_started": hookimpl(lambda self, runn: None)}, "Argument(s) {'runn'} are declared in the hookimpl"),
    ],
)
def test_an_extension_that_keeps_no_rules_is_refused(hooks, message):
    with pytest.raises(UsageError) as caught:
        framework.train(extensions=[extension(**hooks)], iterations=1)
    assert str(caught.value).startswith("extension 'Extension' (plugin test_hookspecs): ")
    assert message in str(caught.value)


def test_a_newer_hook_may_be_marked_optional():
    hooks = {"checkpoint_written": hookimpl(lambda self: None, optionalhook=True)}
    assert framework.train(extensions=[extension(**hooks)], iterations=1).run.iteration == 1


def recorder(name, calls):
    """An extension that wraps every stage and observes everything, and writes down in which order."""

    def wrapper(stage):
        def wrap(self, run):
            calls.append((name, stage, "before"))
            result = yield
            calls.append((name, stage, "after"))
            return result

        return hookimpl(wrap, wrapper=True)

    def observer(hook):
        def observe(self, run):
            calls.append((name, hook, "reported"))

        return hookimpl(observe)

    return extension(
        name,
        **{stage: wrapper(stage) for stage in STAGES},
        **{hook: observer(hook) for hook in (*OBSERVERS, *COLLECTING)},
    )


def test_a_run_calls_each_hook_when_its_specification_says():
    calls = []
    framework.train(
        extensions=[recorder("one", calls)], iterations=2, update=UpdateSettings(epochs=2, minibatches=3), seed=3
    )
    reported = [hook for _, hook, when in calls if when in ("before", "reported")]
    minibatch = ["prepare_batch", "compute_loss", "apply_gradients"]
    iteration = ["collect_rollout", "estimate_advantages", *minibatch * 6]
    iteration += ["measure", "iteration_finished", "should_stop"]
    assert reported == ["run_started", *iteration * 2, "run_finished"]


def test_the_first_named_extension_is_the_innermost_wrapper_and_the_first_told():
    calls = []
    framework.train(extensions=[recorder(name, calls) for name in ("one", "two")], iterations=1)
    assert [(name, when) for name, hook, when in calls if hook == "compute_loss"] == [
        *[("two", "before"), ("one", "before"), ("one", "after"), ("two", "after")]
    ]
    for hook in ("run_started", "measure", "iteration_finished", "should_stop", "run_finished"):
        assert [name for name, reported, _ in calls if reported == hook] == ["one", "two"]


def test_changes_are_made_in_the_order_named():
    """Adding one, then doubling, is not doubling, then adding one."""
    seen = []

    def changing(name, change):
        def wrap(self):
            result = yield
            return attrs.evolve(result, advantages=change(result.advantages))

        return extension(name, estimate_advantages=hookimpl(wrap, wrapper=True))

    def look(self):
        result = yield
        seen.append((result.advantages, result.returns))
        return result

    add, double = changing("Add", lambda x: x + 1), changing("Double", lambda x: x * 2)
    for order in ([add, double], [double, add]):
        looking = extension("Look", estimate_advantages=hookimpl(look, wrapper=True))
        framework.train(extensions=[*order, looking], iterations=1)
    (added_first, returns), (doubled_first, _) = seen
    assert torch.equal(added_first, (returns + 1) * 2)
    assert torch.equal(doubled_first, returns * 2 + 1)


def test_what_observers_return_is_ignored_and_all_reasons_to_stop_are_recorded():
    hooks = {hook: hookimpl(lambda self: "ignored") for hook in OBSERVERS}
    stops = [
        extension("One", should_stop=hookimpl(lambda self, metrics: "steps" if metrics["iteration"] == 1 else None)),
        extension("Two", should_stop=hookimpl(lambda self, run: "time" if run.iteration >= 1 else "")),
    ]
    result = framework.train(extensions=[extension("Observer", **hooks), *stops], iterations=9)
    assert result.stop_reasons == ("steps", "time")
    assert len(result.metrics["iteration"]) == 2


def test_an_observer_gets_the_row_that_the_history_gets():
    rows = []
    hooks = {"iteration_finished": hookimpl(lambda self, metrics: rows.append(dict(metrics)))}
    result = framework.train(extensions=[extension(**hooks)], iterations=3)
    assert [row["mean_return"] for row in rows] == result.metrics["mean_return"].tolist()
    assert rows[0].keys() == result.metrics.keys()


def test_what_extensions_measure_is_in_the_row():
    """Once they measure it, and as soon as the iteration's steps are counted; between times there is no number."""
    rows = []

    def measure(self, run):
        counted = run.steps, run.episodes, run.recent_returns[-1], len(run.loss_metrics)
        return dict(zip(("a/steps", "a/episodes", "a/last", "a/updates"), counted, strict=True))

    sometimes = hookimpl(lambda self, run: {"b": np.float32(0.5), "c": math.nan} if run.iteration % 2 else None)
    reported = extension("Observer", iteration_finished=hookimpl(lambda self, metrics: rows.append(dict(metrics))))
    extensions = [reported, extension("A", measure=hookimpl(measure)), extension("B", measure=sometimes)]
    result = framework.train(extensions=extensions, iterations=4, seed=5)
    plain = framework.train(iterations=4, seed=5)
    metrics = result.metrics
    assert metrics["a/steps"].tolist() == plain.metrics["steps"].tolist()
    assert metrics["a/episodes"].tolist() == plain.metrics["episodes"].tolist()
    assert metrics["a/updates"].tolist() == [1] * 4
    assert metrics["a/last"][-1] == plain.recent_returns[-1]
    assert np.array_equal(metrics["b"], [math.nan, 0.5, math.nan, 0.5], equal_nan=True)
    assert np.isnan(metrics["c"]).all()
    assert metrics.keys() == plain.metrics.keys() | {"a/steps", "a/episodes", "a/last", "a/updates", "b", "c"}
    assert [row["a/steps"] for row in rows] == metrics["a/steps"].tolist()
    assert [type(row["b"]) for row in rows[1:]] == [float] * 3


def test_the_time_of_measuring_is_its_iterations_own():
    """`seconds` after the sleep of iteration 1 are those before it and the sleep, at least: so the next has no part."""
    slept = []

    def measure(self, run):
        if run.iteration == 1:
            slept.append((time.perf_counter(), time.sleep(0.05), time.perf_counter()))

    metrics = framework.train(extensions=[extension(measure=hookimpl(measure))], iterations=3).metrics
    ((begun, _, ended),) = slept
    assert metrics["seconds"][1] - metrics["seconds"][0] >= ended - begun


def test_run_failed_is_told_once_and_the_error_goes_on():
    reported = []
    hooks = {
        "run_failed": hookimpl(lambda self, run, error: reported.append((run.iteration, str(error)))),
        "iteration_finished": hookimpl(lambda self, run: 1 / (1 - run.iteration)),
    }
    with pytest.raises(framework.PartError, match="ZeroDivisionError") as caught:
        framework.train(extensions=[extension(**hooks)], iterations=3)
    assert reported == [(1, str(caught.value))]


def test_the_same_extension_may_be_used_twice_with_other_settings():
    """Extensions that are equal as attrs objects do not clash."""
    calls = []
    reported = hookimpl(lambda self: calls.append(self))
    same = extension(run_started=reported)
    framework.train(extensions=[same, extension("Other", run_started=reported)], iterations=1)
    assert len(calls) == 2


METRICS_OF_TIME = ("seconds", "steps_per_second")


def test_installing_a_package_changes_no_run_that_does_not_name_it(tmp_path, monkeypatch):
    """Same seed, same bits, with and without a package that offers a part for every role, under any name."""
    source = """
        import torch
        from attrs import frozen
        from framework import hookimpl
        from framework_line_world import LineWorld
        from framework_reinforce import BatchMean, Categorical, Reinforce, TotalReturn

        @frozen
        class Meddles:
            "Would change the loss."

            def build(self, run):
                return Meddler()

        class Meddler:
            @hookimpl(wrapper=True)
            def compute_loss(self):
                yield
                raise AssertionError("called in a run that did not name it")

        @hookimpl
        def environments(): return {"a_world": LineWorld}
        @hookimpl
        def policies(): return {"a_policy": Categorical}
        @hookimpl
        def estimators(): return {"a_return": TotalReturn}
        @hookimpl
        def baselines(): return {"a_baseline": BatchMean}
        @hookimpl
        def losses(): return {"a_loss": Reinforce}
        @hookimpl
        def extensions(): return {"a_meddler": Meddles}
        @hookimpl
        def recipes(): return {"a_recipe": {"seed": 99}}
    """
    before = framework.train(iterations=5, seed=7, rollout=RolloutSettings(episodes=9))
    publish(tmp_path, monkeypatch, "aaa-rl", {"aaa": "aaa_meddles"}, aaa_meddles=source)
    after = framework.train(iterations=5, seed=7, rollout=RolloutSettings(episodes=9))
    assert "a_meddler" in after.run.loaded.names("extension")
    for (name, one), other in zip(before.policy.state_dict().items(), after.policy.state_dict().values(), strict=True):
        assert torch.equal(one, other), name
    for name in before.metrics.keys() - METRICS_OF_TIME:
        assert (before.metrics[name] == after.metrics[name]).all(), name
    assert {part.plugin for part in after.config.parts} <= {"line_world", "reinforce"}
