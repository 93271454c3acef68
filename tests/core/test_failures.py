"""A part, extension or hook that raises: the error names it, and nothing recorded before is lost."""

import csv
import os
import signal
import sys

import attrs
import pytest
import torch
from attrs import field, frozen
from framework_line_world import LineWorld
from framework_reinforce import Categorical, NoBaseline, Reinforce, RewardsToGo

import framework
from framework import PartError, RolloutSettings, UsageError
from framework.cli import main
from framework.hookspecs import STAGES, RunHooks
from framework.setup.plugin_hooks import names

PLUGIN = '''
"""Breaks on purpose."""

from attrs import frozen
from framework import hookimpl


@frozen
class Breaks:
    where: str = "run_started"  # the hook to raise in
    when: int = 2  # in this iteration
    late: bool = False  # a wrapper raises after the inner ones, not before

    def build(self, run):
        return Broken(self)


class Broken:
    def __init__(self, settings):
        self.settings = settings

    def trip(self, run, where, late=False):
        wanted = self.settings
        in_time = run.iteration == wanted.when or where in ("run_started", "run_finished", "run_failed")
        if where == wanted.where and in_time and late == wanted.late:
            raise ValueError("on purpose")
        if where == "iteration_finished" and wanted.where == "run_failed" and run.iteration == wanted.when:
            raise KeyError("first")

    @hookimpl
    def run_started(self, run):
        self.trip(run, "run_started")

    @hookimpl
    def measure(self, run):
        self.trip(run, "measure")

    @hookimpl
    def iteration_finished(self, run):
        self.trip(run, "iteration_finished")

    @hookimpl
    def should_stop(self, run):
        self.trip(run, "should_stop")

    @hookimpl
    def run_finished(self, run):
        self.trip(run, "run_finished")

    @hookimpl
    def run_failed(self, run):
        self.trip(run, "run_failed")
'''
for stage in STAGES:
    PLUGIN += f'''
    @hookimpl(wrapper=True)
    def {stage}(self, run):
        self.trip(run, "{stage}")
        result = yield
        self.trip(run, "{stage}", late=True)
        return result
'''
PLUGIN += """

@hookimpl
def extensions():
    return {"breaks": Breaks}
"""


