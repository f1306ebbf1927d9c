"""Every command with addresses wherever it takes a place, on a machine that has nothing; oracle: the same on paths."""

import json
import os
import shutil
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from tests import golden
from tests.buckets.test_commands import run, sent, state_in
from tests.commands import pictures
from tests.commands.test_any_encoder import CODE
from tests.commands.test_shards_to_the_end import KINDS, PLAN, PRETRAIN, SHORT, SPLITS, listed
from tests.data import made
from tf_simclr import cli
from tf_simclr.buckets.store import Store
from tf_simclr.own import named

OWN = "--encoder mynets:tiny_convnext"
STORES = pytest.mark.parametrize("proxy", ["s3", "gs"], indirect=True)


@pytest.fixture
def place(bucket, tmp_path, monkeypatch) -> Path:
    """A working directory with the user's code; pictures, shards, a data set and an encoder lie in the bucket."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", f"{golden.ROOT}{os.pathsep}{tmp_path}")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mynets.py").write_text(CODE)
    for split, count in SPLITS.items():
        folder = pictures.write(tmp_path / "pets" / split, per_class=count, size=16)
        for kind in ("tar", "parquet"):
            (tmp_path / kind).mkdir(exist_ok=True)
            KINDS[kind](tmp_path / kind, split, *listed(folder))
    layers = [keras.layers.Conv2D(8, 4, strides=4), keras.layers.GlobalAveragePooling2D()]
    keras.Sequential([keras.Input((None, None, 3)), *layers]).save(tmp_path / "net.keras")
    for name in ("pets", "tar", "parquet"):
        sent(tmp_path / name, f"{bucket}/{name}")
    sent(tmp_path / "pets", f"{bucket}/sets/pets")
    Store(bucket).put("net.keras", tmp_path / "net.keras")
    options = PLAN["options"] | {"checkpoint": f"{bucket}/run", "image_dir": f"{bucket}/pets"}
    (tmp_path / "plan.json").write_text(json.dumps(PLAN | {"options": options}))
    yield tmp_path
    sys.modules.pop("mynets", None)
    named.imported.clear()


def elsewhere(place: Path) -> None:
    """From now on it is another machine."""
    shutil.rmtree(place / "cache", ignore_errors=True)


@pytest.mark.slow
@STORES
def test_from_pictures_to_exports(proxy, bucket, place, capfd):
    out, kept = f"{bucket}/out", f"--cache_dir {bucket}/kept"
    probe = f"linear-eval --checkpoint {bucket}/run {OWN} --no-untrained {kept} --result {out}"
    train = f"pretrain {PRETRAIN} --eval_split test --image_dir"

    # 1. Trainings: on pictures and on shards, by a folder and by a pattern, they end with the same bits as on a path.
    cli.execute(f"{train} pets --model_dir here")
    with np.load("here/checkpoints/step-00000004.npz") as file:
        here = {name: file[name] for name in file.files}
    shards = f"{bucket}/tar/{{train,test}}-{{000000..000002}}.tar"
    for name, images in (("run", f"{bucket}/pets"), ("tars", shards), ("tables", f"{bucket}/parquet/*.parquet")):
        cli.execute(f"{train} {images} --model_dir {bucket}/{name}")
        there = state_in(f"{bucket}/{name}", 4)
        assert there.keys() == here.keys()
        assert all(np.array_equal(there[key], here[key]) for key in here)
    cli.execute(
        f"pretrain --encoder {bucket}/net.keras --image_size 16 --train_batch_size 8 --proj_out_dim 8 --train_steps 1 "
        f"--knn_epochs 0 --image_dir {bucket}/pets --model_dir {bucket}/other"
    )
    assert json.loads(Store(bucket).read("other/config.json")[0])["encoder"] == f"{bucket}/net.keras"

    # 2. What tests them.  Features are computed once, whichever machine asks; a result has its answers beside it.
    capfd.readouterr()
    cli.execute(f"{probe}/knn.json --protocol knn")
    assert "features of" in capfd.readouterr().err
    elsewhere(place)
    cli.execute(f"{probe}/logistic.json --l2_strengths 2 --figures {out}/figures")
    assert "features of" not in capfd.readouterr().err
    elsewhere(place)
    cli.execute(f"compare {out}/knn.json {out}/logistic.json --figures {out}/compared")
    cli.execute(f"embed --checkpoint {bucket}/run {OWN} --split test --out {out}/features.npz")
    cli.execute(
        f"transfer --checkpoint {bucket}/run {OWN} --image_dir {bucket}/sets --datasets pets --l2_strengths 2 {kept} "
        f"--result {out}/transfer"
    )

    # 3. What goes on from them.  The teacher answers once, too.
    cli.execute(f"finetune --checkpoint {bucket}/run {SHORT} --model_dir {bucket}/tuned")
    capfd.readouterr()
    distill = (
        f"distill --teacher {bucket}/tuned --teacher_encoder mynets:tiny_convnext {SHORT} --self_distillation "
        f"--teacher_views cached --teacher_logits {bucket}/logits.npz --eval_batch_size 8 --model_dir {bucket}"
    )
    cli.execute(f"{distill}/student")
    assert "the teacher answers for 24 images" in capfd.readouterr().err
    elsewhere(place)
    cli.execute(f"{distill}/again")
    assert "the teacher answers" not in capfd.readouterr().err
    first, second = (state_in(f"{bucket}/{name}", 2) for name in ("student", "again"))
    assert all(np.array_equal(first[key], second[key]) for key in first)
    cli.execute(f"sweep --config plan.json {OWN} --model_dir {bucket}/sweep")
    cli.execute(f"export --checkpoint {bucket}/tuned {OWN} --to savedmodel --out {out}/saved --image_dir {bucket}/tar")
    cli.execute(f"prepare-shards --image_dir {bucket}/pets --out {out}/shards --format arrayrecord")
    cli.execute(f"augmentations {bucket}/pets/test/red/red_0.png --out {out}/sheet.png --image_size 16")

    found = set(Store(out).find())
    assert {"knn.json", "knn.npz", "logistic.npz", "features.npz", "transfer/pets.npz", "sheet.png"} <= found
    assert {
        "figures/neighbours.png",
        "compared/confusion_0.png",
        "saved/saved_model.pb",
        "shards/prepared.json",
    } <= found
    assert {"trial-000/result.json", "result.json"} <= set(Store(f"{bucket}/sweep").find())
    assert not [name for name in Store(bucket).find() if name.rpartition("/")[2] == "lock"]
    said = capfd.readouterr()
    assert "cache/buckets/" not in said.out.replace("to /", ""), "people see addresses"


@pytest.mark.slow
def test_radiographs_and_what_is_made_of_them(bucket, place, capfd):
    """The chest's commands, with nothing on this machine but the made-up pictures that they begin with."""
    pytest.importorskip("pydicom", reason="pydicom is not installed (extra `chest`)")
    from tests.chest import test_made_up as walk

    cli.execute(walk.FIRST["ready"])
    for name in ("raw", "ready"):
        sent(place / name, f"{bucket}/{name}")
        shutil.rmtree(place / name)
    lines = walk.FIRST | walk.NEXT | walk.LAST
    places = {*lines, "cache"}
    image = next(name for name in Store(bucket).find() if name.startswith("raw/train") and name.endswith(".dcm"))
    for made_here in ("pre", "findings", "covid", "of_findings", "of_several", "evaluated", "explained"):
        elsewhere(place)
        words = walk.words(lines[made_here], image=f"{bucket}/{image}")
        command = 2 if words[0] == "chest" else 1  # `findings` is a command's name and a place's
        sent_to = [f"{bucket}/{word}" if word in places else word for word in words[command:]]
        cli.execute([*words[:command], *sent_to])
        found = set(Store(f"{bucket}/{made_here}").find())
        assert found, made_here
        assert "lock" not in found
        assert not (place / f"{bucket.partition(':')[0]}:").exists(), "no folder is called s3:"
    assert {"findings.json", "report.html"} <= set(Store(f"{bucket}/findings").find())
    said = capfd.readouterr()
    assert "cache/buckets/" not in said.out
    cli.execute(f"chest prepare {bucket}/raw {bucket}/again --source siim --size 32 --workers 1")
    assert "settings.json" in Store(f"{bucket}/again").find()


