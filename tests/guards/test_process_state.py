"""What belongs to the process (dtype, modes, threads, generators, working directory) changes no run, nor does a run."""

import json
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from attrs import evolve, frozen
from foreign import publish
from framework_parts import CartPole, LineWorld, RewardsToGo
from framework_reinforce import Categorical, NoBaseline

import framework
from framework.cli import main
from framework.guards import process_state
from framework.guards.process_state import State, alone, undisturbed
from framework.guards.randomness import same_randomness
from framework.setup.loading import load

SHORT = {"iterations": 2, "seed": 3}


def learnt(**arguments):
    """A run's numbers: every metric but the seconds, and the final parameters."""
    result = framework.train(**{**SHORT, **arguments})
    metrics = {name: column.tobytes() for name, column in result.metrics.items() if "second" not in name}
    return metrics, {name: tensor.numpy().tobytes() for name, tensor in result.policy.state_dict().items()}


CALLERS = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "meta device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu"),
    "float64": lambda: dtype(torch.float64),
}


class dtype:  # noqa: N801
    def __init__(self, wanted):
        self.wanted = wanted

    def __enter__(self):
        torch.set_default_dtype(self.wanted)

    def __exit__(self, *error):
        torch.set_default_dtype(torch.float32)


@pytest.mark.slow
@pytest.mark.parametrize("caller", CALLERS)
def test_a_run_is_the_same_whatever_the_caller_has_set(caller, tmp_path):
    for arguments in ({}, {"recipe": "ppo", "environment": CartPole()}):
        plain = learnt(**arguments)
        with CALLERS[caller]():
            before = State.read()
            assert learnt(**arguments) == plain
            trained = framework.train(**{**SHORT, **arguments}).policy
            assert State.read() == before
        assert not any(tensor.is_inference() for tensor in trained.parameters())  # it can be trained further
    result = framework.train(**SHORT, directory=tmp_path / "run")
    played = framework.evaluate(result.policy, LineWorld(), episodes=5).returns
    with CALLERS[caller]():
        policy = framework.load(tmp_path / "run")
        assert {parameter.dtype for parameter in policy.parameters()} == {torch.float32}
        assert np.array_equal(framework.evaluate(policy, LineWorld(), episodes=5).returns, played)


def test_a_run_leaves_every_global_generator_as_it_was():
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    before = random.getstate(), np.random.get_state()[2], torch.get_rng_state()
    framework.train(**SHORT)
    assert (random.getstate(), np.random.get_state()[2]) == before[:2]
    assert torch.equal(torch.get_rng_state(), before[2])


@frozen
class Drawing:
    "Rewards to go with noise from numpy's and Python's global generators, and from torch's."

    needs = frozenset({"complete_episodes"})

    def build(self):
        first = [np.random.rand(), random.random(), torch.rand(()).item()]
        plain = RewardsToGo()

        def estimate(rollout):
            made = plain(rollout)
            noise = sum(first) + np.random.rand() + random.random() + torch.rand(())
            return evolve(made, returns=made.returns + noise)

        return estimate


def test_the_seed_is_that_of_every_global_generator():
    """What draws from them, while it is built or later, draws the same in the same run."""
    runs = []
    for seed in (1, 2):
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        runs.append(learnt(estimator=Drawing()))
    assert runs[0] == runs[1]
    assert runs[0] != learnt(estimator=Drawing(), seed=4)


@frozen
class Dropping:
    "Categorical, with noise from torch's global generator in its updates, as dropout has."

    def build(self, observation_space, action_space):
        policy = Categorical().build(observation_space, action_space)
        plain = policy.evaluate

        def evaluate(inputs, actions, entropies):
            made = plain(inputs, actions, entropies)
            return evolve(made, log_probs=made.log_probs * (torch.rand_like(made.log_probs) > 0.5))

        policy.evaluate = evaluate
        return policy


@frozen
class Seeding(CartPole):
    "A world that seeds torch, as some simulators do."

    seeds: bool = True

    def build(self, num_envs, device):
        world = super().build(num_envs, device)
        plain = world.reset

        def reset(generator):
            if self.seeds:
                torch.manual_seed(0), np.random.seed(0), random.seed(0)
            return plain(generator)

        world.reset = reset
        return world