@pytest.fixture
def broken_run(tmp_path, monkeypatch, capsys):
    """Run with the extension; returns exit code, what was said, the record's folder."""
    (tmp_path / "breaks.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)

    def broken_run(*words):
        code = main(
            ["run", "--plugins", "line_world,reinforce,./breaks.py", "--extensions", "breaks", "--iterations", "5"]
            + ["--name", "broken", *words]
        )
        return code, capsys.readouterr().err, tmp_path / "runs" / "broken"

    return broken_run


def rows(record):
    with (record / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


WHERE = [(hook, False) for hook in names(RunHooks)] + [(stage, True) for stage in STAGES]


@pytest.mark.slow
@pytest.mark.parametrize(("hook", "late"), WHERE)
def test_an_extension_that_raises_is_named_and_the_record_is_kept(broken_run, hook, late):
    """In every run hook there is; the metrics of all iterations before are on disk, the traceback beside them."""
    code, said, record = broken_run("--extensions.breaks.where", hook, *(["--extensions.breaks.late"] if late else []))
    assert code == 1
    if hook == "run_failed":  # the first error is the one that counts; the second is added
        assert "error: extension 'breaks' (plugin breaks) raised KeyError: 'first'" in said
        assert "extension 'breaks' (plugin breaks) raised ValueError in run_failed, too: on purpose" in said
    else:
        assert "error: extension 'breaks' (plugin breaks) raised ValueError: on purpose" in said
        assert f"breaks.py:{1 + PLUGIN[: PLUGIN.index('raise ValueError')].count(chr(10))} in trip" in said
        traceback = (record / "error.txt").read_text()
        assert f'self.trip(run, "{hook}"' in traceback
        assert "ValueError: on purpose" in traceback
    expected = {"run_started": 0, "run_finished": 5, "iteration_finished": 3, "should_stop": 3, "run_failed": 3}
    assert len(rows(record) if expected.get(hook, 2) else []) == expected.get(hook, 2)
    assert (record / "config.toml").is_file()
    assert (record / "policy.safetensors").is_file() == (hook == "run_finished")


def test_another_extension_is_told_of_a_failure_even_if_one_fails_again(broken_run):
    """The record, whose run_failed comes after the broken one's, still gets its traceback."""
    _, _, record = broken_run("--extensions.breaks.where", "run_failed")
    assert "KeyError: 'first'" in (record / "error.txt").read_text()


# Parts that raise. Each stands in for a built-in one, and raises in one method.


def raising(build, method):
    """A settings class whose working object raises in `method`."""

    @frozen
    class Raising:
        "Of this test."

        def build(self, *arguments):
            made = build(*arguments)

            def broken(self, *arguments, **keywords):
                raise ZeroDivisionError("on purpose")

            cls = type(made)
            made.__class__ = type(f"Broken{cls.__name__}", (cls,), {method: broken})
            return made

    return Raising()


class Stateful:
    """A baseline that learns."""

    def __call__(self, rollout, returns):
        return torch.zeros_like(returns)

    def update(self, rollout, returns):
        pass


RAISING = {
    "reset": ("environment", raising(LineWorld().build, "reset"), "environment 'Raising'"),
    "step": ("environment", raising(LineWorld().build, "step"), "environment 'Raising'"),
    "act": ("policy", raising(lambda *spaces: slow(Categorical().build(*spaces)), "act"), "policy 'Raising'"),
    "actor": ("policy", raising(Categorical().build, "actor"), "policy 'Raising'"),
    "evaluate": ("policy", raising(Categorical().build, "evaluate"), "policy 'Raising'"),
    "estimator": ("estimator", raising(lambda: Callable(RewardsToGo()), "__call__"), "estimator 'Raising'"),
    "baseline": ("baseline", raising(lambda: Callable(NoBaseline()), "__call__"), "baseline 'Raising'"),
    "update": ("baseline", raising(Stateful, "update"), "baseline 'Raising'"),
    "loss": ("loss", raising(lambda: Callable(Reinforce()), "__call__"), "loss 'Raising'"),
}


class Callable:
    def __init__(self, part):
        self.part = part

    def __call__(self, *arguments):
        return self.part(*arguments)


def slow(policy):
    """Without its snapshot, so that `act` is what samples."""
    policy.__class__ = type("Slow", (type(policy),), {"actor": lambda self: None})
    return policy


@pytest.mark.parametrize("method", RAISING)
def test_a_part_that_raises_is_named(method, tmp_path):
    role, part, label = RAISING[method]
    # `step` is called at all only where the world is not sampled from its tables
    parts = {role: part}
    if method in ("reset", "step"):
        parts["policy"] = raising(lambda *spaces: slow(Categorical().build(*spaces)), "nothing")
    with pytest.raises(PartError) as caught:
        framework.train(**parts, iterations=2, directory=tmp_path / "run")
    assert str(caught.value).startswith(f"{label} (plugin test_failures) raised ZeroDivisionError: on purpose (")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert "ZeroDivisionError: on purpose" in (tmp_path / "run" / "error.txt").read_text()


def test_a_part_that_raises_deep_inside_a_library_is_still_named():
    @frozen
    class Deep:
        "Of this test."

        needs = frozenset({"complete_episodes"})

        def __call__(self, rollout):
            return torch.stack([rollout.rewards, rollout.rewards[:1]])

    with pytest.raises(PartError, match=r"estimator 'Deep' .* raised RuntimeError: stack expects each tensor"):
        framework.train(estimator=Deep(), iterations=1)


def test_a_wrapper_that_an_error_passes_through_is_not_blamed():
    @frozen
    class Watches:
        "Of this test."

        def build(self, run):
            return Watcher()

    class Watcher:
        @framework.hookimpl(wrapper=True)
        def estimate_advantages(self):
            return (yield)

    with pytest.raises(PartError, match="^estimator 'Raising'"):
        framework.train(estimator=RAISING["estimator"][1], extensions=[Watches()], iterations=1)


def test_an_error_of_the_core_itself_is_not_blamed_on_anybody(monkeypatch):
    from framework import training

    def broken(rollout, advantages):
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(training, "flatten", broken)
    with pytest.raises(ZeroDivisionError, match="a fault of ours"):
        framework.train(iterations=1)


def test_a_part_that_exits_is_named_too(tmp_path):
    @frozen
    class Exits:
        "Of this test."

        def __call__(self, rollout, returns):
            raise SystemExit(0)

    with pytest.raises(PartError, match="baseline 'Exits' .* raised SystemExit: 0"):
        framework.train(baseline=Exits(), iterations=1, directory=tmp_path / "run")
    assert "SystemExit" in (tmp_path / "run" / "error.txt").read_text()


# What extensions make of a stage's result


def wrapping(stage, change):
    @frozen
    class Wraps:
        "Of this test."

        def build(self, run):
            def wrapper(self):
                return change((yield))

            return type("Wrapper", (), {stage: framework.hookimpl(wrapper=True)(wrapper)})()

    return Wraps()


BREAKING = [
    ("collect_rollout", lambda rollout: None, "expected a Rollout, got NoneType"),
    (
        "collect_rollout",
        lambda rollout: attrs.evolve(rollout, rewards=rollout.rewards / 0),
        "rewards: not finite (-inf) at step 0, lane 0",
    ),
    ("estimate_advantages", lambda advantages: advantages.advantages, "expected an Advantages, got Tensor"),
    (
        "estimate_advantages",
        lambda advantages: attrs.evolve(advantages, advantages=advantages.advantages.mean(0)),
        "advantages: expected shape [",
    ),
    (
        "estimate_advantages",
        lambda advantages: attrs.evolve(advantages, advantages=advantages.advantages.clone().requires_grad_()),
        "advantages: carries a gradient; only an evaluation and a loss may",
    ),
    ("prepare_batch", lambda batch: None, "expected a Batch, got NoneType"),
    (
        "prepare_batch",
        lambda batch: attrs.evolve(batch, advantages=batch.advantages * torch.nan),
        "advantages: not finite (nan) at position 0",
    ),
    ("compute_loss", lambda loss: loss.terms["policy"].mean(), "expected a Loss, got Tensor"),
    (
        "compute_loss",
        lambda loss: attrs.evolve(loss, terms={"policy": loss.terms["policy"].mean()}),
        "term 'policy': expected shape [",
    ),
]


@pytest.mark.parametrize(("stage", "change", "message"), BREAKING, ids=[f"{s} {m[:25]}" for s, _, m in BREAKING])
def test_what_an_extension_makes_of_a_stages_result_is_checked(stage, change, message):
    with pytest.raises(PartError) as caught:
        framework.train(extensions=[wrapping(stage, change)], iterations=1)
    assert f"extension 'Wraps' (plugin test_failures): {stage}: {message}" in str(caught.value) or str(
        caught.value
    ).startswith(f"extension 'Wraps' (plugin test_failures): {stage}")
    assert message in str(caught.value)


def test_a_reason_to_stop_is_a_string():
    @frozen
    class Stops:
        "Of this test."

        def build(self, run):
            return Stopper()

    class Stopper:
        @framework.hookimpl
        def should_stop(self):
            return True

    message = "extension 'Stops' .*: should_stop: expected a reason .a string. or None, got True"
    with pytest.raises(PartError, match=message):
        framework.train(extensions=[Stops()], iterations=3)


def test_a_wrapper_that_yields_twice_is_named():
    @frozen
    class Wraps:
        "Of this test."

        def build(self, run):
            def wrapper(self):
                result = yield
                yield
                return result

            return type("Wrapper", (), {"compute_loss": framework.hookimpl(wrapper=True)(wrapper)})()

    with pytest.raises(PartError, match="^extension 'Wraps' .*: compute_loss: a wrapper must yield once"):
        framework.train(extensions=[Wraps()], iterations=1)


@pytest.mark.parametrize("hook", [hook for hook in names(RunHooks) if hook not in STAGES])
def test_what_is_no_stage_cannot_be_wrapped(hook):
    with pytest.raises(UsageError, match=f"extension 'Wraps' .*: {hook} is no stage, so there is nothing to wrap"):
        framework.train(extensions=[wrapping(hook, lambda result: result)], iterations=1)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"steps": 7.0}, "loss 'Measures' .*: metric 'steps' is the run's own: give it another name"),
        ({"kl": None}, "loss 'Measures' .*: metric 'kl': expected one number, got None"),
        ({"kl": "much"}, "loss 'Measures' .*: metric 'kl': expected one number, got 'much'"),
    ],
)
def test_a_losss_metrics_are_numbers_under_names_of_their_own(metrics, message):
    @frozen
    class Measures:
        "Of this test."

        def __call__(self, batch, evaluation):
            return attrs.evolve(Reinforce()(batch, evaluation), metrics=metrics)

    with pytest.raises(PartError, match=message):
        framework.train(loss=Measures(), iterations=1)


