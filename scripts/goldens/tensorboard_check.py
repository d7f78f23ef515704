"""Compare the event files of a run folder, as TensorBoard reads them, with its metrics.jsonl.

    python scripts/goldens/tensorboard_check.py RUN_FOLDER

Every number of metrics.jsonl must be there under the tag of the Hugging Face Trainer, as a 32-bit float, and nothing
else: no point of a step that a resume has taken back, none twice. Written against tensorboard 2.21.
"""

import json
import math
import struct
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def tag(name):
    return f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"


def as_float32(value):
    return struct.unpack("f", struct.pack("f", math.nan if value is None else value))[0]


def expected(run_folder):
    scalars = {}
    for line in (run_folder / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        step = row.pop("step")
        for name, value in row.items():
            scalars.setdefault(tag(name), []).append((step, as_float32(value)))
    return scalars


def found(run_folder):
    # 0: keep every point
    accumulator = EventAccumulator(str(run_folder / "runs"), size_guidance={"scalars": 0, "tensors": 0})
    accumulator.Reload()
    return {name: [(e.step, e.value) for e in accumulator.Scalars(name)] for name in accumulator.Tags()["scalars"]}


def main(run_folder):
    want, have = expected(run_folder), found(run_folder)
    wrong = [name for name in sorted(want.keys() | have.keys()) if repr(want.get(name)) != repr(have.get(name))]
    for name in wrong:
        print(f"{name}:\n  metrics.jsonl {want.get(name)}\n  TensorBoard   {have.get(name)}")
    points = sum(map(len, have.values()))
    print(f"{len(have)} tags, {points} points, {len(wrong)} tags differ")
    return bool(wrong) or not points


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
