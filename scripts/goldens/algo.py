"""tests/goldens/algo.json: losses of algo/ in PyTorch, values and gradients.

    VENV/bin/python scripts/goldens/algo.py
"""
import json
import math
import os

import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "..", "tests", "goldens", "algo.json")
torch.set_default_dtype(torch.float64)
torch.manual_seed(3)
ROWS = 5


def cross_entropy(x, p):
    """Of the answer `yes` with logit x, where it is wrong with probability p"""
    target = torch.full_like(x, 1 - p)
    return F.binary_cross_entropy_with_logits(x, target, reduction="none")


def kl_to_label(x, eps):
    p = torch.stack([torch.sigmoid(x), torch.sigmoid(-x)])
    q = torch.tensor([1 - eps, eps]).unsqueeze(1)
    return (p * (p.log() - q.log())).sum(0)


def odds(x):
    return x.exp() / (1 - x.exp())


# name: (parameters, function of the inputs and the parameters)
PAIR = {
    "sigmoid": (dict(beta=0.4), lambda c, r, beta: cross_entropy(beta * (c - r), 0)),
    "cdpo": (dict(beta=0.4, eps=0.1), lambda c, r, beta, eps: cross_entropy(beta * (c - r), eps)),
    "robust": (dict(beta=0.4, eps=0.1), lambda c, r, beta, eps: ((1 - eps) * cross_entropy(beta * (c - r), 0) - eps * cross_entropy(beta * (r - c), 0)) / (1 - 2 * eps)),
    "hinge": (dict(beta=0.4), lambda c, r, beta: (1 - beta * (c - r)).clamp(min=0)),
    "ipo": (dict(beta=0.4), lambda c, r, beta: F.mse_loss(c - r, torch.full_like(c, 1 / (2 * beta)), reduction="none")),
    "exo_pair": (dict(beta=0.4, eps=0.1), lambda c, r, beta, eps: kl_to_label(beta * (c - r), eps)),
    "nca_pair": (dict(beta=0.4), lambda c, r, beta: cross_entropy(beta * c, 0) + 0.5 * cross_entropy(-beta * c, 0) + 0.5 * cross_entropy(-beta * r, 0)),
    "bco_pair": (dict(beta=0.4), lambda c, r, beta: cross_entropy(beta * c, 0) + cross_entropy(-beta * r, 0)),
    "sppo_hard": (dict(beta=0.4), lambda c, r, beta: (c - 1 / (2 * beta)) ** 2 + (r + 1 / (2 * beta)) ** 2),
    "aot_unpaired": (dict(beta=0.4, eps=0.1), lambda c, r, beta, eps: cross_entropy(beta * (c.sort()[0] - r.sort()[0]), eps)),
    "apo_zero": (dict(beta=0.4), lambda c, r, beta: 1 - torch.sigmoid(beta * c) + torch.sigmoid(beta * r)),
    "apo_down": (dict(beta=0.4), lambda c, r, beta: torch.sigmoid(beta * c) + 1 - torch.sigmoid(beta * (c - r))),
    "discopop": (dict(beta=0.1, tau=0.2), lambda c, r, beta, tau: torch.lerp(cross_entropy(beta * (c - r), 0), torch.exp(-beta * (c - r)), torch.sigmoid(beta * (c - r) / tau))),
}
SINGLE = {
    "forward_kl": (dict(), lambda x: 1 - torch.exp(-x)),
    "js_divergence": (dict(), lambda x: torch.log(2 * x.exp() / (x.exp() + 1))),
    "alpha_divergence": (dict(alpha=0.5), lambda x, alpha: (x.exp() ** (alpha - 1) - 1) / (alpha - 1)),
    "kto_desirable": (dict(kl=0.7, beta=0.4), lambda x, kl, beta: 1 - torch.sigmoid(beta * (x - kl))),
    "kto_undesirable": (dict(kl=0.7, beta=0.4), lambda x, kl, beta: 1 - torch.sigmoid(beta * (kl - x))),
}
# On mean log-probabilities, which are below 0
MEANS = {
    "orpo": (dict(beta=0.4), lambda c, r, beta: beta * cross_entropy(torch.log(odds(c) / odds(r)), 0)),
    "simpo": (dict(beta=2.0, gamma=0.5, eps=0.1), lambda c, r, beta, gamma, eps: cross_entropy(beta * (c - r) - gamma, eps)),
    "alpha_reward": (dict(alpha=0.3), lambda c, r, alpha: (1 - c.exp() ** -alpha) / alpha - (1 - r.exp() ** -alpha) / alpha),
}
FOUR = {
    "aot": (dict(beta=0.4, eps=0.1), lambda c, r, rc, rr, beta, eps: cross_entropy(beta * ((c - r).sort()[0] - (rc - rr).sort()[0]), eps)),
}


def case(name, spec, inputs):
    params, function = spec
    inputs = [i.requires_grad_() for i in inputs]
    loss = function(*inputs, **params)
    weights = torch.rand(ROWS)
    grads = torch.autograd.grad((loss * weights).sum(), inputs)
    return dict(name=name, params=params, inputs=[i.tolist() for i in inputs], weights=weights.tolist(), loss=loss.tolist(), grads=[g.tolist() for g in grads])


def cases():
    for spread in (2.0, 20.0):
        for name, spec in PAIR.items():
            yield case(name, spec, [torch.randn(ROWS) * spread for _ in range(2)])
        yield case("aot", FOUR["aot"], [torch.randn(ROWS) * spread - 50 for _ in range(4)])
    for name, spec in SINGLE.items():
        yield case(name, spec, [torch.randn(ROWS) * 3])
    for name, spec in MEANS.items():
        yield case(name, spec, [-torch.rand(ROWS) * 3 - 0.01 for _ in range(2)])


with open(OUT, "w") as f:
    rows = ",\n".join(json.dumps(c) for c in cases())
    f.write(f'{{"torch": "{torch.__version__}", "cases": [\n{rows}\n]}}\n')