def measuring(name, answer):
    """An extension called `name`, that measures `answer`."""
    measure = framework.hookimpl(lambda self: answer)
    build = lambda self, run: type(f"Working{name}", (), {"measure": measure})()  # noqa: E731
    return frozen(type(name, (), {"__doc__": "Of this test.", "build": build}))()


WHOSE = "extension 'One' .plugin test_failures.: measure: "


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([7], WHOSE + "expected a dict from name to number, or None, got 7"),
        ([[("kl", 1.0)]], WHOSE + r"expected a dict from name to number, or None, got \[\('kl', 1.0\)\]"),
        ([{"kl": "much"}], WHOSE + "expected names with a number each, got 'kl': 'much'"),
        ([{"kl": None}], WHOSE + "expected names with a number each, got 'kl': None"),
        ([{3: 1.0}], WHOSE + "expected names with a number each, got 3: 1.0"),
        ([{"steps": 7.0}], WHOSE + "'steps' is a number of the run or its loss: give it another name"),
        ([{"seconds": 7.0}], WHOSE + "'seconds' is a number of the run or its loss: give it another name"),
        ([{"loss/policy": 7.0}], WHOSE + "'loss/policy' is a number of the run or its loss: give it another name"),
        (
            [{"kl": 1.0}, {"kl": 1.0}],
            "extension 'Two' .*: measure: 'kl' is a number of extension 'One' .*: give it another name",
        ),
    ],
)
def test_what_extensions_measure_is_numbers_under_names_of_their_own(answers, message):
    extensions = [measuring(name, answer) for name, answer in zip(("One", "Two"), answers, strict=False)]
    with pytest.raises(PartError, match=message):
        framework.train(extensions=extensions, iterations=1)


