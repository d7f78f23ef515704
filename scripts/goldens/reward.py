"""tests/goldens/reward: a tiny reward model with a tokenizer, rows, and what transformers and TRL make of them.

    VENV/bin/python scripts/goldens/reward.py [CASE ...]

- `CASE.yaml` and `CASE.json`: a TRL config that both programs run unchanged, and TRL's log of it.
- `scores.jsonl` and `scores.json`: texts, and transformers' scores of them with either padding token.
- `bradley_terry.json`: the loss in float64, values and gradients.
"""
import json
import os
import random
import sys

import torch
import torch.nn.functional as F
import transformers
import trl
import yaml
from datasets import load_dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, GPT2Config, GPT2ForSequenceClassification, PreTrainedTokenizerFast

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.normpath(os.path.join(HERE, "..", "..", "tests", "goldens", "reward"))
VERSIONS = dict(trl=trl.__version__, transformers=transformers.__version__, torch=torch.__version__)
EOS, PAD = "<|endoftext|>", "<|pad|>"

ANIMALS = ["otter", "heron", "badger", "lynx", "newt", "wren"]
PLACES = ["under the old bridge", "by the mill", "in the reeds", "near the harbour wall", "on the north slope"]
MOODS = ["It was content.", "Nobody saw it leave.", "I do not know.", "That was all it wanted."]


