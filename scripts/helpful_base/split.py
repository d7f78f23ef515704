"""split.py DATA OUT: Anthropic's helpful-base test file as training and held-out pairs, split by first question.

DATA is a folder that holds hh_rlhf_test/helpful-base.test.jsonl.gz. Standard library only; the split is fixed by a hash
of the question, so that no conversation has turns on both sides. Writes OUT/pairs/{train,test}.jsonl
({"chosen","rejected"}, the prompt implicit) and OUT/texts/{train,test}.jsonl ({"prompt","completion"} of the chosen side).
"""
import gzip
import hashlib
import json
import os
import sys

data, out = sys.argv[1:3]
END = "\n\nAssistant:"
counts = dict(train=0, test=0, equal=0)
files = {}
for kind in ("pairs", "texts"):
    os.makedirs(os.path.join(out, kind), exist_ok=True)
    for split in ("train", "test"):
        files[kind, split] = open(os.path.join(out, kind, f"{split}.jsonl"), "w")
with gzip.open(os.path.join(data, "hh_rlhf_test", "helpful-base.test.jsonl.gz"), "rt") as rows:
    for line in rows:
        row = json.loads(line)
        if row["chosen"] == row["rejected"]:
            counts["equal"] += 1
            continue
        question = row["chosen"].split(END)[0]
        split = "test" if hashlib.sha256(question.encode()).digest()[0] < 32 else "train"
        counts[split] += 1
        files["pairs", split].write(json.dumps(row, ensure_ascii=False) + "\n")
        at = row["chosen"].rfind(END) + len(END)
        text = dict(prompt=row["chosen"][:at], completion=row["chosen"][at:])
        files["texts", split].write(json.dumps(text, ensure_ascii=False) + "\n")
print(json.dumps(counts))
