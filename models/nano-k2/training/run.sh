#!/usr/bin/env bash
# The whole of a run, from a corpus to measured weights, on all GPUs of one machine.
#
#   CORPUS=... MODEL=... WORK=... bash run.sh prepare pilots full measure
#   CORPUS=... MODEL=... WORK=... RUN=second TRAIN_UNTIL=1120 bash run.sh prepare second measure     goes on from MODEL's weights
#
# TRAIN_UNTIL: the full or second run ends so many seconds after this script began, its export and losses included. PILOT_STEPS: steps of each compared run.
# Set DEVICE=cpu BATCH=512 FULL_STEPS=4 PILOT_STEPS=4 to try all of it on a laptop with a small config.json.
set -uo pipefail
cd "$(dirname "$0")"
PYTHON=${PYTHON:-python3}
DEVICE=${DEVICE:-cuda}
BATCH=${BATCH:-65536}
TRAIN_UNTIL=${TRAIN_UNTIL:-1380}
PILOT_STEPS=${PILOT_STEPS:-400}
FULL_STEPS=${FULL_STEPS:-0}
FILES=${FILES:-1000}
SIZE=${SIZE:-2000000}
COUNT=${COUNT:-300}
RUN=${RUN:-full}
CORES=$(nproc)
GPUS=1
COMPILE=
if [ "$DEVICE" = cuda ]; then
  GPUS=$(nvidia-smi -L | wc -l)
  COMPILE=--compile
fi
export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false
mkdir -p "$WORK"
say() { echo "[$SECONDS s] $*"; }

prepare() {
  local most=$((CORES > 4 ? CORES * 3 / 4 : 1))
  $PYTHON conversations.py --corpus "$CORPUS" --model "$MODEL" --out "$WORK/held-out" --files 4 --size "${TEST_SIZE:-125000}" --workers "$((most > 4 ? 4 : most))" --seed 9 --test
  local stage=first seed=1
  [ "$RUN" = second ] && stage=second seed=2
  setsid $PYTHON conversations.py --corpus "$CORPUS" --model "$MODEL" --out "$WORK/conversations" --stage $stage --seed $seed --files "$FILES" --size "$SIZE" --workers "$most" >"$WORK/conversations.log" 2>&1 &
  echo $! >"$WORK/generator.pid"
  $PYTHON batches.py --corpus "$CORPUS" --model "$MODEL" --out "$WORK/text.npz" --workers "$most" || exit 1
}

pilot() { # name gpu arguments...
  local name=$1 gpu=$2
  shift 2
  CUDA_VISIBLE_DEVICES=$gpu $PYTHON train.py --text "$WORK/text.npz" --conversations "$WORK/conversations" --held-out "$WORK/held-out" --model "$MODEL" \
    --work "$WORK/pilot-$name" --steps "$PILOT_STEPS" --batch "$BATCH" --device "$DEVICE" $COMPILE "$@" >"$WORK/pilot-$name.log" 2>&1
}

pilots() { # several recipes at equal steps; the learning rate of the full run is the best of Muon's
  pilot muon-0.0025 0 --optimizer muon --lr 2.5e-3 &
  local a=$!
  pilot muon-0.005 $((GPUS - 1)) --optimizer muon --lr 5e-3 &
  local b=$!
  pilot adamw-0.0025 0 --optimizer adamw --lr 2.5e-3 &
  local c=$!
  pilot muon-0.0035 $((GPUS - 1)) --optimizer muon --lr 3.5e-3 &
  wait $a $b $c $!
  rm -f "$WORK"/pilot-*/last.pt
  $PYTHON - "$WORK" <<'EOF'
import json, sys
from pathlib import Path

best = (float("inf"), 2.5e-3)
for path in sorted(Path(sys.argv[1]).glob("pilot-*/log.jsonl")):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    last = [row["loss"] for row in rows if "loss" in row][-1:]
    held = {str(row["int4"]): row["conversation_loss"] for row in rows if "conversation_loss" in row}
    bits = [sum(row["bits_per_byte"].values()) / len(row["bits_per_byte"]) for row in rows if "bits_per_byte" in row][:1]
    print(path.parent.name, "loss", last, "held-out conversations", held, "bits per byte", bits)
    if "muon" in path.parent.name and "True" in held:
        best = min(best, (held["True"], float(path.parent.name.rsplit("-", 1)[1])))
Path(sys.argv[1], "lr").write_text(str(best[1]))
EOF
}

train() { # arguments: into $WORK/$RUN on all GPUs, until TRAIN_UNTIL or for FULL_STEPS
  local limit="--seconds $((TRAIN_UNTIL - SECONDS - 50))"
  [ "$FULL_STEPS" != 0 ] && limit="--steps $FULL_STEPS"
  say "$RUN run: $limit $*, $GPUS GPUs"
  $PYTHON -m torch.distributed.run --nproc-per-node "$GPUS" --master-port 29555 train.py --text "$WORK/text.npz" --conversations "$WORK/conversations" \
    --held-out "$WORK/held-out" --model "$MODEL" --work "$WORK/$RUN" $limit --batch "$BATCH" --device "$DEVICE" $COMPILE "$@" >"$WORK/$RUN.log" 2>&1
  [ -f "$WORK/generator.pid" ] && kill "$(cat "$WORK/generator.pid")" 2>/dev/null
  tail -n 4 "$WORK/$RUN.log" | cut -c1-1500
  cp "$MODEL"/config.json "$MODEL"/generation_config.json "$MODEL"/tiktoken.model "$MODEL"/tokenizer_config.json "$MODEL"/chat_template.jinja "$WORK/$RUN/out/"
}

full() {
  train --lr "${LR:-$(cat "$WORK/lr" 2>/dev/null || echo 2.5e-3)}"
}

second() { # INT4 from the first step on, gates settled before it
  train --resume "$MODEL" --lr "${LR:-2e-3}" --decay-from 0.3 --quantize-from 0 --share 0.9 0.9 --bias-step 2e-3 --settle "${SETTLE:-150}" --seed 2
}

measure() { # the test split on the first GPU; loads and the training split on the last
  (
    export CUDA_VISIBLE_DEVICES=$((GPUS - 1))
    $PYTHON loads.py --model "$WORK/$RUN/out" --corpus "$CORPUS" --out "$WORK/expert_loads.json" --tokens "${LOAD_TOKENS:-400000}" --device "$DEVICE"
    $PYTHON evaluate.py --model "$WORK/$RUN/out" --corpus "$CORPUS" --out "$WORK/training-split.json" --count "$COUNT" --device "$DEVICE" --training-split
  ) >"$WORK/measure.log" 2>&1 &
  local a=$!
  CUDA_VISIBLE_DEVICES=0 $PYTHON evaluate.py --model "$WORK/$RUN/out" --corpus "$CORPUS" --out "$WORK/evaluation.json" --count "$COUNT" --device "$DEVICE"
  wait $a
  cat "$WORK/measure.log"
}

collect() { # into $1: five shards and one archive of everything else
  cp "$WORK/$RUN"/out/*.safetensors "$1"/
  (cd "$WORK" && tar czf "$1/rest.tar.gz" --exclude='*.safetensors' --exclude='last.*' --exclude=text.npz "$RUN" "$RUN.log" \
    $(ls -d pilot-* lr conversations.log evaluation.json training-split.json expert_loads.json measure.log run.log 2>/dev/null))
  ls -la "$1"
}

for stage in "$@"; do
  say "$stage begins"
  case $stage in
    collect:*) collect "${stage#collect:}" ;;
    *) $stage ;;
  esac
  say "$stage done"
done
touch "$WORK/done"