def test_a_part_that_seeds_torch_does_not_seed_the_updates():
    runs = [learnt(environment=Seeding(seeds=seeds), policy=Dropping()) for seeds in (True, False)]
    assert runs[0] == runs[1]


# What parts change


def blas():
    return next(library for library in process_state._libraries() if library.user_api == "blas")


ENTERED = []


def enter_inference_mode():
    """And never leave it."""
    ENTERED.append(torch.inference_mode())
    ENTERED[-1].__enter__()


CHANGES = {
    "torch's inference mode from False to True": enter_inference_mode,
    "torch's default dtype from torch.float32 to torch.float64": lambda: torch.set_default_dtype(torch.float64),
    "torch's default device from cpu to meta": lambda: torch.set_default_device("meta"),
    "torch's gradient mode from True to False": lambda: torch.set_grad_enabled(False),
    "torch's number of threads from 1 to 3": lambda: torch.set_num_threads(3),
    "torch's deterministic algorithms from False to True": lambda: torch.use_deterministic_algorithms(True),
    "torch's anomaly detection from False to True": lambda: torch.autograd.set_detect_anomaly(True),
    "torch's float32 matmul precision from highest to medium": lambda: torch.set_float32_matmul_precision("medium"),
    "the number of threads of BLAS and OpenMP from": lambda: blas().set_num_threads(7),
    "the working directory from": lambda: os.chdir("/"),
}


@pytest.fixture
def restored(monkeypatch, tmp_path):
    """The process as it was, though a test fail."""
    monkeypatch.chdir(tmp_path)
    with same_randomness(), warnings.catch_warnings():
        warnings.simplefilter("always")  # of what a failed test leaves behind
        with undisturbed("a test"), same_randomness():
            yield


def changing(where, change):
    """A baseline, policy or extension that changes the process in `where`."""

    @frozen
    class Changing:
        "Of this test."

        def build(self, *arguments):
            if where == "build":
                change()
            return self

        def __call__(self, rollout, returns):
            if where == "call":
                change()
            return torch.zeros_like(returns)

        @framework.hookimpl
        def iteration_finished(self):
            if where == "hook":
                change()

    return Changing()


@pytest.mark.parametrize("where", ["build", "call", "hook"])
@pytest.mark.parametrize("words", CHANGES)
@pytest.mark.usefixtures("restored")
def test_a_part_that_changes_the_process_is_named_and_changes_no_run(words, where):
    plain, part = learnt(baseline=NoBaseline()), changing(where, CHANGES[words])
    given = {"extensions": [part]} if where == "hook" else {"baseline": part}
    before = State.read()
    with warnings.catch_warnings(record=True) as reported:
        warnings.simplefilter("always")
        made = learnt(**given)
    assert State.read() == before
    if where == "call" and "gradient mode" in words:  # the core calls it without gradients and goes on with them
        assert reported == []
    else:
        (warning,) = reported
        role = "extension" if where == "hook" else "baseline"
        assert f"{role} 'Changing' (plugin test_process_state)" in str(warning.message)
        assert words in str(warning.message)
    assert made == plain


@pytest.mark.usefixtures("restored")
def test_a_record_stays_where_it_was_begun(tmp_path):
    """An extension goes elsewhere in every hook; a relative folder is the one of the start."""
    (tmp_path / "elsewhere").mkdir()
    going = changing("hook", lambda: os.chdir(tmp_path / "elsewhere"))
    with pytest.warns(RuntimeWarning, match="extension 'Changing' .* changed the working directory"):
        result = framework.train(**SHORT, extensions=[going], directory="runs/first")
    assert repr(result).endswith("record: runs/first>")
    assert (tmp_path / "runs" / "first" / "policy.safetensors").is_file()
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.usefixtures("restored")
def test_an_error_says_what_had_been_changed_before():
    """Gradients that a wrapper has switched off are why the policy's carry none."""

    @frozen
    class SwitchesOff:
        "Of this test."

        def build(self, run):
            return self

        @framework.hookimpl(wrapper=True)
        def prepare_batch(self):
            torch.set_grad_enabled(False)
            return (yield)

    with pytest.raises(framework.PartError) as caught:
        framework.train(extensions=[SwitchesOff()], **SHORT)
    assert "torch's gradient mode from True to False" in "".join(caught.value.__notes__)


