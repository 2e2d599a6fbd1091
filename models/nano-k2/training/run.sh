#!/usr/bin/env bash
# The whole of a run, from a corpus to measured weights, on all GPUs of one machine.
#
#   CORPUS=... MODEL=... WORK=... bash run.sh prepare pilots full measure
#
# TRAIN_UNTIL: the full run ends so many seconds after this script began. PILOT_STEPS: steps of each compared run.
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
  local half=$((CORES > 4 ? CORES / 2 : 1))
  $PYTHON conversations.py --corpus "$CORPUS" --model "$MODEL" --out "$WORK/held-out" --files 4 --size "${TEST_SIZE:-125000}" --workers "$((half > 4 ? 4 : half))" --seed 9 --test
  setsid $PYTHON conversations.py --corpus "$CORPUS" --model "$MODEL" --out "$WORK/conversations" --files "$FILES" --size "$SIZE" --workers "$half" >"$WORK/conversations.log" 2>&1 &
  echo $! >"$WORK/generator.pid"
  $PYTHON batches.py --corpus "$CORPUS" --model "$MODEL" --out "$WORK/text.npz" --workers "$half" || exit 1
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

full() {
  local lr limit
  lr=${LR:-$(cat "$WORK/lr" 2>/dev/null || echo 2.5e-3)}
  limit="--seconds $((TRAIN_UNTIL - SECONDS - 50))"
  [ "$FULL_STEPS" != 0 ] && limit="--steps $FULL_STEPS"
  say "full run: $limit, learning rate $lr, $GPUS GPUs"
  $PYTHON -m torch.distributed.run --nproc-per-node "$GPUS" --master-port 29555 train.py --text "$WORK/text.npz" --conversations "$WORK/conversations" \
    --held-out "$WORK/held-out" --model "$MODEL" --work "$WORK/full" $limit --lr "$lr" --batch "$BATCH" --device "$DEVICE" $COMPILE >"$WORK/full.log" 2>&1
  [ -f "$WORK/generator.pid" ] && kill "$(cat "$WORK/generator.pid")" 2>/dev/null
  tail -n 4 "$WORK/full.log" | cut -c1-1500
  cp "$MODEL"/config.json "$MODEL"/generation_config.json "$MODEL"/tiktoken.model "$MODEL"/tokenizer_config.json "$MODEL"/chat_template.jinja "$WORK/full/out/"
}

measure() {
  CUDA_VISIBLE_DEVICES=$((GPUS - 1)) $PYTHON loads.py --model "$WORK/full/out" --corpus "$CORPUS" --out "$WORK/expert_loads.json" --tokens "${LOAD_TOKENS:-400000}" --device "$DEVICE" &
  local a=$!
  CUDA_VISIBLE_DEVICES=0 $PYTHON evaluate.py --model "$WORK/full/out" --corpus "$CORPUS" --out "$WORK/evaluation.json" --count "$COUNT" --device "$DEVICE"
  wait $a
}

collect() { # into $1: five shards and one archive of everything else
  cp "$WORK"/full/out/*.safetensors "$1"/
  (cd "$WORK" && tar czf "$1/rest.tar.gz" --exclude='*.safetensors' --exclude='last.*' --exclude=text.npz full full.log pilot-* lr conversations.log \
    $(ls evaluation.json expert_loads.json run.log 2>/dev/null))
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