def dump(name, rows):
    with open(os.path.join(OUT, name), "w") as f:
        f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write_rows():
    rng = random.Random(11)
    explicit = []
    for i in range(24):
        prompt = f"Question: where is the {rng.choice(ANIMALS)}?\nAnswer:"
        chosen = f" {rng.choice(PLACES)}, and {rng.choice(PLACES)}."
        # The last two rows have a side that `max_length: 60` drops
        rejected = f" {rng.choice(MOODS)}" * (1 if i < 22 else 9)
        explicit.append(dict(prompt=prompt, chosen=chosen, rejected=rejected))
    implicit = [dict(chosen=r["prompt"] + r["chosen"], rejected=r["prompt"] + r["rejected"]) for r in explicit]
    # One side ends in EOS already
    implicit[1]["chosen"] += EOS
    margin = [dict(r, margin=rng.choice([0, 1, 0.5, 2.25])) for r in implicit]

    def turn(role, text):
        return dict(role=role, content=text.strip())

    chat = [dict(prompt=[turn("user", r["prompt"][10:-8])], chosen=[turn("assistant", r["chosen"])], rejected=[turn("assistant", r["rejected"])])
            for r in explicit]
    dump("explicit.jsonl", explicit), dump("implicit.jsonl", implicit), dump("margin.jsonl", margin), dump("chat.jsonl", chat)
    texts = [r["prompt"] + r["chosen"] for r in explicit[:6]] + ["", "a", explicit[0]["prompt"] + EOS + explicit[23]["rejected"]]
    dump("scores.jsonl", [dict(prompt=t[: len(t) // 2], completion=t[len(t) // 2 :]) for t in texts])


def write_model():
    torch.manual_seed(5)
    corpus = [v for line in open(os.path.join(OUT, "explicit.jsonl")) for v in json.loads(line).values()]
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(corpus, trainers.BpeTrainer(vocab_size=330, special_tokens=[EOS, PAD], show_progress=False,
                            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    # No padding token is named: it falls back to EOS
    fast = PreTrainedTokenizerFast(tokenizer_object=tok, eos_token=EOS, bos_token=EOS, model_max_length=96)
    fast.chat_template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{{ eos_token }}\n{% endfor %}"
    config = GPT2Config(vocab_size=len(tok.get_vocab()), n_positions=96, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
                        bos_token_id=0, eos_token_id=0, pad_token_id=0, initializer_range=0.1, num_labels=1)
    folder = os.path.join(OUT, "model")
    GPT2ForSequenceClassification(config).save_pretrained(folder), fast.save_pretrained(folder)


def write_scores():
    """Scores under both padding tokens; padded on either side, with positions that count real tokens, they are the same"""
    tokenizer = AutoTokenizer.from_pretrained(os.path.join(OUT, "model"))
    rows = [json.loads(line) for line in open(os.path.join(OUT, "scores.jsonl"))]
    ids = [tokenizer(r["prompt"] + r["completion"] + EOS)["input_ids"] for r in rows]
    longest = max(map(len, ids))
    result = dict(versions=VERSIONS, ids=ids)
    for name, pad in (("eos", EOS), ("pad", PAD)):
        model = GPT2ForSequenceClassification.from_pretrained(os.path.join(OUT, "model")).eval()
        model.config.pad_token_id = tokenizer.convert_tokens_to_ids(pad)
        by_side = []
        for side in ("right", "left"):
            def padded(seq, fill):
                rest = [fill] * (longest - len(seq))
                return seq + rest if side == "right" else rest + seq
            mask = torch.tensor([padded([1] * len(seq), 0) for seq in ids])
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([padded(seq, model.config.pad_token_id) for seq in ids]), attention_mask=mask,
                               position_ids=(mask.cumsum(-1) - 1).clamp(min=0)).logits
            by_side.append(logits[:, 0])
        alone = torch.cat([model(input_ids=torch.tensor([seq])).logits[:, 0] for seq in ids]).detach()
        # transformers reads a sequence of nothing but padding at the left end of the padded row
        real = [any(token != model.config.pad_token_id for token in seq) for seq in ids]
        for scores in by_side:
            assert all(abs(a - b) < 1e-4 for a, b, r in zip(scores, alone, real) if r)
        result[name] = alone.tolist()
    with open(os.path.join(OUT, "scores.json"), "w") as f:
        json.dump(result, f)


def write_loss():
    torch.manual_seed(3)

    def case(spread, with_margin, coefficient):
        chosen, rejected = ((torch.randn(7, dtype=torch.float64) * spread).requires_grad_() for _ in range(2))
        margin = torch.rand(7, dtype=torch.float64) * 3 if with_margin else torch.zeros(7, dtype=torch.float64)
        loss = -F.logsigmoid(chosen - rejected - margin) + coefficient * (chosen + rejected) ** 2
        weights = torch.rand(7, dtype=torch.float64)
        (loss * weights).sum().backward()
        return dict(chosen=chosen.tolist(), rejected=rejected.tolist(), margin=margin.tolist() if with_margin else None, coefficient=coefficient,
                    weights=weights.tolist(), loss=loss.tolist(), grad_chosen=chosen.grad.tolist(), grad_rejected=rejected.grad.tolist())

    cases = [case(1.0, False, 0.0), case(1.0, True, 0.0), case(2.0, True, 0.01), case(60.0, False, 0.1)]
    with open(os.path.join(OUT, "bradley_terry.json"), "w") as f:
        json.dump(dict(torch=torch.__version__, cases=cases), f)


COMMON = dict(model_name_or_path="model", max_steps=12, logging_steps=1, per_device_train_batch_size=4, learning_rate=1e-3, weight_decay=0.01,
              train_sampling_strategy="sequential", save_strategy="no", report_to="none", seed=42, use_cpu=True, bf16=False, gradient_checkpointing=False,
              disable_tqdm=True)
CASES = {
    "implicit": dict(dataset="implicit.jsonl"),
    "implicit_centred": dict(dataset="implicit.jsonl", center_rewards_coefficient=0.1, pad_token=PAD),
    "explicit": dict(dataset="explicit.jsonl", max_length=60, pad_token=PAD, lr_scheduler_type="cosine", warmup_steps=3),
    "explicit_accumulated": dict(dataset="explicit.jsonl", per_device_train_batch_size=2, gradient_accumulation_steps=3, logging_steps=3, max_grad_norm=0.5),
    "margin_centred_eval": dict(dataset="margin.jsonl", center_rewards_coefficient=0.01, eval_strategy="steps", eval_steps=5, per_device_eval_batch_size=5),
    "chat": dict(dataset="chat.jsonl", lr_scheduler_type="constant", pad_token=PAD),
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
    args = trl.RewardConfig(output_dir="/tmp/trl_reward", model_init_kwargs=dict(dtype="float32"), **config)
    trainer = trl.RewardTrainer(model="model", args=args, train_dataset=rows, eval_dataset=rows if "eval_strategy" in config else None)
    trainer.train()
    keep = lambda log: {k: v for k, v in log.items() if not k.endswith(("runtime", "per_second", "total_flos"))}
    with open(f"{name}.json", "w") as f:
        json.dump(dict(versions=VERSIONS, rows=len(trainer.train_dataset), log=[keep(log) for log in trainer.state.log_history]), f, indent=0)


if __name__ == "__main__":
    os.makedirs(OUT, exist_ok=True)
    if not sys.argv[1:]:
        write_rows(), write_model(), write_scores(), write_loss()
    for name in sys.argv[1:] or CASES:
        run(name, CASES[name])