PLUGIN = """
import os, random
import numpy as np
import torch
from attrs import frozen
from framework import Estimate, hookimpl

{change}

@frozen
class Mine:
    def __call__(self, rollout):
        return Estimate(rollout.rewards, rollout.rewards)

@hookimpl
def estimators():
    return {{"mine": Mine}}
"""
IMPORTS = {
    "torch.set_default_dtype(torch.float64)": "torch's default dtype from torch.float32 to torch.float64",
    "torch.set_num_threads(3)": "torch's number of threads from 1 to 3",
    "torch.manual_seed(5)": "torch's global generator",
    "np.random.seed(5)": "numpy's global generator",
    "random.seed(5)": "Python's global generator",
    "torch.set_grad_enabled(False)": "torch's gradient mode from True to False",
    "os.chdir('/')": "the working directory from",
}


@pytest.mark.parametrize("change", IMPORTS)
@pytest.mark.usefixtures("restored")
def test_a_plugin_that_changes_the_process_when_it_is_loaded_is_named(change, tmp_path):
    (tmp_path / "mine.py").write_text(PLUGIN.format(change=change))
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    before = State.read(), random.getstate(), np.random.get_state()[2], torch.initial_seed()
    with pytest.warns(RuntimeWarning, match="^plugin './mine.py' changed ") as reported:
        load(["./mine.py"])
    assert IMPORTS[change] in str(reported[0].message)
    assert (State.read(), random.getstate(), np.random.get_state()[2], torch.initial_seed()) == before


@pytest.mark.usefixtures("restored")
def test_hooks_of_an_installed_plugin_move_no_generator_at_any_time(tmp_path, monkeypatch):
    """Each `train`, `load` and `evaluate` asks all plugins what they offer, and names once who changes what."""
    source = PLUGIN.format(change="")
    drawing = source.replace("    return {", "    torch.manual_seed(5), random.seed(5)\n    return {")
    publish(tmp_path, monkeypatch, "drawing-rl", {"drawing": "drawing_rl"}, drawing_rl=drawing)
    with pytest.warns(RuntimeWarning, match="^plugin 'drawing' changed torch's global generator, Python's"):
        load()
    random.seed(1), torch.manual_seed(3)
    before = random.getstate(), torch.initial_seed()
    load()
    assert (random.getstate(), torch.initial_seed()) == before


# Threads


SEEING = """
import torch
from attrs import frozen
from framework import hookimpl
from framework_parts import LineWorld

SEEN = set()

@frozen
class Seeing(LineWorld):
    def build(self, num_envs, device):
        SEEN.add(torch.get_num_threads())
        world = super().build(num_envs, device)
        reset = world.reset
        world.reset = lambda generator: SEEN.add(torch.get_num_threads()) or reset(generator)
        return world

@hookimpl
def environments():
    return {"seeing": Seeing}
"""


