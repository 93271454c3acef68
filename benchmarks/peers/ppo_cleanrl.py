"""As CleanRL's ppo.py does it: one file of plain torch, Gymnasium's SyncVectorEnv and RecordEpisodeStatistics.

Written anew from Huang et al. 2022, "The 37 implementation details of proximal policy optimization". Like CleanRL, it
takes a time limit for the world's end, and does not clip the value's loss here.
"""

from job import CLIP, EPOCHS, EPS, GAMMA, HIDDEN, LAM, LR, MAX_GRAD_NORM, STEPS, VALUE, Watch

watch = Watch()

import gymnasium  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from gymnasium.vector import AutoresetMode, SyncVectorEnv  # noqa: E402
from torch import nn  # noqa: E402
from torch.distributions import Categorical  # noqa: E402

torch.set_num_threads(1)
torch.manual_seed(watch.seed)
lanes = watch.lanes


def layer(inputs, outputs, gain=2**0.5):
    linear = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
    return linear


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        wide, narrow = HIDDEN
        self.critic = nn.Sequential(layer(4, wide), nn.Tanh(), layer(wide, narrow), nn.Tanh(), layer(narrow, 1, 1.0))
        self.actor = nn.Sequential(layer(4, wide), nn.Tanh(), layer(wide, narrow), nn.Tanh(), layer(narrow, 2, 0.01))

    def forward(self, observations, actions=None):
        choice = Categorical(logits=self.actor(observations))
        if actions is None:
            actions = choice.sample()
        return actions, choice.log_prob(actions), choice.entropy(), self.critic(observations).squeeze(-1)


def make():
    return gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.make("CartPole-v1"))


worlds = SyncVectorEnv([make] * lanes, autoreset_mode=AutoresetMode.SAME_STEP)
agent = Agent()
optimizer = torch.optim.Adam(agent.parameters(), lr=LR, eps=EPS)
observations = torch.zeros(STEPS, lanes, 4)
actions = torch.zeros(STEPS, lanes, dtype=torch.long)
log_probs, rewards, dones, values = (torch.zeros(STEPS, lanes) for _ in range(4))
following = torch.tensor(worlds.reset(seed=watch.seed)[0])
done = torch.zeros(lanes)
steps = 0

while not watch.over:
    optimizer.param_groups[0]["lr"] = watch.rate()
    for t in range(STEPS):
        observations[t], dones[t] = following, done
        with torch.no_grad():
            actions[t], log_probs[t], _, values[t] = agent(following)
        seen, reward, terminated, truncated, info = worlds.step(actions[t].numpy())
        ended = terminated | truncated
        rewards[t] = torch.as_tensor(reward)
        following, done = torch.as_tensor(seen), torch.as_tensor(ended, dtype=torch.float32)
        steps += lanes
        if ended.any():
            for score in info["final_info"]["episode"]["r"][ended]:
                watch.episode(steps, score)
    with torch.no_grad():
        value, gone = agent.critic(following).squeeze(-1), done
        advantages, advantage = torch.zeros_like(rewards), torch.zeros(lanes)
        for t in reversed(range(STEPS)):
            error = rewards[t] + GAMMA * value * (1 - gone) - values[t]
            advantages[t] = advantage = error + GAMMA * LAM * (1 - gone) * advantage
            value, gone = values[t], dones[t]
        returns = advantages + values
    columns = [column.flatten(0, 1) for column in (observations, actions, log_probs, advantages, returns)]
    order = np.arange(watch.batch)
    for _ in range(EPOCHS):
        np.random.shuffle(order)
        for first in range(0, watch.batch, watch.minibatch):
            index = torch.as_tensor(order[first : first + watch.minibatch])
            seen, chosen, old, gains, targets = (column[index] for column in columns)
            _, new, entropy, estimates = agent(seen, chosen)
            ratios = (new - old).exp()
            with torch.no_grad():
                gains = (gains - gains.mean()) / (gains.std() + 1e-8)
            policy_loss = -torch.min(gains * ratios, gains * ratios.clamp(1 - CLIP, 1 + CLIP)).mean()
            loss = policy_loss + VALUE * (estimates - targets).square().mean() - 0.0 * entropy.mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), MAX_GRAD_NORM)
            optimizer.step()
    watch.iteration()
watch.report("torch", "gymnasium", "numpy")
