"""tests/goldens/algo_classical.json: distributions and losses of classical agents in torch.distributions and autograd.

    VENV/bin/python scripts/goldens/algo_classical.py
"""
import json
import os

import torch
import torch.nn.functional as F
from torch.distributions import Categorical, Independent, Normal, TransformedDistribution, kl_divergence
from torch.distributions.transforms import TanhTransform

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "..", "tests", "goldens", "algo_classical.json")
torch.set_default_dtype(torch.float64)
torch.manual_seed(5)


def draw(*shape, spread=1.0):
    """Numbers that are exact in f32"""
    return (torch.randn(*shape) * spread * 256).round() / 256


def plain(x):
    if isinstance(x, torch.Tensor):
        x = x.detach().flatten().tolist()
    if isinstance(x, dict):
        return {k: plain(v) for k, v in x.items()}
    if isinstance(x, list):
        return [plain(v) for v in x]
    return float(f"{x:.10g}") if isinstance(x, float) else x


def categorical(spread):
    z, by_log_prob, by_entropy = draw(4, 3, spread=spread).requires_grad_(), draw(4), draw(4)
    actions = torch.tensor([0, 2, 1, 1])
    d = Categorical(logits=z)
    log_probs, entropies = d.log_prob(actions), d.entropy()
    grad, = torch.autograd.grad((by_log_prob * log_probs + by_entropy * entropies).sum(), z)
    return dict(logits=z, actions=actions, log_probs=log_probs, entropies=entropies, by_log_prob=by_log_prob,
                by_entropy=by_entropy, grad=grad)


def gaussian():
    mean, log_std, actions = draw(3, 2).requires_grad_(), draw(3, 2, spread=0.5).requires_grad_(), draw(3, 2)
    by_log_prob, by_entropy = draw(3), draw(3)
    d = Independent(Normal(mean, log_std.exp()), 1)
    log_probs, entropies = d.log_prob(actions), d.entropy()
    grads = torch.autograd.grad((by_log_prob * log_probs + by_entropy * entropies).sum(), [mean, log_std])
    return dict(mean=mean, log_std=log_std, actions=actions, log_probs=log_probs, entropies=entropies,
                by_log_prob=by_log_prob, by_entropy=by_entropy, grad_mean=grads[0], grad_log_std=grads[1])


def tanh_gaussian(spread):
    mean, log_std, noise = draw(3, 2, spread=spread).requires_grad_(), draw(3, 2, spread=0.5).requires_grad_(), draw(3, 2)
    by_action, by_log_prob = draw(3, 2), draw(3)
    u = mean + log_std.exp() * noise
    d = Independent(TransformedDistribution(Normal(mean, log_std.exp()), TanhTransform(cache_size=1)), 1)
    actions = d.base_dist.transforms[0](u)
    log_probs = d.log_prob(actions)
    grads = torch.autograd.grad((by_action * actions).sum() + (by_log_prob * log_probs).sum(), [mean, log_std])
    return dict(mean=mean, log_std=log_std, noise=noise, actions=actions, log_probs=log_probs, by_action=by_action,
                by_log_prob=by_log_prob, grad_mean=grads[0], grad_log_std=grads[1])


def q_loss(kind):
    q, target, weights = draw(4, 3).requires_grad_(), draw(4), draw(4).abs()
    actions = torch.tensor([0, 2, 1, 1])
    taken = q.gather(1, actions[:, None])[:, 0]
    each = (taken - target) ** 2 if kind == "squared" else F.huber_loss(taken, target, reduction="none", delta=0.5)
    loss = (weights * each).mean()
    conservative = 0.7 * (torch.logsumexp(q, 1) - taken).mean()
    grad, = torch.autograd.grad(loss, q, retain_graph=True)
    both, = torch.autograd.grad(loss + conservative, q)
    return dict(kind=kind, q=q, targets=target, weights=weights, actions=actions, loss=loss.item(), grad=grad,
                conservative=conservative.item(), grad_both=both, errors=target - taken)


def expectile():
    values, targets = draw(6).requires_grad_(), draw(6)
    u = targets - values
    loss = (torch.abs(0.8 - (u < 0).double()) * u ** 2).mean()
    return dict(values=values, targets=targets, tau=0.8, loss=loss.item(), grad=torch.autograd.grad(loss, values)[0])


def soft():
    q1, q2, log_probs = [draw(5).requires_grad_() for _ in range(3)]
    log_alpha = torch.tensor(-0.75, requires_grad=True)
    alpha = log_alpha.exp().item()
    actor = (alpha * log_probs - torch.min(q1, q2)).mean()
    grads = torch.autograd.grad(actor, [q1, q2, log_probs])
    temperature = -(log_alpha * (log_probs.detach() - 2.0)).mean()
    return dict(q1=q1, q2=q2, log_probs=log_probs, log_alpha=-0.75, actor=actor.item(), grad_q1=grads[0], grad_q2=grads[1],
                grad_log_probs=grads[2], temperature=temperature.item(), target_entropy=-2.0,
                slope=torch.autograd.grad(temperature, log_alpha)[0].item(), values=torch.min(q1, q2) - alpha * log_probs)


def fisher():
    """Fisher matrices as the Hessian of the KL at its minimum"""
    z, log_std = draw(4), draw(2, spread=0.5)
    categorical = torch.autograd.functional.hessian(lambda x: kl_divergence(Categorical(logits=z), Categorical(logits=x)), z)
    here = Independent(Normal(torch.zeros(2), log_std.exp()), 1)
    there = lambda x: Independent(Normal(x[:2], x[2:].exp()), 1)
    gaussian = torch.autograd.functional.hessian(lambda x: kl_divergence(here, there(x)), torch.cat([torch.zeros(2), log_std]))
    v = draw(4)
    return dict(probabilities=z.softmax(0), log_std=log_std, v=v, categorical=categorical @ v, gaussian=gaussian @ v)


with open(OUT, "w") as f:
    json.dump(plain(dict(torch=torch.__version__, categorical=[categorical(1.0), categorical(30.0)], gaussian=gaussian(),
                         tanh_gaussian=[tanh_gaussian(1.0), tanh_gaussian(3.0)], q=[q_loss("squared"), q_loss("huber")],
                         expectile=expectile(), soft=soft(), fisher=fisher())), f, separators=(",", ":"))
