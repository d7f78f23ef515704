"""tests/goldens/logprobs.json: log-probabilities of tokens as transformers computes them, with the tiny model of tests/goldens/trl.

    VENV/bin/python scripts/goldens/logprobs.py
"""
import json
import os

import torch
import transformers
from transformers import AutoTokenizer, GPT2LMHeadModel

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDENS = os.path.normpath(os.path.join(HERE, "..", "..", "tests", "goldens"))
MODEL = os.path.join(GOLDENS, "trl", "model")
LINES = [
    dict(text="The otter waited by the mill and ate a trout."),
    dict(text=""),
    dict(prompt="Question: where is the lynx?\nAnswer:", completion=" under the old bridge, with two snails."),
    dict(text="x"),
    # The tokens of prompt and completion together are not those of the two alone
    dict(prompt="The badger wai", completion="ted in the reeds"),
    dict(text="special <|endoftext|> inside, café, 漢字 and \t tabs"),
    dict(text="The heron waited near the harbour wall and ate some clover. " * 30),
]


def main():
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = GPT2LMHeadModel.from_pretrained(MODEL, dtype=torch.float32).eval()
    rows = []
    for line in LINES:
        text = line.get("text", line.get("prompt", "") + line.get("completion", ""))
        ids = tokenizer(text, add_special_tokens=False, truncation=True, max_length=model.config.n_positions).input_ids
        logprobs = []
        if len(ids) > 1:
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].double()
            logprobs = torch.log_softmax(logits, -1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
        rows.append(dict(line=line, token_ids=ids, logprobs=[round(p, 7) for p in logprobs]))
    with open(os.path.join(GOLDENS, "logprobs.json"), "w") as f:
        versions = dict(transformers=transformers.__version__, torch=torch.__version__)
        json.dump(dict(versions=versions, rows=rows), f, ensure_ascii=False, indent=0)


if __name__ == "__main__":
    main()
