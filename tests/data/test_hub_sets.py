"""`hf:user/name`: data sets of a hub on loopback, by Hugging Face's own library, in a process of its own."""

import json
import os
import subprocess
import sys

import pytest

from tests import golden, hub
from tests.data import made

pytest.importorskip("datasets", reason="data sets of the hub need the extra `shards`")

PROGRAM = """
import json, sys
from tf_simclr.data.shards.hub import from_hub, splits_of
from tf_simclr.errors import InputError

found = []
for dataset, split in json.loads(sys.argv[1]):
    said = []
    try:
        source = from_hub(dataset, split, say=said.append)
        rows = source.rows
        examples = [[rows.encoded(i).hex(), int(rows.labels[i])] for i in range(len(rows))]
        found.append({"classes": source.class_names, "examples": examples, "said": said})
    except InputError as error:
        found.append({"refused": str(error)})
print(json.dumps([found, splits_of("hf:user/pets")]))
"""


IMPATIENT = "import time\ntime.sleep = lambda seconds: None\n"
"""Hugging Face's library asks a hub that is gone for most of a minute: nothing here hangs on these waits."""


def asked(*wanted, first=""):
    words = [sys.executable, "-c", first + PROGRAM, json.dumps(wanted)]
    done = subprocess.run(words, cwd=golden.ROOT, capture_output=True, text=True, check=False, env=os.environ.copy())
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_data_sets_of_a_hub(tmp_path, monkeypatch):
    examples = made.examples(False)
    files = {"README.md": b"---\nlicense: mit\n---\n# Pets\n"}
    for split, part in (("train", examples[:40]), ("test", examples[40:])):
        made.features_of(part).to_parquet(tmp_path / "one.parquet")
        files[f"data/{split}-00000-of-00001.parquet"] = (tmp_path / "one.parquet").read_bytes()
    monkeypatch.setenv("TF_SIMCLR_CACHE", str(tmp_path / "cache"))
    with hub.hub_on_loopback(monkeypatch, tmp_path, hub.DataSets):
        hub.Hub.repositories["user/pets", "main"] = files
        images = {f"train/{'abc'[label]}/{key}.bmp": image for key, image, label in examples[:6]}
        hub.Hub.repositories["user/folder", "main"] = {"README.md": files["README.md"]} | images
        wanted = ["train", "test", "train[:25%]+test[-2:]", "validation"]
        refused = ["hf:user/dogs", "hf:user/pets:other", "hf:a/b/c"]
        calls = [("hf:user/pets", split) for split in wanted] + [(name, "train") for name in refused]
        more = ("hf:user/folder", "hf:user/pets@main", "hf:user/pets@none", f"hf:user/pets@{hub.Hub.commit[:9]}")
        found, splits = asked(*calls, *((name, "train") for name in more))
    assert splits == ["train", "test"]
    listed = [[image.hex(), label] for _, image, label in examples]
    assert [one["examples"] for one in found[:3]] == [listed[:40], listed[40:], [*listed[:10], *listed[-2:]]]
    assert found[0]["classes"] == ["a", "b", "c"]
    assert "downloading hf:user/pets" in found[0]["said"][0]
    assert not found[1]["said"]
    assert "must be one of train, test, or a part of these" in found[3]["refused"]
    assert ["user/dogs" in found[4]["refused"], "Available: ['default']" in found[5]["refused"]] == [True, True]
    assert "must be hf:USER/NAME" in found[6]["refused"]
    assert sorted(found[7]["examples"]) == sorted(listed[:6]), "a folder of pictures, which are named in its table"
    assert found[7]["classes"] == ["a", "b", "c"]
    assert found[8]["examples"] == found[10]["examples"] == listed[:40]
    assert "hf:user/pets@none cannot be had" in found[9]["refused"], "and not the revision that is kept"
    again, _ = asked(("hf:user/pets", "train"), first=IMPATIENT)  # the hub is gone: it goes by what was downloaded
    assert again[0]["examples"] == listed[:40]
