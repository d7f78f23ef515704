"""tests/goldens/algo_online.json: the online half of algo/, values and gradients, from TRL's own code and from PyTorch.

    VENV/bin/python scripts/goldens/algo_online.py

GRPO's and RLOO's losses are TRL's `_compute_loss`, run on an object that holds just what it reads; their advantages are
the lines of TRL between the rewards and the advantages, cut out of its source. The rest is written here in PyTorch.
All in f64, on inputs that are exact in f32.
"""
import inspect
import json
import os
import random
import textwrap
from collections import defaultdict
from types import SimpleNamespace

import torch
import trl
from trl.trainer import grpo_trainer, rloo_trainer
from trl.rewards import get_soft_overlong_punishment

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "..", "tests", "goldens", "algo_online.json")
torch.set_default_dtype(torch.float64)
rng = random.Random(11)
NAN = float("nan")


def exact(value):
    return float(torch.tensor(value, dtype=torch.float32))


def tensor(values):
    return torch.tensor([NAN if v is None else exact(v) for v in values])


def draw(n, mean, spread):
    return [round(rng.gauss(mean, spread), 3) for _ in range(n)]


def plain(x):
    if isinstance(x, torch.Tensor):
        x = x.tolist()
    if isinstance(x, dict):
        return {k: plain(v) for k, v in x.items()}
    if isinstance(x, list):
        return [plain(v) for v in x]
    if isinstance(x, float):
        return None if x != x else float(f"{x:.10g}")
    return x


ACCELERATOR = SimpleNamespace(num_processes=1, process_index=0, sync_gradients=False, gather=lambda x: x,
                              gather_for_metrics=lambda x: x, reduce=lambda x, reduction: x,
                              pad_across_processes=lambda x, dim, pad_index: x)


def pad(lengths, flat, fill=0.0):
    rows, at = [], 0
    for n in lengths:
        rows.append(torch.cat([flat[at:at + n], torch.full((max(lengths) - n,), fill)]))
        at += n
    return torch.stack(rows)


def ragged(lengths, padded):
    return torch.cat([row[:n] for row, n in zip(padded, lengths)])


DEFAULTS = dict(loss_type="dapo", importance="token", low=0.2, high=0.2, delta=None, beta=0.0, kl_ratio_weighted=True,
                sapo_temperature_pos=1.0, sapo_temperature_neg=1.05, top_entropy_quantile=1.0,
                off_policy_mask_threshold=None, entropy_coef=0.0)


