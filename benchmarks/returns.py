"""Every return estimator against the obvious loop, the fastest loop, TorchRL, and a copy of the rewards, in one run.

    python benchmarks/returns.py [--rounds 21] [--write] [--venv DIRECTORY]

ours    the estimator's call, rollout in and `Estimate` out;
plain   one Python loop over time, each line of the recursion as torch writes it;
loop    the fastest loop found with at most one kernel a time step, preparation included: as few whole-array passes as
        possible, and `row.addcmul_(…)` between (td0 needs no loop and is one kernel in all; n_step is one kernel for
        each of the n steps, over all time steps at once); it returns a tensor, and makes no `Estimate`;
torchrl the fastest of TorchRL's functions for the quantity (step by step and vectorised, time-major `[T, N]` and its
        own `[N, T, 1]`), where it has one;
copy    `rewards.clone()`.

TorchRL is installed with pip into a virtual environment of its own, which is made on the first run, and the script
runs there. One thread. All are measured in turn, round after round, so that a drift of the machine meets all of them;
medians are over the rounds, and ratios are taken within a round before their median. Before anything is timed, all
must agree. `--write` puts the table into benchmarks/results/returns.json.
"""

import argparse
import functools
import importlib.util
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import framework_returns
import torch
from common import CONSTRAINTS, environment, processor, write
from framework_reinforce.monte_carlo import RewardsToGo, TotalReturn
from torch import Tensor

import framework
from framework import Estimate, Rollout

GAMMA, LAM, N_STEPS = 0.99, 0.95, 5
SHAPES = [(128, 8), (128, 4096), (2048, 64)]
BATCH_SECONDS = 2e-3  # calls shorter than this are timed several at a time


def ensure_torchrl(directory: Path) -> None:
    """Run this script again inside a virtual environment that has TorchRL, unless this one has."""
    if importlib.util.find_spec("torchrl"):
        return
    python = environment(directory, ["-c", str(CONSTRAINTS), "torchrl", "-e", str(CONSTRAINTS.parent)])
    os.execv(python, [str(python), __file__, *sys.argv[1:]])


def rollout_of(shape: tuple[int, int]) -> Rollout:
    """Episodes of about twenty steps, three in four of them terminated; all end at the edge."""
    generator = torch.Generator().manual_seed(0)
    drawn = torch.rand(shape, generator=generator)
    terminated, truncated = drawn < 0.0375, (drawn > 0.0375) & (drawn < 0.05)
    truncated[-1] |= ~terminated[-1]
    ends = terminated | truncated
    times = torch.zeros(shape, dtype=torch.int64)
    for t in range(1, shape[0]):
        times[t] = torch.where(ends[t - 1], 0, times[t - 1] + 1)
    first = times == 0
    episodes = (first.T.flatten().cumsum(0) - 1).reshape(shape[1], shape[0]).T.contiguous()
    rewards, values, log_probs = (torch.randn(shape, generator=generator) for _ in range(3))
    following = torch.cat([values[1:], torch.zeros(1, shape[1])])
    following = torch.where(truncated, torch.randn(shape, generator=generator), following).masked_fill_(terminated, 0)
    return Rollout(
        observations=times,
        actions=times,
        log_probs=log_probs,
        target_log_probs=log_probs + 0.3 * torch.randn(shape, generator=generator),
        rewards=rewards,
        terminated=terminated,
        truncated=truncated,
        mask=torch.ones(shape, dtype=torch.bool),
        times=times,
        episodes=episodes,
        values=values,
        successor_values=following,
    )


# The obvious loops: one line of the textbook a line, for each time step.


def plain_rewards_to_go(r: Rollout) -> Tensor:
    returns, later = torch.empty_like(r.rewards), torch.zeros(r.rewards.shape[1])
    for t in reversed(range(len(r.rewards))):
        ended = r.terminated[t] | r.truncated[t]
        later = r.rewards[t] + GAMMA * later * ~ended
        returns[t] = later
    return returns


def plain_total_return(r: Rollout) -> Tensor:
    returns = plain_rewards_to_go(r)
    for t in range(1, len(returns)):
        returns[t] = torch.where(r.times[t] == 0, returns[t], returns[t - 1])
    return returns


def plain_td0(r: Rollout) -> Tensor:
    return torch.stack([r.rewards[t] + GAMMA * r.successor_values[t] for t in range(len(r.rewards))])


def plain_n_step(r: Rollout) -> Tensor:
    ends, count = r.terminated | r.truncated, len(r.rewards)
    returns = torch.empty_like(r.rewards)
    for t in range(count):
        last = min(t + N_STEPS, count) - 1
        later = r.rewards[last] + GAMMA * r.successor_values[last]
        for k in range(last - 1, t - 1, -1):
            later = r.rewards[k] + GAMMA * torch.where(ends[k], r.successor_values[k], later)
        returns[t] = later
    return returns


