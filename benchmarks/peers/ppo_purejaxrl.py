"""As PureJaxRL does it: lanes, rollout and updates in one jitted function (gymnax's CartPole, optax's Adam).

Written anew from the algorithm; PureJaxRL itself (Lu et al. 2022, arXiv:2210.05639) is no package. It jits the whole
training; here one call is one iteration, so that it can stop when it is solved (a call costs some 50 µs of 7 ms). Time
limits are bootstrapped, as Gymnasium means them and PureJaxRL does not.
"""

from job import CLIP, EPOCHS, EPS, GAMMA, HIDDEN, ITERATIONS, LAM, LR, MAX_GRAD_NORM, MINIBATCHES, STEPS, VALUE, Watch

watch = Watch()

import gymnax  # noqa: E402
import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402

lanes = watch.lanes
world, world_settings = gymnax.make("CartPole-v1")
schedule = optax.linear_schedule(LR, 0.0, ITERATIONS)
optimizer = optax.chain(
    optax.clip_by_global_norm(MAX_GRAD_NORM),
    optax.adam(lambda count: schedule(count // (EPOCHS * MINIBATCHES)), eps=EPS),
)
reset = jax.vmap(world.reset, (0, None))
step = jax.vmap(world.step, (0, 0, 0, None))


def network(key, outputs, gain):
    """Orthogonal weights of gain √2, and `gain` at the end."""
    widths, keys = [4, *HIDDEN, outputs], jax.random.split(key, len(HIDDEN) + 1)
    gains = [2**0.5] * len(HIDDEN) + [gain]
    pairs = zip(keys, gains, widths[:-1], widths[1:], strict=True)
    return [(jax.nn.initializers.orthogonal(g)(k, (a, b)), jnp.zeros(b)) for k, g, a, b in pairs]


def forward(layers, inputs):
    for weights, bias in layers[:-1]:
        inputs = jnp.tanh(inputs @ weights + bias)
    weights, bias = layers[-1]
    return inputs @ weights + bias


def values_of(parameters, observations):
    return forward(parameters["critic"], observations).squeeze(-1)


def log_probs_of(parameters, observations, actions):
    logits = jax.nn.log_softmax(forward(parameters["actor"], observations))
    return jnp.take_along_axis(logits, actions[..., None], -1).squeeze(-1)


def loss(parameters, batch):
    ratios = jnp.exp(log_probs_of(parameters, batch["observations"], batch["actions"]) - batch["log_probs"])
    advantages = batch["advantages"]
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    gains = jnp.minimum(ratios * advantages, jnp.clip(ratios, 1 - CLIP, 1 + CLIP) * advantages)
    errors = jnp.square(values_of(parameters, batch["observations"]) - batch["returns"])
    return VALUE * errors.mean() - gains.mean()


def act(parameters, carry, key):
    observations, states, scores = carry
    key_act, key_step = jax.random.split(key)
    actions = jax.random.categorical(key_act, forward(parameters["actor"], observations))
    keys = jax.random.split(key_step, lanes)
    following, states, rewards, terminated, truncated, info = step(keys, states, actions, world_settings)
    ended = terminated | truncated
    scores = scores + rewards
    row = {
        "observations": observations,
        "actions": actions,
        "rewards": rewards,
        "successors": info["final_observation"],
        "terminated": terminated,
        "ended": ended,
        "scores": scores,
    }
    return (following, states, jnp.where(ended, 0.0, scores)), row


def update(training, batch):
    parameters, state = training
    changes, state = optimizer.update(jax.grad(loss)(parameters, batch), state)
    return (optax.apply_updates(parameters, changes), state), None


def epoch(flat, training, key):
    order = jax.random.permutation(key, watch.batch)
    parts = {name: column[order].reshape(MINIBATCHES, -1, *column.shape[1:]) for name, column in flat.items()}
    return jax.lax.scan(update, training, parts)


@jax.jit
def iteration(training, carry, key):
    key_act, key_shuffle = jax.random.split(key)
    parameters = training[0]
    carry, rows = jax.lax.scan(lambda c, k: act(parameters, c, k), carry, jax.random.split(key_act, STEPS))
    values = values_of(parameters, rows["observations"])
    successors = jnp.where(rows["terminated"], 0.0, values_of(parameters, rows["successors"]))
    errors = rows["rewards"] + GAMMA * successors - values

    def back(following, at):
        error, ended = at
        advantage = error + GAMMA * LAM * jnp.where(ended, 0.0, following)
        return advantage, advantage

    _, advantages = jax.lax.scan(back, jnp.zeros(lanes), (errors, rows["ended"]), reverse=True)
    whole = {
        "observations": rows["observations"],
        "actions": rows["actions"],
        "log_probs": log_probs_of(parameters, rows["observations"], rows["actions"]),
        "advantages": advantages,
        "returns": advantages + values,
    }
    flat = {name: column.reshape(watch.batch, *column.shape[2:]) for name, column in whole.items()}
    training, _ = jax.lax.scan(lambda t, k: epoch(flat, t, k), training, jax.random.split(key_shuffle, EPOCHS))
    return training, carry, rows["ended"], rows["scores"]


key_actor, key_critic, key_reset, key = jax.random.split(jax.random.PRNGKey(watch.seed), 4)
parameters = {"actor": network(key_actor, 2, 0.01), "critic": network(key_critic, 1, 1.0)}
training = parameters, optimizer.init(parameters)
observations, states = reset(jax.random.split(key_reset, lanes), world_settings)
carry = observations, states, jnp.zeros(lanes)
while not watch.over:
    key, key_iteration = jax.random.split(key)
    training, carry, ended, scores = iteration(training, carry, key_iteration)
    ended, scores = np.asarray(ended), np.asarray(scores)
    for row, lane in np.argwhere(ended):
        watch.episode(len(watch.ends) * watch.batch + (row + 1) * lanes, scores[row, lane])
    watch.iteration()
watch.report("jax", "gymnax", "optax", "numpy")
