"""tests/goldens/algo.json: losses of algo/ in PyTorch, values and gradients.

    VENV/bin/python scripts/goldens/algo.py
"""
import json
import os

import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "..", "tests", "goldens", "algo.json")
torch.set_default_dtype(torch.float64)
torch.manual_seed(3)


def case(beta, spread):
    chosen = (torch.randn(7) * spread).requires_grad_()
    rejected = (torch.randn(7) * spread).requires_grad_()
    loss = -F.logsigmoid(beta * (chosen - rejected))
    weights = torch.rand(7)
    (loss * weights).sum().backward()
    return dict(beta=beta, chosen=chosen.tolist(), rejected=rejected.tolist(), weights=weights.tolist(), loss=loss.tolist(),
                grad_chosen=chosen.grad.tolist(), grad_rejected=rejected.grad.tolist())


with open(OUT, "w") as f:
    json.dump(dict(torch=torch.__version__, dpo_sigmoid=[case(0.1, 3.0), case(0.5, 40.0), case(2.0, 200.0)]), f)
