"""The second-order MAML meta-gradient by plain PyTorch autograd, in float64: `torch_gradient.py IN.npz OUT.npz`.

Run by `benchmarks.agreement` in an environment that has PyTorch. The network is that of `torch_peers.py`, with the
weights, tasks, rate and number of steps in IN.npz; OUT.npz gets the loss and the gradient by each weight.
"""

import sys

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812


def forward(net: str, p: list, x):
    """What the network says of a batch; weights in PyTorch's layout, in the order of the layers."""
    if net == "mlp":
        for i in range(0, 4, 2):
            x = F.relu(F.linear(x, p[i], p[i + 1]))
        return F.linear(x, p[4], p[5])
    for i in range(0, 16, 4):
        x = F.conv2d(x, p[i], p[i + 1], stride=2 if net == "conv-stride" else 1, padding=1)
        x = F.relu(F.batch_norm(x, None, None, p[i + 2], p[i + 3], training=True))
        x = x if net == "conv-stride" else F.max_pool2d(x, 2)
    return F.linear(x.flatten(1), p[16], p[17])


def main(source: str, target: str) -> None:
    """Read, differentiate, write."""
    given = np.load(source)
    net, steps, rate = str(given["net"]), int(given["steps"]), float(given["rate"])
    criterion = F.mse_loss if net == "mlp" else F.cross_entropy
    count = sum(name.startswith("p") for name in given)
    weights = [torch.tensor(given[f"p{i}"], requires_grad=True) for i in range(count)]
    support_x, support_y, query_x, query_y = (torch.tensor(given[name]) for name in ("sx", "sy", "qx", "qy"))
    total = 0.0
    for i in range(len(support_x)):
        p = weights
        for _ in range(steps):
            inner = torch.autograd.grad(criterion(forward(net, p, support_x[i]), support_y[i]), p, create_graph=True)
            p = [each - rate * g for each, g in zip(p, inner, strict=True)]
        loss = criterion(forward(net, p, query_x[i]), query_y[i]) / len(support_x)
        loss.backward()
        total += loss.item()
    np.savez(target, loss=total, **{f"g{i}": weight.grad.numpy() for i, weight in enumerate(weights)})


if __name__ == "__main__":
    main(*sys.argv[1:])
