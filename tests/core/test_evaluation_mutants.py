"""Mutants of evaluation and of greedy actors, each killed by a law."""

import framework_evaluation
import framework_policies.gaussian as gaussian
import framework_policies.multi_categorical as multi_categorical
import framework_reinforce.categorical as categorical
import pytest
from evaluation_laws import (
    CARELESS,
    EARLY,
    RANDOM,
    RETURNS,
    SEEDS,
    WORLDS,
    law_an_evaluation_repeats_bit_for_bit,
    law_each_evaluation_has_randomness_of_its_own,
    law_exactly_so_many_whole_episodes_are_played,
    law_greedy_takes_the_mean,
    law_greedy_takes_the_most_probable_allowed_action,
    law_it_stops_as_soon_as_the_last_episodes_are_good_enough,
    law_long_episodes_count_in_full,
    law_nothing_is_left_changed,
    law_randomness_is_never_that_of_training,
    law_statistics_are_scipys,
    law_the_best_is_kept,
    masks,
)
from hypothesis import strategies as st
from mutants import is_killed, mutate, mutate_either

from framework import evaluation as evaluations

# Mutants

CHANGES = {
    "finishes a batch too many": (
        law_exactly_so_many_whole_episodes_are_played,
        evaluations,
        (),
        WORLDS,
        ("shard.episodes = min(lanes, episodes - first)", "shard.episodes = lanes"),
    ),
    "tells what it began": (
        law_exactly_so_many_whole_episodes_are_played,
        evaluations,
        (),
        WORLDS,
        ("on_progress(first + shard.episodes)", "on_progress(first)"),
    ),
    "takes the first to finish": (
        law_long_episodes_count_in_full,
        evaluations,
        (),
        (st.booleans(), st.just(16), SEEDS),
        (
            "shard.episodes = min(lanes, episodes - first)",
            "shard.episodes = lanes * 3",
        ),
        (
            "EpisodeStats.together(played)",
            "EpisodeStats.together([EpisodeStats(f.returns[:lanes], f.lengths[:lanes]) for f in played])",
        ),
    ),
    "plays each batch alike": (
        law_an_evaluation_repeats_bit_for_bit,
        evaluations,
        (),
        (st.booleans(), st.integers(6, 8), SEEDS),
        ("_actor(policy, greedy), batch, False", "_actor(policy, greedy), 0, False"),
    ),
    "ignores the seed": (
        law_an_evaluation_repeats_bit_for_bit,
        evaluations,
        (),
        RANDOM,
        ('own = streams.derived_seed(seed, "evaluate")', 'own = streams.derived_seed(0, "evaluate")'),
    ),
    "draws the training's numbers": (
        law_randomness_is_never_that_of_training,
        evaluations,
        (),
        (st.just(0),),
        ('own = streams.derived_seed(seed, "evaluate")', "own = seed"),
    ),
    "moves the global generator": (
        law_nothing_is_left_changed,
        evaluations,
        (),
        CARELESS,
        ("with same_randomness():", "with torch.random.fork_rng([], False):"),
    ),
    "reads the global generator": (
        law_nothing_is_left_changed,
        evaluations,
        (),
        CARELESS,
        ("        streams.seed_global(device, own)\n", ""),
    ),
    "acts in training mode": (law_nothing_is_left_changed, evaluations, (), CARELESS, ("policy.eval()", "pass")),
    "puts all modules into training mode": (
        law_nothing_is_left_changed,
        evaluations,
        (),
        CARELESS,
        ("module.training = training", "module.training = True"),
    ),
    "keeps gradients": (
        law_nothing_is_left_changed,
        evaluations,
        (),
        CARELESS,
        ("with torch.no_grad(), _in_evaluation", "with _in_evaluation"),
    ),
    "divides by n": (law_statistics_are_scipys, evaluations, (), (RETURNS,), ("ddof=1", "ddof=0")),
    "forgets the root": (
        law_statistics_are_scipys,
        evaluations,
        (),
        (RETURNS,),
        ("self.std / math.sqrt(len(self.returns))", "self.std / len(self.returns)"),
    ),
    "takes Student's t of n": (
        law_statistics_are_scipys,
        evaluations,
        (),
        (RETURNS,),
        ("stdtrit(len(self.returns) - 1,", "stdtrit(len(self.returns),"),
    ),
    "takes the mean for the median": (
        law_statistics_are_scipys,
        evaluations,
        (),
        (RETURNS,),
        ("float(np.median(self.returns))", "self.mean"),
    ),
    "takes one tail of 5 %": (
        law_statistics_are_scipys,
        evaluations,
        (),
        (RETURNS,),
        ("(1 + CONFIDENCE) / 2)", "CONFIDENCE)"),
    ),
    "forgets masks when greedy": (
        law_greedy_takes_the_most_probable_allowed_action,
        categorical,
        ("categorical",),
        (masks(3), SEEDS),
        ("self._log_probs(inputs).argmax", "self._log_probs(Inputs(inputs.observations)).argmax"),
    ),
    "forgets the first action's number": (
        law_greedy_takes_the_most_probable_allowed_action,
        categorical,
        ("categorical",),
        (masks(3), SEEDS),
        (".argmax(-1) + self._first", ".argmax(-1)"),
    ),
    "takes the least probable": (
        law_greedy_takes_the_most_probable_allowed_action,
        categorical,
        ("categorical",),
        (masks(3), SEEDS),
        ("self._log_probs(inputs).argmax", "self._log_probs(inputs).argmin"),
    ),
    "lets options overlap": (
        law_greedy_takes_the_most_probable_allowed_action,
        multi_categorical,
        ("multi_categorical",),
        (masks(5), SEEDS),
        ("GreedyActor(self.log_probs, self.first)", "GreedyActor(self.log_probs, 0)"),
    ),
    "samples when greedy": (
        law_greedy_takes_the_mean,
        gaussian,
        (),
        (st.booleans(), st.sampled_from(["global", "state"]), SEEDS),
        ("means, _ = self._policy.normal(inputs)", "means = torch.randn(5, 4)"),
    ),
    "stops too early": (
        law_it_stops_as_soon_as_the_last_episodes_are_good_enough,
        framework_evaluation,
        (),
        EARLY,
        ("len(last) < self.episodes or", "not last or"),
    ),
    "looks at all episodes": (
        law_it_stops_as_soon_as_the_last_episodes_are_good_enough,
        framework_evaluation,
        (),
        (st.just(-20.0), st.just(7)),
        ("[-self.episodes :]", "[:]"),
        ("sum(last) / self.episodes", "sum(last) / max(1, len(last))"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_law_kills_the_mutant_that(name):
    law, module, fixed, strategies, *changes = CHANGES[name]
    if module is categorical:
        (change,) = changes
        mutant = mutate_either(module.__name__, "framework_networks.softmax", change)
    else:
        mutant = mutate(module.__name__, *changes)
    arguments = (*fixed, mutant) if fixed else (mutant,)
    is_killed(law, *strategies, arguments=arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "law"),
    [
        (("> self.highest", ">= self.highest"), law_the_best_is_kept),
        (("> self.highest", "< self.highest"), law_the_best_is_kept),
        (("self.highest = performance.mean", "pass"), law_the_best_is_kept),
        (('"measure", run.iteration', '"measure", 0'), law_each_evaluation_has_randomness_of_its_own),
    ],
    ids=["keeps the later of equals", "keeps the worst", "keeps the last", "evaluates with one seed"],
)
def test_law_of_the_extension_kills_the_mutant_that(change, law, tmp_path):
    mutant = mutate("framework_evaluation", change)
    with pytest.raises(AssertionError):
        law(mutant, tmp_path)