@pytest.mark.slow
@STORES
def test_conversions_into_a_bucket(proxy, bucket, place):
    """Container → container, each from and to the bucket; then the official code's command line with addresses."""
    environment = dict(os.environ)
    knobs = "--image_size 16 --resnet_depth 18 --train_batch_size 8 --train_steps 1 --knn_epochs 0"
    cli.execute(f"pretrain {knobs} --image_dir {bucket}/pets --model_dir {bucket}/run")
    done = run(f"converters.tf2torch {bucket}/run {bucket}/w/r18.pth", environment)
    assert f'converters.load_torch("{bucket}/w/r18.pth")' in done.stdout
    run(f"converters.torch2tf {bucket}/w/r18.pth {bucket}/w/tf1", environment)
    run(f"converters.tf2torch {bucket}/w/tf1 {bucket}/w/again.safetensors", environment)
    run(f"converters.verify {bucket}/run {bucket}/w/again.safetensors", environment)
    assert {"r18.pth", "tf1.index", "again.safetensors"} <= set(Store(f"{bucket}/w").find())
    done = run(f"converters.tf2torch {bucket}/run {proxy.kind}://no-bucket/x.pth", environment, 2)
    assert "must be in a bucket that is there" in done.stderr

    if proxy.kind == "s3":  # of gs:// TensorFlow itself reads data sets, and knows no emulator
        sent(made.write_tfds(place / "tfds", count=24), f"{bucket}/tfds")
        official = (
            "tf_simclr.run --train_batch_size=8 --train_steps=2 --image_size=16 --resnet_depth=18 --dataset=made "
        )
        official += f"--eval_split=train --eval_batch_size=8 --use_tpu=False --data_dir={bucket}/tfds"
        run(f"{official} --mode=train_then_eval --model_dir={bucket}/official", environment)
        assert {"result_2.json", "flags.json", "saved_model/2/saved_model.pb"} <= set(
            Store(f"{bucket}/official").find()
        )
        elsewhere(place)
        assert "step 2: top-1" in run(f"{official} --mode=eval --model_dir={bucket}/official", environment).stdout
        done = run(f"{official} --mode=eval --model_dir={bucket}/none", environment, 2)
        assert "evaluation waits for new ones on a path alone" in done.stderr