def plain_lambda_returns(r: Rollout) -> Tensor:
    returns, later = torch.empty_like(r.rewards), r.successor_values[-1]
    for t in reversed(range(len(r.rewards))):
        ended, successor = r.terminated[t] | r.truncated[t], r.successor_values[t]
        later = r.rewards[t] + GAMMA * torch.where(ended, successor, (1 - LAM) * successor + LAM * later)
        returns[t] = later
    return returns


def plain_vtrace(r: Rollout) -> Tensor:
    returns, following, correction = torch.empty_like(r.rewards), r.successor_values[-1], torch.zeros_like(r.values[0])
    for t in reversed(range(len(r.rewards))):
        ended = r.terminated[t] | r.truncated[t]
        ratio = (r.target_log_probs[t] - r.log_probs[t]).exp().clamp(max=1)
        error = ratio * (r.rewards[t] + GAMMA * r.successor_values[t] - r.values[t])
        following = torch.where(ended, r.successor_values[t], following)
        returns[t] = r.rewards[t] + GAMMA * following
        correction = error + GAMMA * ratio * correction * ~ended
        following = r.values[t] + correction
    return returns


# The fastest loops: whole arrays before and after, one kernel a time step between.


def loop(terms: Tensor, discounts: Tensor) -> Tensor:
    """Into `terms`."""
    rows, factors = terms.unbind(0), discounts.unbind(0)
    for t in range(len(rows) - 2, -1, -1):
        rows[t].addcmul_(factors[t], rows[t + 1])
    return terms


def loop_rewards_to_go(r: Rollout) -> Tensor:
    return loop(r.rewards.clone(), (r.terminated | r.truncated).logical_not_().to(r.rewards.dtype).mul_(GAMMA))


def loop_total_return(r: Rollout) -> Tensor:
    firsts = torch.arange(len(r.rewards))[:, None] - r.times
    return loop_rewards_to_go(r).gather(0, firsts)


def loop_td0(r: Rollout) -> Tensor:
    return torch.add(r.rewards, r.successor_values, alpha=GAMMA)


def loop_n_step(r: Rollout) -> Tensor:
    going = (r.terminated | r.truncated).logical_not_().to(r.rewards.dtype).mul_(GAMMA)[:-1]
    one = torch.add(r.rewards, r.successor_values, alpha=GAMMA)
    ended = torch.addcmul(one[:-1], going, r.successor_values[:-1], value=-1)
    returns, other = one, one.clone()
    for _ in range(N_STEPS - 1):
        torch.addcmul(ended, going, returns[1:], out=other[:-1])
        returns, other = other, returns
    return returns


def loop_lambda_returns(r: Rollout) -> Tensor:
    discounts = (r.terminated | r.truncated).logical_not_().to(r.rewards.dtype).mul_(GAMMA * LAM)
    discounts[-1] = 0
    terms = torch.add(r.rewards, r.successor_values, alpha=GAMMA)
    return loop(terms.addcmul_(discounts, r.successor_values, value=-1), discounts)


def loop_vtrace(r: Rollout) -> Tensor:
    ratios = torch.sub(r.target_log_probs, r.log_probs).exp_().clamp_(max=1)
    going = (r.terminated | r.truncated).logical_not_()
    going[-1] = False
    errors = torch.add(r.rewards, r.successor_values, alpha=GAMMA).sub_(r.values).mul_(ratios)
    targets = loop(errors, torch.mul(ratios, going).mul_(GAMMA)).add_(r.values)
    following = torch.where(going[:-1], targets[1:], r.successor_values[:-1])
    returns = torch.empty_like(targets)
    torch.add(r.rewards[:-1], following, alpha=GAMMA, out=returns[:-1])
    torch.add(r.rewards[-1], r.successor_values[-1], alpha=GAMMA, out=returns[-1])
    return returns


def torchrl_candidates(r: Rollout) -> dict[str, dict[str, Callable[[], Any]]]:
    """TorchRL's functions by estimator, in both layouts; what each returns is made `[T, N]` only to be compared."""
    from torchrl.objectives.value import functional

    found: dict[str, dict[str, Callable[[], Any]]] = {}
    for layout in ("[T, N]", "[N, T, 1]"):

        def laid(table: Tensor, layout: str = layout) -> Tensor:
            return table if layout == "[T, N]" else table.T.contiguous().unsqueeze(-1)

        done, terminated = laid(r.terminated | r.truncated), laid(r.terminated)
        names = ("rewards", "values", "successor_values", "log_probs", "target_log_probs")
        rewards, values, successors, mu, pi = (laid(getattr(r, name)) for name in names)
        lambda_names = ("td_lambda_return_estimate", "vec_td_lambda_return_estimate")
        gae_names = ("generalized_advantage_estimate", "vec_generalized_advantage_estimate")
        arguments: dict[str, dict[str, tuple[Any, ...]]] = {
            "rewards_to_go": {"reward2go": (rewards, done, GAMMA)},
            "td0": {"td0_return_estimate": (GAMMA, successors, rewards, terminated)},
            "lambda_returns": dict.fromkeys(lambda_names, (GAMMA, LAM, successors, rewards, done, terminated))
            | dict.fromkeys(gae_names, (GAMMA, LAM, values, successors, rewards, done, terminated)),
            "vtrace": {
                "vtrace_advantage_estimate": (GAMMA, pi, mu, values, successors, rewards, done, terminated),
            },
        }
        for estimator, functions in arguments.items():
            for name, positional in functions.items():
                call = functools.partial(getattr(functional, name), *positional)
                found.setdefault(estimator, {})[f"{name} {layout}"] = call
    return found