@pytest.mark.parametrize("iterations", [1, 3])
def test_a_policy_that_is_not_finite_is_no_success(iterations, tmp_path):
    """A huge step; whether it is the last, or another one follows."""
    huge = framework.OptimizerSettings(lr=1e30)
    with pytest.raises(PartError, match="policy 'categorical' .*: evaluate: log_probs after 1 iterations: not finite"):
        framework.train(optimizer=huge, iterations=iterations, directory=tmp_path / "run")
    assert not (tmp_path / "run" / "policy.safetensors").exists()


# Interrupts


@pytest.mark.slow
def test_an_interrupt_in_any_hook_keeps_the_record(broken_run, monkeypatch, tmp_path):
    """Ctrl-C between any two lines of a run, simulated by a hook that raises it: exit 130, whole rows, the policy."""
    for hook, late in WHERE:
        if hook in ("run_finished", "run_failed"):
            continue
        (tmp_path / "breaks.py").write_text(PLUGIN.replace('ValueError("on purpose")', "KeyboardInterrupt"))
        words = ["--extensions.breaks.where", hook, *(["--extensions.breaks.late"] if late else [])]
        sys.modules.pop("framework_file_breaks", None)
        code, said, record = broken_run(*words, "--name", f"at-{hook}-{late}")
        record = record.with_name(f"at-{hook}-{late}")
        assert (code, said) == (130, ""), (hook, late)
        assert (record / "policy.safetensors").is_file()
        columns = {len(row) for row in rows(record)} if hook != "run_started" else set()
        assert len(columns) <= 1
    sys.modules.pop("framework_file_breaks", None)


