"""Policies with memory: sequences say what stepping says, nothing outlives its episode, lanes stay whole."""

import types

import framework_policies.recurrent as recurrent
import numpy as np
import pytest
import torch
from attrs import evolve
from framework_losses import Ppo
from gymnasium.spaces import Box
from hypothesis import assume, given
from hypothesis import strategies as st
from mutants import is_killed, mutate
from recurrent_cases import CLOSE, CPU, Patchy, remembering

import framework
import framework.cli
import framework.collecting.rollout
import framework.collecting.shard
import framework.learning.batches
import framework.learning.evaluate
from framework import Action, Inputs, UpdateSettings


class Silent(torch.nn.Module):
    """A policy whose `act` leaves the log-probs out."""

    def __init__(self, policy):
        super().__init__()
        self.policy, self.evaluate, self.values = policy, policy.evaluate, policy.values

    def act(self, inputs, generator):
        return evolve(self.policy.act(inputs, generator), log_probs=None)


class Reusing(Silent):
    """A policy that hands out the same action, state and all, each time."""

    action = None

    def act(self, inputs, generator):
        chosen = self.policy.act(inputs, generator)
        if self.action is None:
            self.action = Action(*(column.clone() for column in (chosen.actions, chosen.log_probs, chosen.state)))
        for name in ("actions", "log_probs", "state"):
            getattr(self.action, name).copy_(getattr(chosen, name))
        return self.action


WRAPPED = {"plain": lambda policy: policy, "without log-probs": Silent, "reusing": Reusing}
MODULES = {
    "shard": framework.collecting.shard,
    "rollout": framework.collecting.rollout,
    "batches": framework.learning.batches,
    "evaluate": framework.learning.evaluate,
    "recurrent": recurrent,
}


def modules(**mutants):
    """The modules under test, some of them mutants."""
    return types.SimpleNamespace(**{**MODULES, **mutants})


def gather(m, policy, case, iterations=2):
    """Of each iteration: the rollout, with values, and each shard's successors `[T, lanes]`."""
    seed, way, lanes, shards, wrapped, reset_rows, masked = case
    amounts = {"steps": None, "episodes": None, "fixed_steps": None, **way}
    parts = [
        m.shard.Shard(
            environment=Patchy(lanes, reset_rows, masked),
            lanes=lanes,
            **amounts,
            seed=seed,
            number=number,
            device=CPU,
            labels=("environment 'patchy' (plugin tests)", "policy 'recurrent' (plugin tests)"),
        )
        for number in range(shards)
    ]
    actor, collected = WRAPPED[wrapped](policy), []
    for iteration in range(iterations):
        for part in parts:
            part.environment.successors_seen.clear()
        rollout, _ = m.rollout.collect(parts, actor, actor, iteration, True)
        collected.append((rollout, [torch.stack(part.environment.successors_seen) for part in parts]))
    return collected


WAYS = st.one_of(
    st.builds(lambda n: {"steps": n}, st.integers(1, 20)),
    st.builds(lambda n: {"episodes": n}, st.integers(1, 4)),
    st.builds(lambda n: {"fixed_steps": n}, st.integers(1, 9)),
)
SEEDS = st.integers(0, 2**31)
FIXED = st.builds(lambda n: {"fixed_steps": n}, st.integers(1, 9))


def cases(ways=WAYS):
    flags = st.booleans()
    return st.tuples(SEEDS, ways, st.integers(1, 3), st.integers(1, 2), st.sampled_from(list(WRAPPED)), flags, flags)


CASES = cases()


# The oracle: one lane, one step after the other, the unit written out


def remember(policy, observation, memory):
    """The next memory: torch.nn.GRU's documented equations."""
    features, unit = policy.network(observation), policy.unit
    given = (unit.weight_ih_l0 @ features + unit.bias_ih_l0).chunk(3)
    kept = (unit.weight_hh_l0 @ memory + unit.bias_hh_l0).chunk(3)
    reset, update = torch.sigmoid(given[0] + kept[0]), torch.sigmoid(given[1] + kept[1])
    return (1 - update) * torch.tanh(given[2] + reset * kept[2]) + update * memory