@pytest.mark.slow
def test_one_thread_gives_the_same_bits_whatever_the_environment_says(tmp_path):
    """First weights of `orthogonal`, products of torch's and of numpy's BLAS: OMP_NUM_THREADS 1 and 2."""
    words = ["run", "--recipe", "ppo", "--environment", "cartpole", "--policy.orthogonal", "--policy.hidden", "300"]
    words += ["300", "--iterations", "2", "--rollout.lanes", "8", "--quiet", "--name"]
    weights = []
    for threads in ("1", "2"):
        variables = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        command = [sys.executable, "-m", "framework", *words, threads]
        subprocess.run(command, check=True, cwd=tmp_path, env=variables, timeout=300)
        weights.append((tmp_path / "runs" / threads / "policy.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_threads_are_in_force_while_parts_are_built_and_recorded(tmp_path):
    torch.set_num_threads(3)
    seen = []
    part = changing("build", lambda: seen.append((torch.get_num_threads(), State.read().libraries)))
    framework.train(**SHORT, baseline=part, threads=2, directory=tmp_path / "run")
    assert [threads for threads, _ in seen] == [2]
    assert set(seen[0][1]) == {2}
    assert torch.get_num_threads() == 3
    recorded = json.loads((tmp_path / "run" / "plugins.json").read_text())["libraries"]
    assert {library["num_threads"] for library in recorded} == {2}


@pytest.mark.slow
def test_commands_that_do_not_train_work_with_their_threads(tmp_path, monkeypatch, capsys):
    (tmp_path / "threads.py").write_text(SEEING)
    monkeypatch.chdir(tmp_path)
    torch.set_num_threads(3)
    words = ["--plugins", "./threads.py,line_world,reinforce,reports", "--environment", "seeing", "--threads", "2"]
    assert main(["run", *words, "--iterations", "1", "--name", "first", "--quiet"]) == 0
    for command in (["evaluate", "runs/first", "--episodes", "2"], ["credit", *words], ["audit", *words]):
        assert main([*command, *(["--episodes", "100"] if command[0] == "audit" else [])]) == 0
    assert {2} == sys.modules["framework_file_threads"].SEEN
    assert torch.get_num_threads() == 3


# Several runs in a process


def test_runs_in_threads_are_what_each_is_alone(monkeypatch):
    monkeypatch.setattr(process_state, "PATIENCE", 600)  # on a busy machine they wait for long, and would say so
    alone = [learnt(seed=seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda seed: learnt(seed=seed), range(4)))
    assert together == alone


def test_a_thread_that_waits_for_a_run_says_why(monkeypatch):
    monkeypatch.setattr(process_state, "PATIENCE", 0.05)
    entered, leave, reported = threading.Event(), threading.Event(), []

    def hold():
        with alone():
            entered.set()
            leave.wait(10)

    def wait():
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            timer = threading.Timer(0.3, leave.set)
            timer.start()
            with alone():
                reported.extend(str(warning.message) for warning in found)

    holder = threading.Thread(target=hold)
    holder.start()
    entered.wait(10)
    wait()
    holder.join()
    assert reported == [
        "waiting for a run in another thread of this process: they share torch's global generators and number of "
        "threads, so that they work one after the other. To run them at once, use processes. If that run waits for "
        "this thread, neither ends"
    ]


def test_a_run_within_a_run_changes_neither():
    """A tuner that is asked in a hook, say: no waiting for itself, and the same numbers as without."""
    inner = []

    @frozen
    class Nested:
        "Of this test."

        def build(self, run):
            return self

        @framework.hookimpl
        def iteration_finished(self):
            inner.append(learnt(seed=9, threads=2))

    assert learnt(extensions=[Nested()]) == learnt()
    assert inner == [learnt(seed=9)] * 2


FORKED = """
import multiprocessing, sys, warnings
import torch
import framework
from framework.guards import process_state

process_state.PATIENCE = 5.0
warnings.simplefilter("ignore", DeprecationWarning)  # newer Python warns of every fork

def child(threads, channel):
    try:
        channel.put(len(framework.train(iterations=1, threads=threads).metrics["steps"]))
    except framework.UsageError as error:
        channel.put(str(error))

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    for used in (False, True):
        if used:
            torch.set_num_threads(2)
            torch.ones(2**20).add_(1)
        for threads in (1, 2):
            channel = context.Queue()
            process = context.Process(target=child, args=(threads, channel))
            process.start()
            try:
                print(used, threads, channel.get(timeout=30))
            except Exception as error:
                print(used, threads, "HANGS", type(error).__name__)
            process.join(2)
            process.kill()
"""


@pytest.mark.slow
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="processes are not forked here")
def test_a_forked_process_works_with_one_thread_and_says_where_several_would_hang(tmp_path):
    (tmp_path / "forked.py").write_text(FORKED)
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, tmp_path / "forked.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=variables)
    lines = done.stdout.splitlines()
    assert lines[:3] == ["False 1 1", "False 2 1", "True 1 1"], done
    assert lines[3].startswith("True 2 threads = 2 would hang: this process was forked from one that had used several")
    assert "'spawn' or 'forkserver'" in lines[3]
