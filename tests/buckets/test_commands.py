"""The whole way through commands with addresses in the place of paths; oracle: the same commands on paths."""

import io
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests import golden
from tests.commands import pictures
from tf_simclr.buckets.mirror import MANIFEST, read_manifest
from tf_simclr.buckets.store import Store

TINY = "--image_size 16 --resnet_depth 18 --train_batch_size 4 --knn_epochs 0 --collapse_images 0 --checkpoint_steps 2"


def run(words: str, environment: dict, code: int = 0) -> subprocess.CompletedProcess:
    """A command in a process of its own, as a user types it."""
    command = [sys.executable, "-m", *words.split()]
    done = subprocess.run(command, cwd=golden.ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    return done


def state_in(address: str, step: int) -> dict[str, np.ndarray]:
    """What the checkpoint of a run in a bucket holds."""
    content, _ = Store(address).read(f"checkpoints/step-{step:08d}.npz")
    with np.load(io.BytesIO(content)) as file:
        return {name: file[name] for name in file.files}


def sent(folder, address: str) -> None:
    store = Store(address)
    for path in folder.rglob("*"):
        if path.is_file():
            store.put(path.relative_to(folder).as_posix(), path)


@pytest.mark.slow
@pytest.mark.parametrize("proxy", ["s3", "gs"], indirect=True)
def test_the_whole_way(proxy, bucket, tmp_path):
    for part in ("train", "test"):
        pictures.write(tmp_path / "pets" / part, per_class=6)
    sent(tmp_path / "pets", f"{bucket}/pets")
    environment = os.environ | {"TF_SIMCLR_CACHE": str(tmp_path / "cache")}
    pretrain = f"tf_simclr pretrain {TINY} --train_steps 40 --image_dir"

    # 1. A training that is stopped in its midst, and goes on on another machine.
    command = [sys.executable, "-m", *pretrain.split(), f"{bucket}/pets", "--model_dir", f"{bucket}/run"]
    with subprocess.Popen(command, cwd=golden.ROOT, env=environment, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 240
        while (found := read_manifest(Store(f"{bucket}/run"))) is None or not any("step" in n for n in found.files):
            assert time.monotonic() < end
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
    assert process.returncode in (143, 0), errors
    shutil.rmtree(tmp_path / "cache")
    again = run(f"{pretrain} {bucket}/pets --model_dir {bucket}/run", environment)
    assert process.returncode == 0 or "resuming after step" in again.stderr
    assert f"{bucket}/run/network.keras" in again.stdout
    assert "cache/buckets/written" not in again.stdout + again.stderr
    found = Store(f"{bucket}/run").find()
    assert {"config.json", "history.csv", "network.keras", "result.json", MANIFEST} <= found.keys()
    assert "lock" not in found

    # 2. The same on paths, from the start: the same weights.
    run(f"{pretrain} {tmp_path}/pets --model_dir {tmp_path}/run", environment)
    there = state_in(f"{bucket}/run", 40)
    with np.load(tmp_path / "run/checkpoints/step-00000040.npz") as here:
        assert [*there] == here.files
        assert all(np.array_equal(there[name], here[name]) for name in here.files)

    # 3. What follows, from and into the bucket.
    out = f"{bucket}/out"
    run(f"tf_simclr linear-eval --checkpoint {bucket}/run --protocol knn --result {out}/probe.json", environment)
    run(f"tf_simclr embed --checkpoint {bucket}/run --out {out}/features.npz", environment)
    run(f"tf_simclr export --checkpoint {bucket}/run --to keras --out {out}/net.keras", environment)
    assert {"probe.json", "features.npz", "net.keras"} <= Store(out).find().keys()
    done = run(f"converters.tf2torch {bucket}/run {tmp_path}/r18.safetensors", environment)
    assert f"{bucket}/run: run folder in keras names, step 40" in done.stdout
    run(f"converters.inspect {out}/net.keras", environment)

    # 4. What cannot be: one sentence, exit code 2.
    done = run(f"tf_simclr embed --checkpoint {proxy.kind}://no-bucket/run --out {tmp_path}/x.npz", environment, 2)
    assert f"{proxy.kind}://no-bucket/run must be in a bucket that is there" in done.stderr