def group_case(old=True, sampling=False, per_token=False, masked=True, drift=0.4, equal=False, **changes):
    c = DEFAULTS | changes
    lengths = [3, 5, 2, 4]
    n = sum(lengths)
    lp = draw(n, -2.0, 0.8)
    old_lp = [round(x + rng.gauss(0, drift), 3) for x in lp] if old else None
    ref_lp = [round(x + rng.gauss(0, 0.5), 3) for x in lp]
    sampling_lp = [round(x + rng.gauss(0.1, drift), 3) for x in lp] if sampling else None
    if sampling:
        sampling_lp[3] = None
    entropies = [abs(x) for x in draw(n, 1.5, 0.7)]
    advantages = [0.0] * len(lengths) if equal else draw(n if per_token else len(lengths), 0.0, 1.0)
    mask = [True] * n
    if masked:
        mask[4] = False
        mask[8] = mask[9] = False  # a whole sequence
    micro_batches, steps_per_generation, items, max_len = 3, 6, 61, 7

    x = tensor(lp).requires_grad_()
    h = tensor(entropies).requires_grad_()
    stub = SimpleNamespace(
        model=SimpleNamespace(training=True), accelerator=ACCELERATOR, aux_loss_enabled=False,
        top_entropy_quantile=c["top_entropy_quantile"], off_policy_mask_threshold=c["off_policy_mask_threshold"],
        importance_sampling_level=c["importance"], beta=c["beta"], loss_type=c["loss_type"], epsilon_low=c["low"],
        epsilon_high=c["high"], use_vllm=False, current_gradient_accumulation_steps=micro_batches,
        max_completion_length=max_len, _entropy_bonus_enabled=c["entropy_coef"] != 0, entropy_coef=c["entropy_coef"],
        use_adaptive_entropy=False, _metrics=defaultdict(lambda: defaultdict(list)),
        args=SimpleNamespace(delta=c["delta"], use_bias_correction_kl=c["kl_ratio_weighted"],
                             sapo_temperature_pos=c["sapo_temperature_pos"],
                             sapo_temperature_neg=c["sapo_temperature_neg"], vespo_k_pos=2.0, vespo_lambda_pos=3.0,
                             vespo_k_neg=3.0, vespo_lambda_neg=2.0, steps_per_generation=steps_per_generation),
        get_off_policy_mask=grpo_trainer.GRPOTrainer.get_off_policy_mask,
        get_gamma_weights=grpo_trainer.GRPOTrainer.get_gamma_weights)
    stub.get_high_entropy_mask = lambda *a, **k: grpo_trainer.GRPOTrainer.get_high_entropy_mask(stub, *a, **k)
    stub._get_per_token_logps_and_entropies = lambda *a, **k: (pad(lengths, x), pad(lengths, h), None)
    completion_mask = pad(lengths, torch.tensor([float(m) for m in mask]))
    a = tensor(advantages)
    inputs = dict(prompt_ids=torch.zeros(4, 1), prompt_mask=torch.ones(4, 1), completion_ids=completion_mask,
                  completion_mask=completion_mask, advantages=pad(lengths, a) if per_token else a,
                  num_items_in_batch=torch.tensor(float(items)), ref_per_token_logps=pad(lengths, tensor(ref_lp)))
    if old:
        inputs["old_per_token_logps"] = pad(lengths, tensor(old_lp))
    if sampling:
        inputs["sampling_per_token_logps"] = pad(lengths, tensor(sampling_lp))
    loss = grpo_trainer.GRPOTrainer._compute_loss(stub, None, inputs)
    grad_x, grad_h = torch.autograd.grad(loss, [x, h], allow_unused=True)
    return dict(config=c, lengths=lengths, log_probs=lp, old_log_probs=old_lp, ref_log_probs=ref_lp,
                sampling_log_probs=sampling_lp, entropies=entropies, advantages=advantages, mask=mask,
                sequences=4 * micro_batches, tokens=items * micro_batches / steps_per_generation,
                micro_batches=micro_batches, max_completion_length=max_len, loss=loss.item(), grad=grad_x,
                grad_entropies=torch.zeros(n) if grad_h is None else grad_h,
                metrics={k: v[0] for k, v in stub._metrics["train"].items() if k != "entropy_coef"})


def group_cases():
    for loss_type in ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"]:
        for importance in ["token", "sequence"]:
            yield group_case(loss_type=loss_type, importance=importance, beta=0.04, high=0.28)
        yield group_case(loss_type=loss_type, old=False, masked=False, beta=0.1, kl_ratio_weighted=False)
        yield group_case(loss_type=loss_type, per_token=True, entropy_coef=0.02, top_entropy_quantile=0.4)
    yield group_case(delta=1.5, drift=1.0)
    yield group_case(delta=1.1, drift=1.0, loss_type="grpo")
    yield group_case(off_policy_mask_threshold=0.05, sampling=True)
    yield group_case(off_policy_mask_threshold=0.0, beta=0.04, loss_type="grpo", importance="sequence", drift=1.0)
    yield group_case(top_entropy_quantile=0.2, beta=0.04, masked=False)
    yield group_case(top_entropy_quantile=0.0, entropy_coef=0.1)
    yield group_case(loss_type="cispo", high=5.0, drift=2.0)
    yield group_case(equal=True, beta=0.0)


