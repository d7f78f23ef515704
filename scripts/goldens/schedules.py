"""tests/goldens/schedules.json: learning-rate factors of transformers' schedules.

    VENV/bin/python scripts/goldens/schedules.py
"""
import json
import os

import torch
import transformers
from transformers import get_scheduler

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "..", "tests", "goldens", "schedules.json")
CASES = [
    ("linear", {}), ("cosine", {}), ("cosine", dict(num_cycles=1.25)), ("constant", {}), ("constant_with_warmup", {}),
    ("cosine_with_restarts", dict(num_cycles=3)), ("polynomial", dict(lr_end=1e-3, power=2.0)), ("inverse_sqrt", {}),
    ("inverse_sqrt", dict(timescale=7)), ("cosine_with_min_lr", dict(min_lr_rate=0.1)),
]
PEAK = 0.02


def factors(name, kwargs, warmup, total):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    schedule = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total, scheduler_specific_kwargs=kwargs)
    out = []
    for _ in range(total + 2):
        out.append(schedule.get_last_lr()[0] / PEAK)
        optimizer.step()
        schedule.step()
    return out


cases = [dict(name=n, kwargs=k, warmup=w, total=t, factors=factors(n, dict(k), w, t)) for n, k in CASES for w, t in ((0, 9), (4, 15))]
with open(OUT, "w") as f:
    json.dump(dict(transformers=transformers.__version__, torch=torch.__version__, peak=PEAK, cases=cases), f)
