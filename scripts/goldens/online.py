"""tests/goldens/online: completions with rewards, and what TRL's GRPO and RLOO log when they learn from them.

    VENV/bin/python scripts/goldens/online.py [CASE ...]

Uses the model of `tests/goldens/trl`. TRL's sampling is replaced by the completions of `replay.jsonl`; its shuffles are switched off, so
that both programs see the same completions in the same micro-batches. All prompts have the same number of tokens: TRL 1.16 gives GPT-2
wrong positions where a prompt is padded.
"""
import json
import math
import os
import random
import sys

import torch
import transformers
import trl
import trl.trainer.grpo_trainer as grpo_module
import trl.trainer.rloo_trainer as rloo_module
from datasets import Dataset
from transformers import AutoTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDENS = os.path.normpath(os.path.join(HERE, "..", "..", "tests", "goldens"))
MODEL = os.path.join(GOLDENS, "trl", "model")
OUT = os.path.join(GOLDENS, "online")
GROUP = 4


def write_rows():
    """16 prompts of 4 tokens with 4 completions each, of ragged lengths, some without an end, one reward missing"""
    rng = random.Random(11)
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    words = [i for i in range(1, len(tokenizer)) if tokenizer.decode([i]).isascii() and tokenizer.decode([i]).isprintable()]
    prompts, rows = [], []
    while len(prompts) < 16:
        text = tokenizer.decode([rng.choice(words) for _ in range(4)])
        if len(tokenizer(text)["input_ids"]) == 4 and text not in prompts:
            prompts.append(text)
    for i, prompt in enumerate(prompts):
        completions = []
        for k in range(GROUP):
            ids = [rng.choice(words) for _ in range(rng.randint(1, 11))]
            completions.append(ids if (i + k) % 5 == 0 else ids + [tokenizer.eos_token_id])
        rewards = [round(rng.gauss(0, 1), 3) for _ in completions]
        if i == 2:
            rewards[1] = None
        if i == 3:
            rewards = [0.5] * GROUP
        rows.append(dict(prompt=prompt, completions=completions, rewards=rewards))
    with open(os.path.join(OUT, "replay.jsonl"), "w") as f:
        f.writelines(json.dumps(row) + "\n" for row in rows)
    return rows


COMMON = dict(max_steps=12, logging_steps=1, per_device_train_batch_size=8, gradient_accumulation_steps=1, learning_rate=2e-3, weight_decay=0.01,
              max_grad_norm=1.0, lr_scheduler_type="linear", save_strategy="no", report_to="none", seed=42, use_cpu=True, bf16=False,
              gradient_checkpointing=False, disable_tqdm=True, num_generations=GROUP, max_completion_length=12, shuffle_dataset=False,
              temperature=0.9)
KL = dict(beta=0.2)
REUSE = dict(num_iterations=2, steps_per_generation=2)
CASES = {
    "grpo_dapo": {},
    "grpo_dapo_kl": KL,
    "grpo_dapo_accumulated": dict(per_device_train_batch_size=4, gradient_accumulation_steps=4, **KL),
    "grpo_reuse": dict(loss_type="grpo", epsilon_high=0.28, **REUSE, **KL),
    "grpo_bnpo": dict(loss_type="bnpo", per_device_train_batch_size=4, gradient_accumulation_steps=2, **REUSE),
    "grpo_dr": dict(loss_type="dr_grpo", scale_rewards="none", **REUSE),
    "grpo_cispo": dict(loss_type="cispo", epsilon_high=1.02, **REUSE),
    "grpo_sapo": dict(loss_type="sapo", scale_rewards="batch", **REUSE),
    "grpo_luspo": dict(loss_type="luspo", importance_sampling_level="sequence", **REUSE, **KL),
    "grpo_vespo": dict(loss_type="vespo", **REUSE),
    "grpo_gspo": dict(loss_type="grpo", importance_sampling_level="sequence", epsilon=3e-3, **REUSE, **KL),
    "grpo_plain_k3": dict(use_bias_correction_kl=False, **REUSE, **KL),
    "grpo_delta": dict(delta=1.05, mask_truncated_completions=True, **REUSE),
    "grpo_entropy": dict(entropy_coef=0.05, top_entropy_quantile=0.5),
    "grpo_adaptive_entropy": dict(use_adaptive_entropy=True, entropy_coef=0.02, entropy_target=5.0, entropy_coef_delta=0.01),
    "grpo_following": dict(sync_ref_model=True, ref_model_sync_steps=2, ref_model_mixup_alpha=0.5, **KL),
    "rloo": {},
    "rloo_reuse": dict(beta=0.3, normalize_advantages=True, reward_clip_range=[-1.0, 1.0], **REUSE),
    "rloo_following": dict(sync_ref_model=True, ref_model_sync_steps=3, ref_model_mixup_alpha=0.9),
    "rloo_no_kl": dict(beta=0.0, mask_truncated_completions=True),
}


def run(name, changes, rows):
    kind = name.split("_")[0]
    cls, cfg = dict(grpo=(trl.GRPOTrainer, trl.GRPOConfig), rloo=(trl.RLOOTrainer, trl.RLOOConfig))[kind]
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    table = {tuple(tokenizer(row["prompt"])["input_ids"]): row for row in rows}
    place = {}

    class Replay(cls):
        def _generate_single_turn(self, prompt_ids, *args, **kwargs):
            place.clear()
            counts, ids = {}, []
            for prompt in map(tuple, prompt_ids):
                k = counts.get(prompt, 0)
                counts[prompt] = k + 1
                ids.append(list(table[prompt]["completions"][k]))
                place[len(ids) - 1] = table[prompt]["rewards"][k]
            return (ids, None) if kind == "grpo" else ids

    def replay(prompts, completions, **kwargs):
        return [place[i] for i in range(len(completions))]

    for module in (grpo_module, rloo_module):
        module.shuffle_sequence_dict = lambda batch: batch
    config = dict(COMMON, **changes)
    if "reward_clip_range" in config:
        config["reward_clip_range"] = tuple(config["reward_clip_range"])
    torch.manual_seed(0)
    trainer = Replay(model=MODEL, reward_funcs=replay, train_dataset=Dataset.from_list([dict(prompt=row["prompt"]) for row in rows]),
                     args=cfg(output_dir="/tmp/trl_out", model_init_kwargs=dict(dtype="float32"), **config))
    trainer.train()
    keep = lambda log: {k: v for k, v in log.items() if not k.endswith(("runtime", "per_second", "total_flos", "step_time")) and v is not None
                        and not (isinstance(v, float) and math.isnan(v))}
    return dict(config={k: v for k, v in {**COMMON, **changes}.items()}, log=[keep(log) for log in trainer.state.log_history])


if __name__ == "__main__":
    os.makedirs(OUT, exist_ok=True)
    rows = write_rows()
    path = os.path.join(OUT, "trl.json")
    cases = json.load(open(path))["cases"] if sys.argv[1:] and os.path.exists(path) else {}
    for name in sys.argv[1:] or CASES:
        cases[name] = run(name, CASES[name], rows)
    versions = dict(trl=trl.__version__, transformers=transformers.__version__, torch=torch.__version__)
    with open(path, "w") as f:
        f.write('{"versions": ' + json.dumps(versions) + ', "cases": {\n')
        f.write(",\n".join(f"{json.dumps(name)}: {json.dumps(case)}" for name, case in cases.items()) + "\n}}\n")