def rloo_cases():
    for low, high, drift in [(0.2, 0.2, 0.1), (0.2, 0.4, 0.4)]:
        lengths = [3, 5, 2, 4]
        n = sum(lengths)
        lp = draw(n, -2.0, 0.8)
        old_lp = [round(x + rng.gauss(0, drift), 3) for x in lp]
        advantages = draw(4, 0, 1)
        mask = [True] * n
        mask[8] = mask[9] = False
        x = tensor(lp).requires_grad_()
        completion_mask = pad(lengths, torch.tensor([float(m) for m in mask]))
        stub = SimpleNamespace(model=SimpleNamespace(training=True), accelerator=ACCELERATOR, aux_loss_enabled=False,
                               epsilon_low=low, epsilon_high=high, _metrics=defaultdict(lambda: defaultdict(list)))
        stub._get_per_token_logps_and_entropies = lambda *a, **k: (pad(lengths, x), torch.zeros_like(completion_mask), None)
        inputs = dict(prompt_ids=torch.zeros(4, 1), prompt_mask=torch.ones(4, 1), completion_ids=completion_mask,
                      completion_mask=completion_mask, advantages=tensor(advantages),
                      old_logps=(pad(lengths, tensor(old_lp)) * completion_mask).sum(1))
        loss = rloo_trainer.RLOOTrainer._compute_loss(stub, None, inputs)
        grad, = torch.autograd.grad(loss, x)
        metrics = {k: v[0] for k, v in stub._metrics["train"].items() if k != "entropy"}
        yield dict(low=low, high=high, lengths=lengths, log_probs=lp, old_log_probs=old_lp, advantages=advantages,
                   mask=mask, loss=loss.item(), grad=grad, metrics=metrics)


def lines(function, first, last):
    """The part of a function's source from the line that holds `first` to the line that holds `last`, inclusive"""
    source = inspect.getsource(function).splitlines()
    start = next(i for i, line in enumerate(source) if first in line)
    end = next(i for i, line in enumerate(source) if i >= start and last in line)
    return textwrap.dedent("\n".join(source[start:end + 1]))


def advantage_lines(trainer):
    return lines(trainer._generate_and_score_completions, "unscorable_mask = ", "is_std_zero = torch.isclose"
                 if trainer is rloo_trainer.RLOOTrainer else "advantages = torch.nan_to_num(advantages")


def run_advantages(trainer, module, rewards, group_size, weights, **settings):
    scope = dict(vars(module)) | dict(
        rewards_per_func=tensor(rewards).view(-1, len(weights)), num_generations=group_size, device="cpu",
        self=SimpleNamespace(reward_weights=torch.tensor(weights), reward_funcs=weights, **settings))
    exec(advantage_lines(trainer), scope)
    return dict(rewards=rewards, group_size=group_size, weights=weights, settings=settings, advantages=scope["advantages"],
                zero_spread=scope["is_std_zero"].double().mean().item())


REWARDS = [[1.0, 0.0, 0.5, 0.25, 2.0, 2.0, 2.0, 2.0, -1.0, None, 3.0, None],
           [0.1, 0.1, 0.7, None, None, None, -3.0, 1.0, None, 0.3, None, None]]
TWO_FUNCTIONS = [1.0, 10.0, 0.0, 20.0, None, 30.0, 1.0, None, None, None, 0.5, -10.0, 0.0, 5.0, 0.0, 5.0]


def advantage_cases():
    grpo, rloo = grpo_trainer.GRPOTrainer, rloo_trainer.RLOOTrainer
    group, loo = [], []
    for scale in ["group", "batch", "none"]:
        settings = dict(multi_objective_aggregation="sum_then_normalize", scale_rewards=scale)
        for rewards, size in [(REWARDS[0], 4), (REWARDS[0], 2), (REWARDS[1], 3), ([0.3, 0.3, -2.0], 1)]:
            group.append(run_advantages(grpo, grpo_trainer, rewards, size, [1.0], **settings))
        group.append(run_advantages(grpo, grpo_trainer, TWO_FUNCTIONS, 4, [1.0, 0.5], **settings))
    settings = dict(multi_objective_aggregation="normalize_then_sum", scale_rewards="group")
    group.append(run_advantages(grpo, grpo_trainer, TWO_FUNCTIONS, 4, [1.0, 0.5], **settings))
    group.append(run_advantages(grpo, grpo_trainer, REWARDS[0], 4, [2.0], **settings))
    for normalize in [False, True]:
        settings = dict(normalize_advantages=normalize, beta=0.0, reward_clip_range=None)
        for rewards, size in [(REWARDS[0], 4), (REWARDS[0], 2), (REWARDS[1], 3)]:
            loo.append(run_advantages(rloo, rloo_trainer, rewards, size, [1.0], **settings))
    return group, loo