def estimators() -> dict[str, Any]:
    return {
        "rewards_to_go": RewardsToGo(gamma=GAMMA),
        "total_return": TotalReturn(gamma=GAMMA),
        "td0": framework_returns.TD0(gamma=GAMMA),
        "n_step": framework_returns.NStep(gamma=GAMMA, n=N_STEPS),
        "lambda_returns": framework_returns.LambdaReturns(gamma=GAMMA, lam=LAM),
        "vtrace": framework_returns.VTrace(gamma=GAMMA),
    }


LOOPS: dict[str, dict[str, Callable[[Rollout], Tensor]]] = {
    "plain": {
        "rewards_to_go": plain_rewards_to_go,
        "total_return": plain_total_return,
        "td0": plain_td0,
        "n_step": plain_n_step,
        "lambda_returns": plain_lambda_returns,
        "vtrace": plain_vtrace,
    },
    "loop": {
        "rewards_to_go": loop_rewards_to_go,
        "total_return": loop_total_return,
        "td0": loop_td0,
        "n_step": loop_n_step,
        "lambda_returns": loop_lambda_returns,
        "vtrace": loop_vtrace,
    },
}


def agree(name: str, estimate: Estimate, table: Any, of: str, targets: bool = False) -> None:
    """The same numbers to float32's accuracy, or the race is void."""
    expected = estimate.value_targets if targets else estimate.returns
    table = table[1] if isinstance(table, tuple) else table  # advantages, targets
    table = table if table.ndim == 2 else table.squeeze(-1).T
    if not torch.allclose(table, expected, atol=2e-3):
        raise SystemExit(f"{name}: {of} differs by {float((table - expected).abs().max())}")


def seconds(call: Callable[[], Any], repeats: int) -> float:
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - began) / repeats


def race(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call, round after round."""
    repeats = {}
    for name, call in calls.items():
        call()
        repeats[name] = max(1, int(BATCH_SECONDS / seconds(call, 1)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call, repeats[name]))
    return times


def measure(shape: tuple[int, int], rounds: int) -> dict[str, dict[str, Any]]:
    rollout = rollout_of(shape)
    candidates, rows = torchrl_candidates(rollout), {}
    for name, estimator in estimators().items():
        estimate = estimator(rollout)
        calls = {
            "ours": functools.partial(estimator, rollout),
            "plain": functools.partial(LOOPS["plain"][name], rollout),
            "loop": functools.partial(LOOPS["loop"][name], rollout),
            "copy": rollout.rewards.clone,
        }
        agree(name, estimate, calls["plain"](), "plain")
        agree(name, estimate, calls["loop"](), "loop")
        theirs = candidates.get(name, {})
        for label, call in theirs.items():
            agree(name, estimate, call(), label, targets=name == "vtrace")
        best = None
        if theirs:
            tried = race(theirs, 3)
            best = min(tried, key=lambda label: min(tried[label]))
            calls["torchrl"] = theirs[best]
        times = race(calls, rounds)
        row = {f"{key} µs": round(statistics.median(numbers) * 1e6, 1) for key, numbers in times.items()}
        for key in ("plain", "loop", "torchrl", "copy"):
            if key in times:
                ratios = [b / a for a, b in zip(times["ours"], times[key], strict=True)]
                row[f"{key} / ours"] = round(statistics.median(ratios), 3)
        rows[name] = {**row, "torchrl function": best}
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/returns.json")
    parser.add_argument("--venv", type=Path, default=Path(tempfile.gettempdir()) / "framework-benchmark-torchrl")
    arguments = parser.parse_args()
    ensure_torchrl(arguments.venv)
    import torchrl

    torch.set_num_threads(1)
    result = {
        "machine": f"{processor()}, 1 thread",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchrl": torchrl.__version__,
            "framework": framework.__version__,
        },
        "rounds": arguments.rounds,
        "settings": {"gamma": GAMMA, "lam": LAM, "n": N_STEPS},
        "shapes": {f"[{t}, {n}]": measure((t, n), arguments.rounds) for t, n in SHAPES},
    }
    print(result["machine"], result["versions"])
    columns = ("ours", "plain", "loop", "torchrl", "copy")
    for shape, rows in result["shapes"].items():
        print(f"\n{shape:16}" + "".join(f"{column + ' µs':>12}" for column in columns) + "   loop/ours torchrl/ours")
        for name, row in rows.items():
            cells = "".join(f"{row.get(f'{column} µs', '–'):>12}" for column in columns)
            print(f"{name:16}{cells}{row['loop / ours']:>12}{row.get('torchrl / ours', '–'):>13}")
    if arguments.write:
        write("returns", result)


if __name__ == "__main__":
    main()
