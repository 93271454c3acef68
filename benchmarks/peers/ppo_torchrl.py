"""TorchRL: `ClipPPOLoss`, `GAE`, `Collector` and a replay buffer without replacement, as its PPO tutorial puts them.

The lanes are Gymnasium's SyncVectorEnv through `GymWrapper`, reset by TorchRL, as it prefers: at 8 lanes twice as fast
as its own SerialEnv.
"""

from job import CLIP, EPOCHS, EPS, GAMMA, HIDDEN, ITERATIONS, LAM, LR, MAX_GRAD_NORM, VALUE, Watch

watch = Watch()

import gymnasium  # noqa: E402
import torch  # noqa: E402
from gymnasium.vector import AutoresetMode  # noqa: E402
from tensordict.nn import TensorDictModule  # noqa: E402
from torch import nn  # noqa: E402
from torchrl.collectors import Collector  # noqa: E402
from torchrl.data import LazyTensorStorage, SamplerWithoutReplacement, TensorDictReplayBuffer  # noqa: E402
from torchrl.envs import RewardSum, TransformedEnv  # noqa: E402
from torchrl.envs.libs.gym import GymWrapper  # noqa: E402
from torchrl.modules import MLP, ProbabilisticActor, ValueOperator  # noqa: E402
from torchrl.objectives import ClipPPOLoss  # noqa: E402
from torchrl.objectives.value import GAE  # noqa: E402

torch.set_num_threads(1)
torch.manual_seed(watch.seed)

lanes = gymnasium.make_vec(
    "CartPole-v1",
    watch.lanes,
    vectorization_mode="sync",
    vector_kwargs={"autoreset_mode": AutoresetMode.DISABLED},
)
worlds = TransformedEnv(GymWrapper(lanes, categorical_action_encoding=True), RewardSum())
worlds.set_seed(watch.seed)


def network(outputs):
    return MLP(in_features=4, out_features=outputs, num_cells=list(HIDDEN), activation_class=nn.Tanh)


actor = ProbabilisticActor(
    TensorDictModule(network(2), in_keys=["observation"], out_keys=["logits"]),
    in_keys=["logits"],
    spec=worlds.full_action_spec_unbatched["action"],
    distribution_class=torch.distributions.Categorical,
    return_log_prob=True,
)
critic = ValueOperator(network(1), in_keys=["observation"])
advantage = GAE(gamma=GAMMA, lmbda=LAM, value_network=critic, average_gae=False)
loss = ClipPPOLoss(
    actor,
    critic,
    clip_epsilon=CLIP,
    entropy_bonus=False,
    critic_coeff=VALUE,
    loss_critic_type="l2",
    normalize_advantage=True,
)
optimizer = torch.optim.Adam(loss.parameters(), lr=LR, eps=EPS)
buffer = TensorDictReplayBuffer(
    storage=LazyTensorStorage(watch.batch), sampler=SamplerWithoutReplacement(), batch_size=watch.minibatch
)
collector = Collector(
    worlds,
    actor,
    frames_per_batch=watch.batch,
    total_frames=watch.batch * ITERATIONS,
    auto_register_policy_transforms=True,
)

for rollout in collector:
    ended = rollout["next", "done"].squeeze(-1)
    scores = rollout["next", "episode_reward"].squeeze(-1)
    for t, lane in ended.T.nonzero().tolist():
        watch.episode(len(watch.ends) * watch.batch + (t + 1) * watch.lanes, scores[lane, t].item())
    optimizer.param_groups[0]["lr"] = watch.rate()
    with torch.no_grad():
        advantage(rollout)
    buffer.empty()
    buffer.extend(rollout.reshape(-1))
    for _ in range(EPOCHS):
        for batch in buffer:
            terms = loss(batch)
            total = terms["loss_objective"] + terms["loss_critic"]
            optimizer.zero_grad()
            total.backward()
            nn.utils.clip_grad_norm_(loss.parameters(), MAX_GRAD_NORM)
            optimizer.step()
    if watch.iteration():
        break
collector.shutdown()
watch.report("torchrl", "tensordict", "torch", "gymnasium", "numpy")
