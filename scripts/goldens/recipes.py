"""tests/goldens/trl: a tiny GPT-2 with a tokenizer, rows, and what TRL logs when it trains on them.

    VENV/bin/python scripts/goldens/recipes.py [CASE ...]

Each case is `CASE.yaml` (a TRL config, run unchanged by both programs) and `CASE.json` (TRL's log history and versions).
"""
import json
import os
import random
import sys

import torch
import transformers
import trl
import yaml
from datasets import load_dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.normpath(os.path.join(HERE, "..", "..", "tests", "goldens", "trl"))

ANIMALS = ["otter", "heron", "badger", "lynx", "newt", "wren"]
PLACES = ["under the old bridge", "by the mill", "in the reeds", "near the harbour wall", "on the north slope"]
FOOD = ["a trout", "two snails", "some clover", "the last apple", "a handful of seeds"]
MOODS = ["It was content.", "Nobody saw it leave.", "The rain had stopped by then.", "That was all it wanted.", ""]


def sentence(rng):
    return f"The {rng.choice(ANIMALS)} waited {rng.choice(PLACES)} and ate {rng.choice(FOOD)}. {rng.choice(MOODS)}".strip()


def write_rows():
    rng = random.Random(7)
    def dump(name, rows):
        with open(os.path.join(OUT, name), "w") as f:
            f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    text = [dict(text=" ".join(sentence(rng) for _ in range(rng.randint(1, 3)))) for _ in range(30)]
    def pair():
        animal = rng.choice(ANIMALS)
        return dict(prompt=f"Question: where is the {animal}?\nAnswer:", completion=f" {rng.choice(PLACES)}, with {rng.choice(FOOD)}.")
    prompted = [pair() for _ in range(30)]
    preference = []
    for _ in range(30):
        row = pair()
        preference.append(dict(prompt=row["prompt"], chosen=row["completion"], rejected=f" {rng.choice(MOODS) or 'I do not know.'}"))
    implicit = [dict(chosen=r["prompt"] + r["chosen"], rejected=r["prompt"] + r["rejected"]) for r in preference]
    chat = [dict(messages=[dict(role="user", content=r["prompt"][10:-8]), dict(role="assistant", content=r["completion"].strip())]) for r in prompted]
    dump("text.jsonl", text), dump("prompted.jsonl", prompted), dump("preference.jsonl", preference)
    dump("implicit.jsonl", implicit), dump("chat.jsonl", chat)


def write_model():
    torch.manual_seed(5)
    corpus = []
    for name in ("text", "prompted", "preference"):
        corpus += [v for line in open(os.path.join(OUT, name + ".jsonl")) for v in json.loads(line).values()]
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=340, special_tokens=["<|endoftext|>"],
                            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    fast = PreTrainedTokenizerFast(tokenizer_object=tok, eos_token="<|endoftext|>", bos_token="<|endoftext|>", model_max_length=128)
    fast.chat_template = ("{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
                          "{% if add_generation_prompt %}<assistant>{% endif %}")
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tok.get_vocab()), n_positions=128, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0.0,
                            embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, initializer_range=0.1))
    folder = os.path.join(OUT, "model")
    model.save_pretrained(folder), fast.save_pretrained(folder)


COMMON = dict(model_name_or_path="model", max_steps=12, logging_steps=1, per_device_train_batch_size=2, learning_rate=2e-3, weight_decay=0.01,
              max_grad_norm=1.0, lr_scheduler_type="linear", train_sampling_strategy="sequential", save_strategy="no", report_to="none",
              seed=42, use_cpu=True, bf16=False, gradient_checkpointing=False, disable_tqdm=True)
CASES = {
    "sft_text": dict(dataset="text.jsonl"),
    "sft_text_accumulated": dict(dataset="text.jsonl", gradient_accumulation_steps=2, max_length=40, max_grad_norm=0.2),
    "sft_completion": dict(dataset="prompted.jsonl", lr_scheduler_type="cosine", warmup_steps=3, eval_strategy="steps", eval_steps=5),
    "sft_completion_accumulated": dict(dataset="prompted.jsonl", gradient_accumulation_steps=2, per_device_train_batch_size=3, logging_steps=4),
    "sft_prompt_in_loss": dict(dataset="prompted.jsonl", completion_only_loss=False, lr_scheduler_type="constant", adam_beta2=0.9, adam_epsilon=1e-5),
    "sft_chat": dict(dataset="chat.jsonl", warmup_steps=0.25),
    "dpo": dict(dataset="preference.jsonl", beta=0.3),
    "dpo_implicit_accumulated": dict(dataset="implicit.jsonl", gradient_accumulation_steps=2, precompute_ref_log_probs=True, logging_steps=3),
    "dpo_truncated_eval": dict(dataset="preference.jsonl", max_length=26, lr_scheduler_type="constant_with_warmup", warmup_steps=2, per_device_train_batch_size=4,
                               eval_strategy="steps", eval_steps=4, per_device_eval_batch_size=3),
}


def run(name, changes):
    changes = dict(changes)
    data = changes.pop("dataset")
    config = COMMON | changes
    os.chdir(OUT)
    with open(f"{name}.yaml", "w") as f:
        yaml.safe_dump(dict(config, dataset_name=data) | (dict(eval_dataset=data) if "eval_strategy" in config else {}), f, sort_keys=False)
    config.pop("model_name_or_path")
    rows = load_dataset("json", data_files=data, split="train")
    kind = name.split("_")[0]
    cls, cfg = dict(sft=(trl.SFTTrainer, trl.SFTConfig), dpo=(trl.DPOTrainer, trl.DPOConfig))[kind]
    trainer = cls(model="model", args=cfg(output_dir="/tmp/trl_out", model_init_kwargs=dict(dtype="float32"), **config), train_dataset=rows,
                  eval_dataset=rows if "eval_strategy" in config else None)
    trainer.train()
    keep = lambda log: {k: v for k, v in log.items() if not k.endswith(("runtime", "per_second", "total_flos"))}
    with open(f"{name}.json", "w") as f:
        versions = dict(trl=trl.__version__, transformers=transformers.__version__, torch=torch.__version__)
        json.dump(dict(versions=versions, log=[keep(log) for log in trainer.state.log_history]), f, indent=0)


if __name__ == "__main__":
    os.makedirs(OUT, exist_ok=True)
    write_rows(), write_model()
    for name in sys.argv[1:] or CASES:
        run(name, CASES[name])