def step_by_step(policy, rollout, n):
    """Of the real rows of a lane: {t: (log π(·|s), V, memory after it)}; an episode starts from 0."""
    memory, expected_steps = rollout.state[n], {}
    for t in rollout.mask[:, n].nonzero().flatten().tolist():
        if rollout.times[t, n] == 0:
            memory = torch.zeros_like(memory)
        memory = remember(policy, rollout.observations[t, n], memory)
        outputs = policy.heads.weight @ memory + policy.heads.bias
        logits = outputs[:-1]
        if rollout.action_masks is not None:
            logits = torch.where(rollout.action_masks[t, n], logits, -torch.inf)
        expected_steps[t] = (logits.log_softmax(0), outputs[-1], memory)
    return expected_steps


# The laws


def law_sequences_say_what_stepping_says(m, case):
    """Log-probs, entropies and values of every real row, across the starts of episodes, and those of the rollout."""
    policy = remembering(m.recurrent, case[0])
    with torch.no_grad():
        for rollout, _ in gather(m, policy, case):
            said = policy.evaluate(m.rollout.sequences(rollout), rollout.actions, True)
            values = policy.values(m.rollout.sequences(rollout))
            assert said.log_probs.shape == said.values.shape == said.entropies.shape == rollout.mask.shape
            for n in range(rollout.mask.shape[1]):
                for t, (log_probs, value, _) in step_by_step(policy, rollout, n).items():
                    chosen = log_probs[rollout.actions[t, n] - 2]
                    assert torch.isclose(said.log_probs[t, n], chosen, **CLOSE)
                    assert torch.isclose(rollout.log_probs[t, n], chosen, **CLOSE)
                    entropy = torch.distributions.Categorical(logits=log_probs).entropy()
                    assert torch.isclose(said.entropies[t, n], entropy, **CLOSE)
                    for given_value in (said.values[t, n], values[t, n], rollout.values[t, n]):
                        assert torch.isclose(given_value, value, **CLOSE)


def law_memory_is_carried(m, case):
    """Fixed steps: the second rollout goes on where the first ended, so that both are one; else from 0."""
    policy = remembering(m.recurrent, case[0])
    with torch.no_grad():
        (one, _), (two, _) = gather(m, policy, case)
        assert not one.state.any()
        if "fixed_steps" not in case[1]:
            assert not two.state.any()
            return
        names = ("observations", "actions", "log_probs", "mask", "times", "action_masks")
        both = {
            name: torch.cat([getattr(one, name), getattr(two, name)])
            for name in names
            if getattr(one, name) is not None
        }
        whole = evolve(one, **both)
        said = policy.evaluate(m.rollout.sequences(whole), whole.actions, False)
        assert torch.allclose(said.log_probs[whole.mask], whole.log_probs[whole.mask], **CLOSE)
        for n in range(whole.mask.shape[1]):
            if two.times[0, n] > 0:  # the episode goes on
                _, _, memory = step_by_step(policy, one, n)[len(one.mask) - 1]
                assert torch.allclose(two.state[n], memory, **CLOSE)


