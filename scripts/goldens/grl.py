"""tests/goldens/grl/*.json: particle fields in scikit-learn, SciPy and NumPy, losses in PyTorch.

    VENV/bin/python scripts/goldens/grl.py fields     # numpy, scipy, scikit-learn
    VENV/bin/python scripts/goldens/grl.py losses     # torch
    VENV/bin/python scripts/goldens/grl.py token_field  # torch

Everything is computed from the single soft returns, where the program keeps counts, means and spreads of prompts.
"""
import json
import os
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "..", "tests", "goldens", "grl")


def write(name, content):
    os.makedirs(OUT, exist_ok=True)
    with open(os.path.join(OUT, name), "w") as f:
        json.dump(content, f, default=lambda x: x.tolist())
        f.write("\n")


def f32(x):
    """Features are stored in f32; both sides compute on the same rounded numbers."""
    return np.asarray(x, dtype=np.float32).astype(np.float64)


def fields():
    import scipy
    import sklearn
    from scipy.optimize import minimize
    from sklearn.decomposition import PCA
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct
    from sklearn.neighbors import KNeighborsRegressor

    rng = np.random.default_rng(5)
    versions = dict(numpy=np.__version__, scipy=scipy.__version__, sklearn=sklearn.__version__)
    prompts, dim = 12, 3
    phi = f32(rng.normal(size=(prompts, dim)))
    phi[7] = phi[2]  # two prompts at one place
    which = np.concatenate([np.arange(10), rng.integers(0, 10, 14)])  # prompts 10 and 11 have no particle
    b = np.sin(phi[which, 0] * 2) + 0.4 * rng.normal(size=10)[which] + 0.3 * rng.normal(size=len(which)) + 3
    mu = b.mean()

    def with_key(x, keys):
        return np.concatenate([x, 1000.0 * np.asarray(keys, dtype=float)[:, None]], 1)

    far = 1e12

    def composite(smooth, length, delta):
        # An RBF that sees the features alone, and one that sees the key alone and is a delta there
        parts = []
        if smooth:
            parts.append(ConstantKernel(smooth) * RBF([length] * dim + [far]))
        if delta:
            parts.append(ConstantKernel(delta) * RBF([far] * dim + [1.0]))
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    a_all, x_all = with_key(phi[which], which), with_key(phi, np.arange(prompts))

    def process(kernel, noise, rows=slice(None)):
        return GaussianProcessRegressor(kernel, alpha=noise, optimizer=None).fit(a_all[rows], b[rows] - mu)

    processes = []
    for smooth, length, delta, noise in [(1.3, 0.8, 0.4, 0.2), (0.9, 1.5, 0.0, 0.1), (0.0, 1.0, 0.7, 0.3), (0.6, 0.5, 0.2, 1e-3)]:
        gp = process(composite(smooth, length, delta), noise)
        mean, std = gp.predict(x_all, return_std=True)
        out = []
        for i in range(len(b)):
            rows = np.delete(np.arange(len(b)), i)
            out.append(mu + process(composite(smooth, length, delta), noise, rows).predict(a_all[i:i + 1])[0])
        processes.append(dict(smooth=smooth, length=length, delta=delta, noise=noise, mean=mean + mu, variance=std**2, leave_one_out=out,
                              leave_one_out_error=np.mean((b - np.array(out))**2),
                              log_likelihood=gp.log_marginal_likelihood_value_))

    # The grid of marginal likelihoods, on fresh samples of the same particles
    distances = np.linalg.norm(phi[:10, None] - phi[None, :10], axis=-1)[np.triu_indices(10, 1)]
    median = np.sort(distances)[len(distances) // 2]
    best = None
    for factor in (0.3, 0.6, 1.2):
        for smooth, delta in ((0.6, 0.0), (0.0, 0.6), (0.3, 0.3), (0.55, 0.05), (0.05, 0.05)):
            v = b.var()
            noise = v * max(1 - smooth - delta, 0.05)
            value = process(composite(v * smooth, factor * median, v * delta), noise).log_marginal_likelihood_value_
            if best is None or value > best["log_likelihood"]:
                best = dict(smooth=v * smooth, length=factor * median, delta=v * delta, noise=noise, log_likelihood=value)

    # Nadaraya-Watson as a nearest-neighbour regression over all samples
    length = 0.8
    weights = lambda d: np.exp(-d**2 / (2 * length**2))
    def nw(x, rows=slice(None)):
        rows = np.arange(len(b))[rows]
        return KNeighborsRegressor(len(rows), weights=weights).fit(phi[which][rows], b[rows]).predict(x)
    nadaraya = dict(length=length, mean=nw(phi),
                    leave_one_out=[nw(phi[which[i]][None], np.delete(np.arange(len(b)), i))[0] for i in range(len(b))])
    kappa = 0.7
    soft = []
    for x in phi:
        w = weights(np.linalg.norm(phi[which] - x, axis=1))
        soft.append(np.log((w * np.exp(kappa * b)).sum() / w.sum()) / kappa)
    w = np.array([weights(np.linalg.norm(phi[which] - x, axis=1)) for x in phi])
    nadaraya.update(kappa=kappa, soft=soft, sum=w @ b, mass=w.sum(1), effective_count=w.sum(1)**2 / (w**2).sum(1))

    # How much the mean variance over all prompts grows without each particle
    smooth, length, delta, noise = 1.3, 0.8, 0.4, 0.2
    kernel = composite(smooth, length, delta)
    growth = []
    before = process(kernel, noise).predict(x_all, return_std=True)[1]**2
    for p in range(10):
        after = process(kernel, noise, which != p).predict(x_all, return_std=True)[1]**2
        growth.append((after - before).mean())

    # Preferences: the mode by a general optimiser, the posterior by plain inverses
    pairs = [(0, 1), (2, 3), (0, 4), (5, 1), (2, 1), (6, 3), (0, 1), (8, 9), (4, 3)]
    K = composite(2.0, 0.9, 0.3)(x_all[:10])
    A = np.zeros((len(pairs), 10))
    for i, (win, lose) in enumerate(pairs):
        A[i, win], A[i, lose] = 1, -1
    Ki = np.linalg.inv(K)
    fun = lambda f: np.logaddexp(0, -A @ f).sum() + 0.5 * f @ Ki @ f
    jac = lambda f: -A.T @ (1 / (1 + np.exp(A @ f))) + Ki @ f
    hess = lambda f: A.T @ np.diag(1 / (2 + 2 * np.cosh(A @ f))) @ A + Ki
    f = minimize(fun, np.zeros(10), jac=jac, hess=hess, method="trust-exact", options=dict(gtol=1e-13)).x
    for _ in range(5):
        f = f - np.linalg.solve(hess(f), jac(f))
    cov = np.linalg.inv(hess(f))
    cross = composite(2.0, 0.9, 0.3)(x_all[10:], x_all[:10]) @ Ki
    new = composite(2.0, 0.9, 0.3)(x_all[10:]) - cross @ K @ cross.T + cross @ cov @ cross.T
    preference = dict(smooth=2.0, length=0.9, delta=0.3, pairs=pairs, mode=f, variance_0_1=cov[0, 0] + cov[1, 1] - 2 * cov[0, 1],
                      mean_new=cross @ f, variance_new=new[0, 0] + new[1, 1] - 2 * new[0, 1])

    # Concepts: the spectrum of a field
    gram = RBF(0.8)(phi)
    alpha = rng.normal(size=prompts)
    lam, u = np.linalg.eigh(gram)
    spectrum = dict(weights=alpha, eigenvalues=lam[::-1], activations=(lam * (u.T @ alpha)**2)[::-1], squared_norm=alpha @ gram @ alpha)

    # The original update rule, on the worked example
    k = lambda x, y: np.exp(-((x - y)**2).sum() / 2)
    z, old = f32([9, .8]), [(f32([8, .5]), 5.0), (f32([3, -.3]), -2.0)]
    legacy = [.99 * (w + (.5 * k(z, x) * 10 if k(z, x) > 1e-2 else 0)) for x, w in old] + [.99 * 10]

    x, y = phi[3], phi[4]
    kernels = dict(rbf=(1.7 * RBF(0.6)(x[None], y[None]))[0, 0], ard=RBF([.5, 1., 2.])(x[None], y[None])[0, 0],
                   linear=DotProduct(0)(x[None], y[None])[0, 0])
    write("fields.json", dict(versions=versions, phi=phi, which=which, b=b, mu=mu, processes=processes, fitted=best, nadaraya=nadaraya,
                              growth=growth, preference=preference, spectrum=spectrum, legacy=legacy, kernels=kernels))

    # Features: whitened principal components, and set on the sphere
    states = f32(rng.normal(size=(60, 9)) @ rng.normal(size=(9, 9)) + 5)
    pca = PCA(4, whiten=True, svd_solver="full").fit(states[:50])
    white = pca.transform(states)
    write("features.json", dict(versions=versions, states=states, fitted=50, white=white,
                                unit=white / np.linalg.norm(white, axis=1, keepdims=True)))


def losses():
    import torch

    torch.manual_seed(4)
    torch.set_default_dtype(torch.float64)
    lengths = [3, 1, 5, 2]
    n = sum(lengths)
    policy = (-3 * torch.rand(n) - 0.1).requires_grad_()
    reference, behaviour = -3 * torch.rand(n) - 0.1, policy.detach() + 0.4 * torch.randn(n) + 0.1
    rewards, advantages = torch.randn(4) * 2, torch.randn(4)
    values = torch.randn(4).requires_grad_()
    tau = 0.3
    rows = torch.repeat_interleave(torch.arange(4), torch.tensor(lengths))
    per = lambda x: torch.zeros(4).index_add(0, rows, x)
    L = lambda: per(policy - reference)
    e = lambda: rewards - tau * L() - values
    ratio = lambda: (policy - behaviour).exp()
    pairs = [(0, 1), (2, 3), (0, 3)]
    apart = lambda: torch.stack([L()[w] - L()[l] for w, l in pairs])
    surrogate = lambda: torch.min(ratio() * advantages[rows], ratio().clamp(0.8, 1.2) * advantages[rows])
    taper = torch.where(advantages >= 0, torch.ones(4), per(policy - behaviour).exp().clamp(max=1)).detach()
    spans = [(0, 2), (1, 3), (4, 9), (9, 11)]
    span_rewards, starts, ends = torch.randn(4), torch.randn(4), torch.tensor([0.3, 0.0, -0.2, 0.0])
    span_e = lambda: torch.stack([r - tau * (policy - reference)[i:j].sum() - a + z for (i, j), r, a, z in zip(spans, span_rewards, starts, ends)])
    kinds = dict(
        pcl=lambda: 0.5 * (e()**2).mean(),
        huber=lambda: torch.nn.functional.huber_loss(e(), torch.zeros(4), delta=0.7),
        spans=lambda: 0.5 * (span_e()**2).mean(),
        clip_sequence=lambda: -per(surrogate()).mean(),
        clip_token=lambda: -surrogate().mean(),
        reinforce=lambda: -(per(policy) * advantages).mean(),
        topr=lambda: -(taper * advantages * per(policy)).mean(),
        awr=lambda: -((advantages / tau).exp().clamp(max=5) * per(policy)).mean(),
        dpo=lambda: -torch.nn.functional.logsigmoid(tau * apart()).mean(),
        ipo=lambda: ((apart() - 1 / (2 * tau))**2).mean(),
        residual=lambda: 0.5 * torch.stack([(rewards[w] - rewards[l] - tau * (L()[w] - L()[l]))**2 for w, l in pairs]).mean(),
    )
    out = {}
    for name, loss in kinds.items():
        policy.grad = values.grad = None
        value = loss()
        value.backward()
        out[name] = dict(loss=value.item(), grad=policy.grad.tolist(), grad_values=None if values.grad is None else values.grad.tolist())
    write("losses.json", dict(torch=torch.__version__, lengths=lengths, tau=tau, policy=policy.tolist(), reference=reference.tolist(),
                              behaviour=behaviour.tolist(), rewards=rewards.tolist(), advantages=advantages.tolist(), values=values.tolist(),
                              pairs=pairs, spans=spans, span_rewards=span_rewards.tolist(), starts=starts.tolist(), ends=ends.tolist(),
                              kinds=out))


def token_field():
    """Sweeps of kernel TD over a few responses, particles kept as a plain list in double precision."""
    import torch

    torch.set_default_dtype(torch.float64)
    rng = np.random.default_rng(11)
    V, dim, length, top = 5, 3, 0.8, 6
    eta, tau, rate = 0.7, 0.4, 0.6
    lengths, advantages = [3, 1, 4, 3], [1.2, -0.4, 0.3, 0.9]
    responses = []
    for T, advantage in zip(lengths, advantages):
        responses.append(dict(states=f32(rng.normal(size=(T, dim))), logits=f32(rng.normal(size=(T, V))),
                              tokens=rng.integers(0, V, T), advantage=advantage))
    responses[3]["states"] = responses[0]["states"]  # the same particles again, with tokens of their own
    embeddings = f32(rng.normal(size=(V, 2)))
    softmax = lambda x: torch.softmax(x, -1)

    def run(backup, alike):
        particles = []  # state, token, weight

        def q_at(state):
            near = [(np.exp(-((state - s)**2).sum() / (2 * length**2)), i) for i, (s, _, _) in enumerate(particles)]
            near = sorted(near, key=lambda pair: (-pair[0], pair[1]))[:top]
            q = torch.zeros(V)
            for k, i in near:
                q += particles[i][2] * k * torch.tensor(alike[particles[i][1]])
            return q

        def policy(logits, q):
            return torch.distributions.Categorical(logits=torch.tensor(logits) + eta / tau * q)

        def value(state, logits, action):
            q, ref = q_at(state), torch.distributions.Categorical(logits=torch.tensor(logits))
            pi = policy(logits, q)
            if backup == "expected_sarsa":  # through the KL of the distributions, not its terms
                return ((pi.probs * q).sum() - tau * torch.distributions.kl_divergence(pi, ref)).item()
            if backup == "sarsa":
                return (q[action] - tau * (pi.logits[action] - ref.logits[action])).item()
            if backup == "soft_q":
                return (tau * torch.logsumexp(ref.logits + q / tau, 0)).item()
            return q.max().item()

        sweeps = []
        for r in responses:
            T = len(r["tokens"])
            before = [policy(r["logits"][t], q_at(r["states"][t])).logits[r["tokens"][t]].item() for t in range(T)]
            errors = [0.0] * T
            for t in reversed(range(T)):
                a = r["tokens"][t]
                y = r["advantage"] if t == T - 1 else value(r["states"][t + 1], r["logits"][t + 1], r["tokens"][t + 1])
                errors[t] = y - q_at(r["states"][t])[a].item()
                crowd = sum(np.exp(-((s - r["states"][t])**2).sum() / (2 * length**2)) for s, b, _ in particles
                            if b == a and not (s == r["states"][t]).all())
                step = rate / (1 + crowd)
                same = [i for i, (s, b, _) in enumerate(particles) if b == a and (s == r["states"][t]).all()]
                if same:
                    s, b, w = particles[same[0]]
                    particles[same[0]] = (s, b, w + step * errors[t])
                else:
                    particles.append((r["states"][t], a, step * errors[t]))
            sweeps.append(dict(log_probs=before, errors=errors))
        probe = f32(np.array([0.2, -0.1, 0.4]))
        return dict(sweeps=sweeps, weights=[w for _, _, w in particles], probe=probe, q=q_at(probe).tolist())

    # Tokens as clouds: p(a) ∝ π_ref(a) E_u e^{q(u)/t} for the two leading tokens, by the mean of the exponentials themselves
    draws, width, scale, t = f32(rng.normal(size=(7, 2))), 0.9, 0.4, tau / eta
    seen, state, logits = [(f32(rng.normal(size=dim)), int(rng.integers(0, V)), float(np.float32(rng.normal()))) for _ in range(8)], f32(rng.normal(size=dim)), f32(rng.normal(size=V))
    near = sorted([(np.exp(-((state - s)**2).sum() / (2 * length**2)), i) for i, (s, _, _) in enumerate(seen)], key=lambda pair: (-pair[0], pair[1]))[:top]
    own = np.zeros(V)
    for k, i in near:
        own[seen[i][1]] += seen[i][2] * k
    at = lambda u: sum(seen[i][2] * k * np.exp(-((u - embeddings[seen[i][1]])**2).sum() / (2 * width**2)) for k, i in near)
    q = own.copy()
    for a in np.argsort(-logits)[:2]:
        q[a] = t * np.log(np.mean([np.exp(at(f32(embeddings[a] + scale * z)) / t) for z in draws]))
    cloud = dict(draws=draws, length=width, scale=scale, candidates=2, tau=t, state=state, logits=logits, q=q,
                 particles=[dict(state=s, token=a, weight=w) for s, a, w in seen])

    identity = np.eye(V)
    backups = ["expected_sarsa", "sarsa", "soft_q", "hard_q"]
    write("token_field.json", dict(torch=torch.__version__, length=length, top=top, eta=eta, tau=tau, rate=rate, responses=responses,
                                   embeddings=embeddings, cloud=cloud, identity={b: run(b, identity) for b in backups},
                                   low_rank={b: run(b, embeddings @ embeddings.T) for b in backups}))


{"fields": fields, "losses": losses, "token_field": token_field}[sys.argv[1]]()
