"""tests/goldens/trl: a tiny GPT-2 with a tokenizer, rows, and what TRL logs when it trains on them.

    VENV/bin/python scripts/goldens/recipes.py [all | CASE ... | trajectories [NAME ...]]

Each case is `CASE.yaml` (a TRL config, run unchanged by both programs) and `CASE.json` (TRL's log history and versions).
Cases of TRAJECTORIES lie together in `trajectories.json`: keys, and each metric of each logged step. `trajectories [NAME ...]` makes
all of these, or some of them anew. The model and the rows of the first cases are made by `all` alone.
"""
import importlib
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
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

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


def write_more_rows():
    """Rows made of those that are there"""
    read = lambda name: [json.loads(line) for line in open(os.path.join(OUT, name))]
    def dump(name, rows):
        with open(os.path.join(OUT, name), "w") as f:
            f.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    preference = read("preference.jsonl")
    good = lambda i: i % 5 in (0, 3)
    dump("unpaired.jsonl", [dict(prompt=r["prompt"], completion=r["chosen" if good(i) else "rejected"], label=good(i)) for i, r in enumerate(preference)])
    say = lambda role, content: dict(role=role, content=content.strip())
    dump("chat_preference.jsonl", [dict(prompt=[say("user", r["prompt"][10:-8])], chosen=[say("assistant", r["chosen"])], rejected=[say("assistant", r["rejected"])])
                                   for r in preference])
    chats = read("chat.jsonl")
    dump("turns.jsonl", [dict(messages=chats[i]["messages"] + chats[i + 1]["messages"]) for i in range(0, len(chats) - 1)])


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


TRAINERS = dict(sft=("trl", "SFT"), dpo=("trl", "DPO"), kto=("trl", "KTO"), orpo=("trl.experimental.orpo", "ORPO"), cpo=("trl.experimental.cpo", "CPO"))
# What their means depend on in TRL is padding
PADDED = dict(orpo=("logits/chosen", "logits/rejected"), cpo=("logits/chosen", "logits/rejected"))
DPO = dict(dataset_name="preference.jsonl", beta=0.3, learning_rate=1e-3)
GROUPS = dict(DPO, per_device_train_batch_size=4)
SPLIT = dict(per_device_train_batch_size=3, gradient_accumulation_steps=2, max_steps=5)
KTO = dict(dataset_name="unpaired.jsonl", beta=0.3, learning_rate=1e-3, per_device_train_batch_size=4)
FREE = dict(dataset_name="preference.jsonl", learning_rate=1e-3)
TURNS = dict(dataset_name="turns.jsonl", learning_rate=1e-3)
PACKED = dict(dataset_name="text.jsonl", packing=True, max_length=100, learning_rate=1e-3)
MARKED = ("{% for m in messages %}<{{ m['role'] }}>{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}{{ eos_token }}{% endgeneration %}"
          "{% else %}{{ m['content'] }}{% endif %}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}")
