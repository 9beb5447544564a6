#!/usr/bin/env bash
# The whole programme of a GPU, in under 9 minutes, into one JSON: benchmarks/speed/gpu.sh [FILE] [OPTIONS]
#
# It runs on Python 3.11 or later with torch, torchvision, lightning, torchmetrics, numpy, scipy, Pillow, matplotlib,
# PyYAML, rich and filelock; jsonargparse, torch-fidelity, scikit-learn and wandb are not needed. PYTHON names the
# interpreter, COMMIT the commit where the tree comes without its history.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
file=${1:-docs/records/speed-gpu.json}
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
exec timeout --kill-after 5 535 "${PYTHON:-python3}" -m benchmarks.speed gpu --seconds 440 --json "$file" \
  ${COMMIT:+--commit "$COMMIT"} "${@:2}"