def test_a_signal_waits_for_what_is_being_counted():
    """A real SIGINT within `iteration_finished`: the iteration is whole in history, metrics and count."""

    @frozen
    class Interrupts:
        "Of this test."

        def build(self, run):
            return Interrupter()

    class Interrupter:
        @framework.hookimpl
        def iteration_finished(self, run):
            if run.iteration == 2:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    result = framework.train(extensions=[Interrupts()], iterations=9)
    assert result.stop_reasons == ("interrupted",)
    assert result.run.iteration == 3
    assert {len(column) for column in result.metrics.values()} == {3}
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("times", [1, 3])
def test_ctrl_c_after_the_last_iteration_loses_nothing(tmp_path, monkeypatch, times):
    """A real SIGINT when all is trained and nothing yet saved; and a hand that keeps pressing."""
    from framework import training

    def pressed(run, label=None):
        if run.iteration < 2:
            return
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(training, "check_parameters", pressed)
    result = framework.train(iterations=2, directory=tmp_path / "run")
    assert result.run.iteration == 2
    assert {"policy.safetensors", "learning_curve.png"} <= {path.name for path in (tmp_path / "run").iterdir()}


# Before the first step


@frozen
class Unbuildable:
    "Of this test."

    size: int = field(default=1)

    def build(self, *arguments):
        raise RuntimeError("no such file: maze.txt")


LINE = Unbuildable.build.__code__.co_firstlineno + 1


@pytest.mark.parametrize("role", ["environment", "policy", "estimator", "baseline", "loss"])
def test_a_part_that_cannot_be_built_is_named_and_leaves_no_record(role, tmp_path):
    with pytest.raises(UsageError) as caught:
        framework.train(**{role: Unbuildable()}, directory=tmp_path / "run", iterations=1)
    message = f"{role} 'Unbuildable' (plugin test_failures) cannot be built: RuntimeError: no such file: maze.txt"
    assert str(caught.value).partition(f" ({__file__}:")[::2] == (message, f"{LINE} in build)")
    assert not (tmp_path / "run").exists()


@frozen
class Unfinished:
    "Builds something that keeps no contract."

    def build(self, *arguments):
        return object()


@pytest.mark.parametrize(
    ("role", "message"),
    [
        ("environment", "what build() returned has no reset, step, observation_space, action_space"),
        ("policy", "build must return an nn.Module, got object"),
        ("estimator", "is not callable, and has no build()"),
    ],
)
def test_a_part_that_lacks_what_its_role_needs_is_named(role, message):
    with pytest.raises(UsageError) as caught:
        framework.train(**{role: Unfinished()}, iterations=1)
    assert str(caught.value).startswith(f"{role} 'Unfinished' (plugin test_failures): ")
    assert all(word in str(caught.value) for word in message.replace(",", "").split())


def test_every_lane_count_is_refused_by_name_and_not_by_torch():
    with pytest.raises(ValueError, match="'lanes' must be >= 1: 0"):
        RolloutSettings(lanes=0)