TRAJECTORIES = {
    **{f"dpo_{loss}": dict(GROUPS, loss_type=[loss]) for loss in
       ["sigmoid", "hinge", "ipo", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"]},
    "dpo_exo_pair": dict(GROUPS, loss_type=["exo_pair"], label_smoothing=0.01),
    "dpo_robust": dict(GROUPS, loss_type=["robust"], label_smoothing=0.2),
    "dpo_aot_smoothed": dict(GROUPS, loss_type=["aot"], label_smoothing=0.1),
    "dpo_aot_unpaired_smoothed": dict(GROUPS, loss_type=["aot_unpaired"], label_smoothing=0.1),
    # One pair has nothing to sort: conservative DPO, for which TRL has no name
    "dpo_cdpo": dict(DPO, loss_type=["aot_unpaired"], label_smoothing=0.1, per_device_train_batch_size=1),
    "dpo_mixed": dict(GROUPS, loss_type=["sigmoid", "bco_pair", "sft"], loss_weights=[0.8, 0.2, 1.0]),
    "dpo_discopop_tau": dict(GROUPS, loss_type=["discopop"], discopop_tau=0.5),
    "dpo_ld": dict(GROUPS, ld_alpha=0.4),
    "dpo_ld_precomputed": dict(GROUPS, ld_alpha=0.0, precompute_ref_log_probs=True, loss_type=["sigmoid_norm", "ipo"]),
    "dpo_forward_kl": dict(GROUPS, f_divergence_type="forward_kl", learning_rate=1e-4),
    "dpo_js_divergence": dict(GROUPS, f_divergence_type="js_divergence"),
    "dpo_alpha_divergence": dict(GROUPS, f_divergence_type="alpha_divergence", f_alpha_divergence_coef=0.7),
    "dpo_alpha_one": dict(GROUPS, f_divergence_type="alpha_divergence", f_alpha_divergence_coef=1.0, loss_type=["ipo"]),
    "dpo_weighted": dict(GROUPS, use_weighting=True),
    "dpo_following": dict(GROUPS, sync_ref_model=True, ref_model_sync_steps=3, ref_model_mixup_alpha=0.6),
    "dpo_split_mixed": dict(DPO, **SPLIT, loss_type=["aot", "sft", "ipo"], loss_weights=[1.0, 0.5, 0.5]),
    "dpo_chat_eval": dict(GROUPS, dataset_name="chat_preference.jsonl", eval_strategy="steps", eval_steps=4, loss_type=["apo_zero"]),
    "dpo_following_accumulated": dict(DPO, **SPLIT, sync_ref_model=True, ref_model_sync_steps=2, ref_model_mixup_alpha=0.9, loss_type=["nca_pair"]),
    "kto": KTO,
    "kto_apo_zero_unpaired": dict(KTO, loss_type="apo_zero_unpaired"),
    "kto_weights": dict(KTO, desirable_weight=1.5, undesirable_weight=0.7, **SPLIT),
    "kto_paired": dict(KTO, dataset_name="preference.jsonl"),
    "kto_implicit_precomputed": dict(KTO, dataset_name="implicit.jsonl", precompute_ref_log_probs=True),
    "kto_chat": dict(KTO, dataset_name="chat_preference.jsonl", max_length=40),
    "kto_following_eval": dict(KTO, sync_ref_model=True, ref_model_sync_steps=2, max_length=26, eval_strategy="steps", eval_steps=5),
    "orpo": dict(FREE, beta=0.5),
    "orpo_accumulated": dict(FREE, **SPLIT),
    "orpo_truncated_eval": dict(FREE, max_length=26, per_device_train_batch_size=4, eval_strategy="steps", eval_steps=5),
    "orpo_chat": dict(FREE, dataset_name="chat_preference.jsonl"),
    **{f"cpo_{loss}": dict(FREE, loss_type=loss) for loss in ["sigmoid", "hinge", "ipo", "simpo"]},
    "cpo_smoothed": dict(FREE, label_smoothing=0.1, cpo_alpha=0.3, **SPLIT),
    "cpo_simpo_alone": dict(FREE, loss_type="simpo", cpo_alpha=0.0, beta=2.0, simpo_gamma=1.0, label_smoothing=0.05),
    "cpo_alphapo": dict(FREE, loss_type="alphapo", alpha=0.2, beta=2.0, max_length=30),
    "cpo_implicit_eval": dict(FREE, dataset_name="implicit.jsonl", eval_strategy="steps", eval_steps=5),
    "sft_dft": dict(dataset_name="prompted.jsonl", loss_type="dft", learning_rate=1e-3),
    "sft_packed": dict(PACKED, per_device_train_batch_size=1),
    "sft_packed_split": dict(PACKED, packing_strategy="bfd_split", max_length=48, eval_strategy="steps", eval_steps=6, eval_packing=False),
    "sft_packed_wrapped": dict(PACKED, packing_strategy="wrapped", max_length=48, per_device_train_batch_size=3),
    "sft_packed_completions": dict(PACKED, dataset_name="prompted.jsonl", gradient_accumulation_steps=2, eval_strategy="steps", eval_steps=6),
    "sft_assistant_only": dict(TURNS, assistant_only_loss=True, chat_template=MARKED),
    "sft_assistant_only_packed": dict(TURNS, assistant_only_loss=True, chat_template=MARKED, packing=True, max_length=100),
}


def trajectory(name, changes):
    recipe, config = name.split("_")[0], {k: v for k, v in (COMMON | changes).items()}
    os.chdir(OUT)
    if template := config.pop("chat_template", None):
        path = "/tmp/marked.jinja"
        open(path, "w").write(template)
        config["chat_template_path"] = path
    data = config.pop("dataset_name")
    config.pop("model_name_or_path")
    rows = load_dataset("json", data_files=data, split="train")
    module, prefix = TRAINERS[recipe]
    module = importlib.import_module(module)
    extra = dict(processing_class=AutoTokenizer.from_pretrained("model")) if recipe in PADDED else {}
    if extra:
        extra["processing_class"].pad_token = extra["processing_class"].eos_token
    if extra or recipe == "kto":
        config.setdefault("max_length", 1024)
    args = getattr(module, prefix + "Config")(output_dir="/tmp/trl_out", model_init_kwargs=dict(dtype="float32"), **config)
    trainer = getattr(module, prefix + "Trainer")(model="model", args=args, train_dataset=rows, eval_dataset=rows if "eval_strategy" in config else None, **extra)
    trainer.train()
    rows = [log for log in trainer.state.log_history if "train_loss" not in log]
    dropped = ("runtime", "per_second", "total_flos", *PADDED.get(recipe, ()))
    keep = lambda log: {k: float(f"{v:.8g}") for k, v in log.items() if not k.endswith(dropped)}
    columns = {}
    for log in map(keep, rows):
        for key, value in log.items():
            columns.setdefault(key, []).append(value)
    return dict(keys=changes, log=columns)


def trajectories(names):
    path = os.path.join(OUT, "trajectories.json")
    cases = json.load(open(path))["cases"] if names else {}
    cases |= {name: trajectory(name, TRAJECTORIES[name]) for name in names or TRAJECTORIES}
    versions = dict(trl=trl.__version__, transformers=transformers.__version__, torch=torch.__version__)
    with open(path, "w") as f:
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(cases[name], separators=(',', ':'))}" for name in TRAJECTORIES if name in cases)
        f.write(f'{{"versions": {json.dumps(versions)},\n"common": {json.dumps(COMMON)},\n"cases": {{\n{lines}\n}}}}\n')


if __name__ == "__main__":
    os.makedirs(OUT, exist_ok=True)
    names = sys.argv[1:] or ["all"]
    if names == ["all"]:
        write_rows(), write_model()
        names = [*CASES]
        write_more_rows(), trajectories([])
    if names[0] == "trajectories":
        write_more_rows(), trajectories(names[1:])
        names = []
    for name in names:
        run(name, CASES[name])