def ppo_case(mask, low=0.2, dual=None, drift=0.4):
    n = 12
    lp, advantages = draw(n, -1.0, 0.5), draw(n, 0, 1)
    old = [round(v + rng.gauss(0, drift), 3) for v in lp]
    x = tensor(lp).requires_grad_()
    m = torch.tensor([float(b) for b in mask])
    log_ratio = x - tensor(old)
    ratio, a = log_ratio.exp(), tensor(advantages)
    unclipped, clipped = -a * ratio, -a * ratio.clamp(1 - low, 1 + low)
    terms = torch.maximum(unclipped, clipped)
    if dual is not None:
        terms = torch.where(a < 0, torch.minimum(terms, -dual * a), terms)
    mean = lambda v: (v * m).sum() / m.sum()
    loss = mean(terms)
    grad, = torch.autograd.grad(loss, x)
    return dict(low=low, dual=dual, log_probs=lp, old_log_probs=old, advantages=advantages, mask=mask, loss=loss, grad=grad,
                approx_kl=mean(ratio - 1 - log_ratio), approx_kl_k2=mean(0.5 * log_ratio ** 2), ratio=mean(ratio),
                clip_fraction=mean((clipped > unclipped).double()), outside_fraction=mean(((ratio - 1).abs() > low).double()))


def value_case(kind, bound, factor):
    n = 10
    values, returns = draw(n, 0, 1), draw(n, 0, 1)
    old = [round(v + rng.gauss(0, 0.4), 3) for v in values]
    x, v0, target = tensor(values).requires_grad_(), tensor(old), tensor(returns)
    mask = [i not in (2, 7) for i in range(n)]
    m = torch.tensor([float(b) for b in mask])
    prediction = v0 + (x - v0).clamp(-bound, bound)
    won = torch.zeros(n)
    if kind == "squared":
        terms = (x - target) ** 2
    elif kind == "clipped_max":
        terms = torch.maximum((x - target) ** 2, (prediction - target) ** 2)
        won = ((prediction - target) ** 2 > (x - target) ** 2).double()
    elif kind == "clipped_prediction":
        terms = (prediction - target) ** 2
        won = ((x - v0).abs() > bound).double()
    else:
        terms = torch.nn.functional.huber_loss(x, target, reduction="none", delta=bound)
    loss = factor * (terms * m).sum() / m.sum()
    grad, = torch.autograd.grad(loss, x)
    return dict(kind=kind, bound=bound, factor=factor, values=values, old_values=old, returns=returns, mask=mask, loss=loss,
                grad=grad, clip_fraction=(won * m).sum() / m.sum(),
                explained_variance=1 - (target - x).var() / target.var())


def gae_case(gamma, lam):
    """Three environments, forward sums of the definition instead of a backward recursion"""
    n = 14
    rewards, values, next_values = draw(n, 0, 1), draw(n, 0, 1), draw(n, 0, 1)
    terminated = [i in (4, 12) for i in range(n)]
    truncated = [i in (7, 13) for i in range(n)]
    r, v, w = tensor(rewards), tensor(values), tensor(next_values)
    discount = [0.0 if t else exact(gamma) for t in terminated]
    trace = [0.0 if t or u else exact(gamma * lam) for t, u in zip(terminated, truncated)]
    advantages, lambda_returns, returns, n_step = [], [], [], []
    for t in range(n):
        a, weight, k = 0.0, 1.0, t
        while True:
            a += weight * (r[k] + discount[k] * w[k] - v[k])
            weight *= trace[k]
            k += 1
            if weight == 0.0 or k == n:
                break
        advantages.append(float(a))
        g, discounted, k = 0.0, 1.0, t
        for k in range(t, n):
            g += discounted * r[k]
            discounted *= exact(gamma)
            if terminated[k] or truncated[k]:
                break
        returns.append(float(g))
        g, discounted = 0.0, 1.0
        for k in range(t, min(n, t + 3)):
            g += discounted * r[k]
            discounted *= discount[k]
            if terminated[k] or truncated[k]:
                break
        n_step.append(float(g + discounted * w[k]))
    return dict(gamma=gamma, lam=lam, rewards=rewards, values=values, next_values=next_values, terminated=terminated,
                truncated=truncated, advantages=advantages, returns=returns, three_step=n_step)


