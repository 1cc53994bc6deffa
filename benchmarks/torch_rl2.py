"""RL² on bandits by plain PyTorch, to be timed: `torch_rl2.py TRIALS PULLS ARMS UNITS EPOCHS MINIBATCHES STEPS`.

The same sizes, inputs and losses as `metatower.learners.PPO` on `BernoulliBandit`, as one would write it: worlds as a
batch of tensors, `nn.GRU` over whole trials in the update. Prints the steps of the world per second, and the return.
"""

import sys
import time

import torch
from torch import nn
from torch.distributions import Categorical


class Net(nn.Module):
    """The same agent in PyTorch: a GRU with heads for policy and value."""

    def __init__(self, inputs: int, units: int, arms: int):
        super().__init__()
        self.gru = nn.GRU(inputs, units, batch_first=True)
        self.actor, self.critic = nn.Linear(units, arms), nn.Linear(units, 1)

    def forward(self, x, memory=None):
        y, memory = self.gru(x, memory)
        return self.actor(y), self.critic(y)[..., 0], memory


def play(net: Net, trials: int, pulls: int, arms: int):
    """A batch of trials, all tensors `[trial, pull, ...]`."""
    p = torch.rand(trials, arms)
    x, memory, kept = torch.zeros(trials, 1, arms + 2), None, []
    x[..., -1] = 1
    with torch.no_grad():
        for _ in range(pulls):
            logits, value, memory = net(x, memory)
            policy = Categorical(logits=logits[:, 0])
            action = policy.sample()
            reward = (torch.rand(trials) < p.gather(1, action[:, None])[:, 0]).float()
            kept.append((x[:, 0], action, policy.log_prob(action), value[:, 0], reward))
            x = torch.cat([nn.functional.one_hot(action, arms), reward[:, None], torch.ones(trials, 1)], 1)[:, None]
    return [torch.stack(each, 1) for each in zip(*kept, strict=True)]


def step(net, optimiser, trials, pulls, arms, epochs, minibatches, discount=0.99, trace=0.7):
    """One step of PPO; gives the mean return."""
    x, action, log, value, reward = play(net, trials, pulls, arms)
    advantage, later = torch.zeros_like(value), torch.zeros(trials)
    for t in reversed(range(pulls)):
        after = value[:, t + 1] if t + 1 < pulls else torch.zeros(trials)
        later = reward[:, t] + discount * after - value[:, t] + discount * trace * later
        advantage[:, t] = later
    returned, advantage = advantage + value, (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    for _ in range(epochs):
        for rows in torch.randperm(trials).chunk(minibatches):
            logits, v, _ = net(x[rows])
            policy = Categorical(logits=logits)
            ratio = (policy.log_prob(action[rows]) - log[rows]).exp()
            gain = torch.minimum(ratio * advantage[rows], ratio.clamp(0.8, 1.2) * advantage[rows]).mean()
            loss = 0.25 * ((v - returned[rows]) ** 2).mean() - 0.01 * policy.entropy().mean() - gain
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            optimiser.step()
    return reward.sum(1).mean().item()


def main(trials: int, pulls: int, arms: int, units: int, epochs: int, minibatches: int, steps: int) -> None:
    """Trains it, and prints steps of the environment per second and the last mean return."""
    torch.manual_seed(0)
    net = Net(arms + 2, units, arms)
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    how = trials, pulls, arms, epochs, minibatches
    step(net, optimiser, *how)
    began = time.perf_counter()
    for _ in range(steps):
        gained = step(net, optimiser, *how)
    print(steps * trials * pulls / (time.perf_counter() - began), gained)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
