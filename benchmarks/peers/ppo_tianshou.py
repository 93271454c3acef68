"""Tianshou: `PPO`, `Collector` and `VectorReplayBuffer` on a `DummyVectorEnv`, its own linear schedule.

`collect` and `update` are called in turn, as its on-policy trainer does between its reports.
"""

from job import CLIP, EPOCHS, EPS, GAMMA, HIDDEN, ITERATIONS, LAM, LR, MAX_GRAD_NORM, VALUE, Watch

watch = Watch()

import gymnasium  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from tianshou.algorithm import PPO  # noqa: E402
from tianshou.algorithm.modelfree.reinforce import DiscreteActorPolicy  # noqa: E402
from tianshou.algorithm.optim import AdamOptimizerFactory, LRSchedulerFactoryLinear  # noqa: E402
from tianshou.data import Collector, VectorReplayBuffer  # noqa: E402
from tianshou.env import DummyVectorEnv  # noqa: E402
from tianshou.utils.net.common import Net  # noqa: E402
from tianshou.utils.net.discrete import DiscreteActor, DiscreteCritic  # noqa: E402
from tianshou.utils.torch_utils import policy_within_training_step, torch_train_mode  # noqa: E402
from torch import nn  # noqa: E402

torch.set_num_threads(1)
torch.manual_seed(watch.seed)
np.random.seed(watch.seed)

worlds = DummyVectorEnv([lambda: gymnasium.make("CartPole-v1")] * watch.lanes)
worlds.seed(watch.seed)


def body():
    return Net(state_shape=(4,), hidden_sizes=HIDDEN, activation=nn.Tanh)


policy = DiscreteActorPolicy(
    actor=DiscreteActor(preprocess_net=body(), action_shape=2, softmax_output=False),
    action_space=gymnasium.spaces.Discrete(2),
)
schedule = LRSchedulerFactoryLinear(ITERATIONS, watch.batch, watch.batch)
algorithm = PPO(
    policy=policy,
    critic=DiscreteCritic(preprocess_net=body()),
    optim=AdamOptimizerFactory(lr=LR, eps=EPS).with_lr_scheduler_factory(schedule),
    eps_clip=CLIP,
    advantage_normalization=True,
    vf_coef=VALUE,
    ent_coef=0.0,
    max_grad_norm=MAX_GRAD_NORM,
    gae_lambda=LAM,
    gamma=GAMMA,
)
buffer = VectorReplayBuffer(watch.batch, watch.lanes)
collector = Collector(algorithm, worlds, buffer)
collector.reset()

while not watch.over:
    with policy_within_training_step(algorithm.policy):
        collected = collector.collect(n_step=watch.batch)
        for score in collected.returns:
            watch.episode((len(watch.ends) + 1) * watch.batch, score)
        with torch_train_mode(algorithm):
            algorithm.update(buffer=buffer, batch_size=watch.minibatch, repeat=EPOCHS)
    collector.reset_buffer(keep_statistics=True)
    watch.iteration()
watch.report("tianshou", "torch", "gymnasium", "numpy")
