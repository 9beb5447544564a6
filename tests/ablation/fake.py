"""Stands for ``ganzoo fit``: ``python fake.py FOLDER HOW VALUE [SECONDS]`` writes a table and ends as it is told to.

On SIGTERM it saves and ends with 143, as a run does.
"""

import os
import signal
import sys
import time
from pathlib import Path


def save_and_stop(number: int, frame: object) -> None:
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / "last.ckpt").write_text("saved")
    sys.exit(128 + number)


folder, how, value = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
signal.signal(signal.SIGTERM, save_and_stop)
folder.mkdir(parents=True, exist_ok=True)
(folder / "config.yaml").write_text("")
(folder / "metrics.csv").write_text(f"progress/kimg,progress/images,toy/modes,time/seconds\n1.0,1000,{value},2.5\n")
(folder / "facts").write_text(f"{os.environ.get('OMP_NUM_THREADS')} {time.monotonic()} ")
time.sleep(float(sys.argv[4]) if len(sys.argv) > 4 else 0.0)
with open(folder / "facts", "a") as file:
    file.write(str(time.monotonic()))
if how == "diverge":
    print("error: loss/d is not finite since turn 7 of its player, before 1 kimg: lower the learning rate.")
    sys.exit(1)
if how == "fail":
    print("error: the disk is full.")
    sys.exit(1)
if how == "crash":
    raise ZeroDivisionError("a bug")
if how == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