def law_successors_are_valued_with_what_is_remembered(m, case):
    """V(s′): of the true successor, with the memory of that row, also where a trace is cut; 0 where the world ended."""
    policy = remembering(m.recurrent, case[0])
    with torch.no_grad():
        for rollout, successors in gather(m, policy, case):
            lanes = case[2]
            for n in range(rollout.mask.shape[1]):
                expected_steps = step_by_step(policy, rollout, n)
                for t, (_, _, memory) in expected_steps.items():
                    expected = torch.zeros(())
                    if not rollout.terminated[t, n]:
                        after = remember(policy, successors[n // lanes][t, n % lanes], memory)
                        expected = policy.heads.weight[-1] @ after + policy.heads.bias[-1]
                    assert torch.isclose(rollout.successor_values[t, n], expected.double(), **CLOSE)


def law_nothing_outlives_an_episode(m, seed, rows, lanes, chance):
    """Whatever was seen or remembered before, even NaN, changes nothing after a start, and all before the next one."""
    generator = torch.Generator().manual_seed(seed)
    space = Box(-9.0, 9.0, (2,), np.float64)
    policy = remembering(m.recurrent, seed, space)
    observations = torch.randn(rows, lanes, 2, generator=generator, dtype=torch.float64)
    started = torch.rand(rows, lanes, generator=generator) < chance
    state = torch.randn(lanes, 4, generator=generator, dtype=torch.float64)
    actions = torch.full((rows, lanes), 2)
    plain = policy.evaluate(Inputs(observations, state=state, started=started), actions, True)
    t, n = int(torch.randint(-1, rows, (), generator=generator)), int(torch.randint(lanes, (), generator=generator))
    other, forgotten = observations.clone(), state.clone()
    other[: t + 1, n] = torch.nan
    forgotten[n] = torch.nan
    said = policy.evaluate(Inputs(other, state=forgotten, started=started), actions, True)
    touched = torch.zeros(rows, lanes, dtype=torch.bool)
    reaches = True
    for row in range(rows):
        reaches = row <= t or (reaches and not started[row, n])
        touched[row, n] = reaches
    for name in ("log_probs", "values", "entropies"):
        assert torch.equal(getattr(said, name)[~touched], getattr(plain, name)[~touched])
        assert getattr(said, name)[touched].isnan().all()
    # one step: the state of a lane whose episode starts is not looked at
    first = Inputs(observations[0], state=torch.where(started[0][:, None], torch.nan, state), started=started[0])
    acted = policy.act(first, torch.Generator().manual_seed(seed))
    again = policy.act(evolve(first, state=state), torch.Generator().manual_seed(seed))
    assert torch.equal(acted.log_probs, again.log_probs)
    assert torch.equal(acted.state, again.state)


def update(minibatches=1, epochs=1):
    """The settings, and the random numbers, of minibatches."""
    return UpdateSettings(minibatches=minibatches, epochs=epochs), torch.Generator().manual_seed(5)


def flattened(m, policy, case):
    """A rollout, and its batch; each step has a return of its own. Fixed steps go on with what is remembered."""
    _, (rollout, _) = gather(m, policy, case)
    assume(rollout.mask.any())  # a single row may be a reset row in every lane
    numbers = torch.arange(rollout.mask.numel(), dtype=torch.float64).view_as(rollout.mask)
    advantages = framework.Advantages(numbers, numbers + 0.25, numbers + 0.5)
    return rollout, m.batches.flatten(rollout, advantages)


def law_minibatches_are_whole_lanes(m, case, minibatches):
    """An epoch visits every real step once, lanes undivided and evenly shared out; sequences and flat columns agree."""
    policy = remembering(m.recurrent, case[0])
    rollout, whole = flattened(m, policy, case)
    numbers = torch.arange(rollout.mask.numel(), dtype=torch.float64).view_as(rollout.mask)
    width = rollout.mask.shape[1]
    busy = int(rollout.mask.any(0).sum())
    batches = [piece.make() for piece in m.batches.minibatches(*update(minibatches, 2), whole)]
    assert len(batches) == 2 * min(minibatches, busy)
    for epoch in (batches[: len(batches) // 2], batches[len(batches) // 2 :]):
        visited = torch.cat([batch.advantages for batch in epoch]).sort().values
        assert torch.equal(visited, numbers[rollout.mask])
        groups = [set((batch.advantages.long() % width).tolist()) for batch in epoch]
        assert sum(map(len, groups)) == busy  # no lane in two
        assert max(map(len, groups)) - min(map(len, groups)) <= 1
        assert sum(batch.total_steps for batch in epoch) == whole.total_steps
        assert sum(batch.total_episodes for batch in epoch) == pytest.approx(whole.total_episodes)
    for batch in batches:
        assert batch.sequences is not None
        assert batch.total_steps == len(batch.advantages) == int(batch.sequences.real.sum())
        inputs, real = batch.sequences.inputs, batch.sequences.real
        assert torch.equal(inputs.observations[real], batch.observations)
        assert torch.equal(batch.sequences.actions[real], batch.actions)
        if batch.action_masks is not None:
            assert torch.equal(inputs.action_masks[real], batch.action_masks)
        said = policy.evaluate(inputs, batch.sequences.actions, False)
        assert torch.allclose(said.log_probs[real], batch.log_probs, **CLOSE)
        assert torch.allclose(said.values[real], batch.values, **CLOSE)
        t, n = batch.advantages.long() // width, batch.advantages.long() % width
        assert torch.equal(batch.observations, rollout.observations[t, n])
        assert torch.equal(batch.returns, batch.advantages + 0.25)
        assert torch.equal(batch.value_targets, batch.advantages + 0.5)


def loss_and_gradients(m, policy, batch, denominator="per_step"):
    """Of the loss of a batch, reduced."""
    label = types.SimpleNamespace(label="part (plugin tests)")
    run = types.SimpleNamespace(
        config=types.SimpleNamespace(policy=label, loss=label),
        policy=policy,
        loss=Ppo(entropy=0.1),
        needs={"values", "entropies"},
        loss_needs={"values", "entropies"},
        traced={},
    )
    loss = run.loss(batch, m.evaluate.evaluate_batch(run, batch))
    total = sum(m.batches.reduce(loss, batch, denominator, 3.0).values())
    return total.detach(), torch.autograd.grad(total, list(policy.parameters()))


def law_micro_batches_add_up(m, case, pieces, denominator):
    """Losses and gradients of groups of lanes, with the whole's denominators, sum to those of the whole."""
    policy = remembering(m.recurrent, case[0])
    rollout, whole = flattened(m, policy, case)
    policy = remembering(m.recurrent, case[0] + 1)  # no longer the one that acted, so that the ratios count
    total, gradients = loss_and_gradients(m, policy, whole, denominator)
    summed, sums = 0.0, [torch.zeros_like(gradient) for gradient in gradients]
    for lanes in rollout.mask.any(0).nonzero().flatten().tensor_split(pieces):
        if len(lanes):
            part = m.batches.select_lanes(whole, lanes)
            part = evolve(part, total_steps=whole.total_steps, total_episodes=whole.total_episodes)
            loss, some = loss_and_gradients(m, policy, part, denominator)
            summed = summed + loss
            sums = [a + b for a, b in zip(sums, some, strict=True)]
    # returns are row numbers up to 200, squared errors up to 4e4, and as much again in the gradient
    assert torch.isclose(total, torch.as_tensor(summed), rtol=1e-10, atol=1e-8)
    for one, other in zip(gradients, sums, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-7)


def law_padding_is_inert(m, case, seed):
    """Other observations and actions in padding and reset rows: the same loss, bit for bit, and gradient."""
    policy = remembering(m.recurrent, case[0])
    rollout, whole = flattened(m, policy, case)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(-1, 4, rollout.mask.shape, generator=generator)
    chosen = torch.randint(2, 5, rollout.mask.shape, generator=generator)
    changed = evolve(
        rollout,
        observations=torch.where(rollout.mask, rollout.observations, noise),
        actions=rollout.actions if case[6] else torch.where(rollout.mask, rollout.actions, chosen),
    )
    numbers = torch.arange(rollout.mask.numel(), dtype=torch.float64).view_as(rollout.mask)
    other = m.batches.flatten(changed, framework.Advantages(numbers, numbers + 0.25, numbers + 0.5))
    (one, gradients), (two, others) = loss_and_gradients(m, policy, whole), loss_and_gradients(m, policy, other)
    assert torch.equal(one, two)
    # returns are row numbers up to 200, and gradients are summed in another order
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-7) for a, b in zip(gradients, others, strict=True))


LAWS = {
    law_sequences_say_what_stepping_says: (CASES,),
    law_memory_is_carried: (CASES,),
    law_successors_are_valued_with_what_is_remembered: (CASES,),
    law_nothing_outlives_an_episode: (SEEDS, st.integers(1, 8), st.integers(1, 4), st.sampled_from([0.0, 0.2, 0.6])),
    law_minibatches_are_whole_lanes: (CASES, st.integers(2, 5)),
    law_micro_batches_add_up: (CASES, st.integers(1, 4), st.sampled_from(["per_step", "per_episode", "constant"])),
    law_padding_is_inert: (CASES, SEEDS),
}


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_law(law):
    given(st.tuples(*LAWS[law]))(lambda drawn: law(modules(), *drawn))()


STARTED = "rollout.times == 0"
MUTANTS = {
    "never says that an episode started": (
        law_sequences_say_what_stepping_says,
        {"shard": ("torch.from_numpy(started)", "torch.from_numpy(started & False)")},
    ),
    "says so of another lane": (
        law_sequences_say_what_stepping_says,
        {"shard": ("torch.from_numpy(started)", "torch.from_numpy(np.roll(started, 1))")},
    ),
    "hands the memory to another lane": (
        law_sequences_say_what_stepping_says,
        {"shard": ("evolve(inputs, state=state,", "evolve(inputs, state=state.flip(0),")},
    ),
    "has sequences without starts": (
        law_sequences_say_what_stepping_says,
        {"rollout": (STARTED, "rollout.times < 0")},
    ),
    "evaluates left out log-probs in another order": (
        law_sequences_say_what_stepping_says,
        {"rollout": ("append(evaluation.log_probs)", "append(evaluation.log_probs.flip(0))")},
    ),
    "forgets what one shard's lanes remember": (
        law_sequences_say_what_stepping_says,
        {
            "rollout": (
                "torch.cat(states) if states else None\n    if all",
                "torch.cat(states[:1] * len(states)) if states else None\n    if all",
            )
        },
        (cases(FIXED),),
    ),
    "ignores masks when it evaluates": (
        law_sequences_say_what_stepping_says,
        {"recurrent": ("outputs[..., :-1], inputs.action_masks)", "outputs[..., :-1], None)")},
    ),
    "ignores masks when it acts": (
        law_sequences_say_what_stepping_says,
        {"recurrent": ("[:, :-1], inputs.action_masks)", "[:, :-1], None)")},
    ),
    "forgets the first action's number": (
        law_sequences_say_what_stepping_says,
        {"recurrent": ("actions - self.first_action, entropies", "actions % 3, entropies")},
    ),
    "takes a logit for the value": (
        law_sequences_say_what_stepping_says,
        {"recurrent": ("uncertain, outputs[..., -1])", "uncertain, outputs[..., 0])")},
    ),
    "packs without sorting": (
        law_sequences_say_what_stepping_says,
        {"recurrent": ("lengths.argsort(descending=True, stable=True)", "lengths.argsort(stable=True)")},
    ),
    "leaves the packing's order": (
        law_sequences_say_what_stepping_says,
        {"recurrent": ("remembered[order.argsort()]", "remembered")},
    ),
    "begins each rollout with nothing": (
        law_memory_is_carried,
        {"shard": ("memory = inputs.state  #", "memory = None  #")},
        (cases(FIXED),),
    ),
    "carries what the next act overwrites": (
        law_memory_is_carried,
        {"shard": ("action.state.clone()", "action.state")},
        (cases(FIXED),),
    ),
    "evaluates each rollout from nothing": (
        law_memory_is_carried,
        {"recurrent": ("    if inputs.state is not None:  #", "    if False:  #")},
        (cases(FIXED),),
    ),
    "gives the memory to another piece": (
        law_memory_is_carried,
        {"recurrent": ("index_copy(0, rank[pieces[0]],", "index_copy(0, pieces[0],")},
        (cases(FIXED),),
    ),
    "values successors with nothing remembered": (
        law_successors_are_valued_with_what_is_remembered,
        {"rollout": ("torch.zeros(1, len(cut), dtype=torch.bool", "torch.ones(1, len(cut), dtype=torch.bool")},
    ),
    "values successors with the memory before the step": (
        law_successors_are_valued_with_what_is_remembered,
        {
            "shard": (
                "tracker.note(t, ended, successors, state, step.metrics)",
                "tracker.note(t, ended, successors, state * 0.5, step.metrics)",
            )
        },
    ),
    "keeps other lanes' memory of cuts": (
        law_successors_are_valued_with_what_is_remembered,
        {
            "shard": (
                "tracker.note(t, ended, successors, state, step.metrics)",
                "tracker.note(t, ended, successors, state.roll(1, 0), step.metrics)",
            )
        },
    ),
    "does not forget when it acts": (
        law_nothing_outlives_an_episode,
        {"recurrent": ("state = state.masked_fill(inputs.started.unsqueeze(-1), 0)", "pass")},
    ),
    "multiplies by nought": (
        law_nothing_outlives_an_episode,
        {
            "recurrent": (
                "inputs.state.masked_fill(starts[0].unsqueeze(-1), 0)",
                "inputs.state * ~starts[0].unsqueeze(-1)",
            )
        },
    ),
    "cuts only in the first row": (
        law_nothing_outlives_an_episode,
        {"recurrent": ("begins = starts.clone()", "begins = torch.zeros_like(starts)")},
    ),
    "remembers nothing at all": (
        law_nothing_outlives_an_episode,
        {"recurrent": ("begins[0] = True", "begins[:] = True")},
    ),
    "divides lanes": (
        law_minibatches_are_whole_lanes,
        {"batches": ("one = select if whole.sequences is None else select_lanes", "one = select")},
    ),
    "counts idle lanes": (
        law_minibatches_are_whole_lanes,
        {"batches": ("(rows,) = whole.sequences.real.any(0)", "(rows,) = whole.sequences.real.any(0).fill_(True)")},
        (cases(st.just({"episodes": 1})), st.integers(2, 5)),
    ),
    "does not shuffle the sequences along": (
        law_minibatches_are_whole_lanes,
        {"batches": ("inputs.observations[:, lanes],", "inputs.observations[:, lanes.sort().values],")},
    ),
    "does not shuffle the memory along": (
        law_minibatches_are_whole_lanes,
        {"batches": ("else inputs.state[lanes]", "else inputs.state[: len(lanes)]")},
    ),
    "mixes up rows": (
        law_minibatches_are_whole_lanes,
        {"batches": ("row[:, lanes][real]", "row[:, lanes].t()[real.t()]")},
    ),
    "evaluates padding": (
        law_padding_is_inert,
        {
            "evaluate": (
                "columns[name] = column[parts.real]",
                "columns[name] = column.flatten()[: len(batch.actions)]",
            )
        },
    ),
    "lets gradients of parts be means": (
        law_micro_batches_add_up,
        {"batches": ("term.sum() / count", "term.mean() / count")},
    ),
}


def test_every_law_has_a_mutant():
    assert {law for law, *_ in MUTANTS.values()} == set(LAWS)


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_law_kills_the_mutant_that(name):
    law, changes, *strategies = MUTANTS[name]
    mutants = {module: mutate(MODULES[module].__name__, change) for module, change in changes.items()}
    is_killed(law, *(strategies[0] if strategies else LAWS[law]), arguments=(modules(**mutants),))