def whiten_case(mask, shift_mean):
    x = draw(9, 3, 2)
    m = torch.tensor([float(b) for b in mask])
    t = tensor(x)
    kept = t[m.bool()]
    out = (t - kept.mean()) * torch.rsqrt(kept.var(unbiased=True) + 1e-8) + (0 if shift_mean else kept.mean())
    return dict(x=x, mask=mask, shift_mean=shift_mean, whitened=out * m)


def divergence_case(kind, weighted, importance):
    """KL terms beyond TRL's k3: loss = Σ_t w_t kl_t with w = 1 / (sequences · length), no policy term"""
    lengths, n = [3, 2, 4], 9
    lp, ref = draw(n, -2, 0.6), draw(n, -2, 0.6)
    old = [round(v + rng.gauss(0, 0.3), 3) for v in lp]
    x = tensor(lp).requires_grad_()
    loss, kl_sum = 0.0, 0.0
    for d, log_ratio in zip((x - tensor(ref)).split(lengths), (x - tensor(old)).split(lengths)):
        kl = {"k1": d, "k2": d ** 2 / 2, "k3": torch.exp(-d) - 1 + d, "sequence_k2": (d.sum() ** 2 / 2 / len(d)).expand(len(d))}[kind]
        if weighted:
            kl = kl * (log_ratio.exp() if importance == "token" else log_ratio.mean().exp())
        loss = loss + 0.3 * kl.mean() / len(lengths)
        kl_sum = kl_sum + kl.sum()
    grad, = torch.autograd.grad(loss, x)
    return dict(kind=kind, weighted=weighted, importance=importance, lengths=lengths, log_probs=lp, old_log_probs=old,
                ref_log_probs=ref, beta=0.3, loss=loss, grad=grad, kl=kl_sum / n)


def overlong_case(max_length, buffer):
    lengths = list(range(max_length + 3))
    penalty = get_soft_overlong_punishment(max_completion_len=max_length, soft_punish_cache=buffer)
    return dict(max_length=max_length, buffer=buffer, penalties=penalty(completion_ids=[[0] * n for n in lengths]))


ALL = [True] * 12
group, loo = advantage_cases()
goldens = dict(
    versions=dict(torch=torch.__version__, trl=trl.__version__),
    group_loss=list(group_cases()), rloo_loss=list(rloo_cases()), group_relative=group, leave_one_out=loo,
    ppo=[ppo_case(ALL), ppo_case([i not in (3, 11) for i in range(12)], low=0.1), ppo_case(ALL, dual=1.5, drift=1.0)],
    value=[value_case("squared", 1.0, 0.5), value_case("clipped_max", 0.2, 0.05), value_case("clipped_prediction", 0.2, 0.5),
           value_case("huber", 0.7, 1.0)],
    gae=[gae_case(0.99, 0.95), gae_case(0.9, 0.0), gae_case(1.0, 1.0)],
    whiten=[whiten_case([True] * 9, True), whiten_case([i not in (0, 4) for i in range(9)], True), whiten_case([True] * 9, False)],
    divergence=[divergence_case(k, w, i) for k in ["k1", "k2", "k3", "sequence_k2"]
                for w, i in [(False, "token"), (True, "token"), (True, "sequence")]],
    overlong=[overlong_case(10, 4), overlong_case(6, 6)])
with open(OUT, "w") as f:
    json.dump(plain(goldens), f, separators=(",", ":"))
