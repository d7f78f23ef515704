#!/usr/bin/env bash
# Trains on one of the small tasks with several seeds, one after the other, and measures what came of it without the program:
# samples at temperature 1 from the final model, 100 of each start of the walks, 4 of each held-out sum.
#
#     scripts/tasks/run.sh CONFIG [SEED ...]            e.g. scripts/tasks/run.sh configs/walks/grpo.yaml 1 2 3 4 5
#
# The folder of the config names the task (walks or sums), its file name the command. COLLIMATE is the program (default
# target/release/collimate), PYTHON a Python (default python3), THREADS how many threads (default 2), OUT where the runs go
# (default runs). Without a seed the base model is measured instead.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
config=$(realpath "$1")
shift
collimate=$(realpath "${COLLIMATE:-$root/target/release/collimate}")
python=${PYTHON:-python3}
threads=${THREADS:-2}
out=$(realpath -m "${OUT:-$root/runs}")
task=$(basename "$(dirname "$config")")
recipe=$(basename "$config" .yaml)
cd "$root"

case $task in
    walks) prompts=data/walks/prompts.jsonl samples=100 ;;
    sums) prompts=data/sums/test.jsonl samples=4 ;;
    *) echo "unknown task \`$task\`: expected walks or sums" >&2 && exit 2 ;;
esac

exec 3>&2
TIMEFORMAT=%U

measure() {
    "$collimate" --quiet generate --model_name_or_path "$1" --prompts "$prompts" --num_return_sequences "$samples" \
        --max_new_tokens 10 --batch_size 256 --seed 0 --threads "$threads" --json |
        "$python" scripts/tasks/measure.py "$task"
}

if [ $# = 0 ]; then
    echo "$task base: $(measure "data/$task/base")"
fi
for seed in "$@"; do
    run=$out/$task-$recipe-$seed
    # Seconds of the processor, which do not depend on what else the machine does
    cpu=$({ time "$collimate" --quiet "$recipe" --config "$config" --output_dir "$run" --overwrite_output_dir true \
        --seed "$seed" --threads "$threads" --report_to none 2>&3; } 2>&1)
    echo "$task $recipe seed $seed: $(measure "$run"), $cpu s of processor time"
done
