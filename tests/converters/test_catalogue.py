"""The official checkpoints: what is said of them, and their way from a bucket to a converted file."""

import json
import math
import os
import socket
import sys

import numpy as np
import pytest

from converters.names.walk import weights
from converters.published import bucket as buckets
from converters.published import catalogue as official
from converters.published import download
from converters.published.download import fetch
from tests import golden
from tests.bucket import Bucket, serving
from tf_simclr import cli
from tf_simclr.commands.checkpoints import table
from tf_simclr.errors import InputError
from tf_simclr.models.architecture import Architecture

FOLDER = "simclr-checkpoints/simclrv2/pretrained/r50_1x_sk0"
ADDRESS = f"gs://{FOLDER}"
NAMES = ("checkpoint", "graph.pbtxt", "model.ckpt-7.data-00000-of-00001", "model.ckpt-7.index")


def contents(size: int = 100_000) -> dict[str, bytes]:
    """A folder as the official ones are, the hub module in it, too."""
    rng = np.random.default_rng(0)
    names = (*NAMES, "hub/saved_model.pb", "hub/variables/variables.index")
    return {f"{FOLDER}/{name}": rng.bytes(size + i) for i, name in enumerate(names)}


@pytest.fixture
def bucket(monkeypatch):
    with serving(monkeypatch, Bucket(contents())) as served:
        yield served


def assert_whole(folder, bucket) -> None:
    """The files are there, bit by bit, and no others."""
    assert {path.name for path in folder.iterdir()} == {*NAMES, download.RECORD}
    assert all((folder / name).read_bytes() == bucket.files[f"{FOLDER}/{name}"] for name in NAMES)
    assert not folder.with_name(folder.name + ".part").exists()


def test_there_are_65_checkpoints_of_simclr_v2_with_the_readmes_accuracies():
    trained = [
        one for name, one in official.CHECKPOINTS.items() if name.startswith("simclrv2/") and "distill" not in name
    ]
    assert len(trained) == 65
    row = {one.name.split("/")[1]: one.top1 for one in trained if one.name.endswith("/r152_3x_sk1")}
    one, ten, all_labels = (row[f"finetuned_{share}pct"] for share in (1, 10, 100))
    assert (one, ten, all_labels, row["pretrained"], row["supervised"]) == (74.9, 80.1, 83.1, 79.8, 80.5)
    assert all(40 < one.top1 < 84 for one in trained)


def test_bigger_networks_and_more_labels_are_officially_better():
    """A slip in the table would show: both hold in all of the README's rows."""
    for (depth, width, sk), (one, ten, all_labels, linear, _) in official.V2.items():
        assert one < min(ten, linear)
        assert max(ten, linear) < all_labels
        if not sk and width < 3:
            assert np.all(np.less(official.V2[depth, width, False][:4], official.V2[depth, width, True][:4]))


def test_names_are_the_paths_and_addresses_are_in_the_public_buckets():
    for name, one in official.CHECKPOINTS.items():
        assert name == one.name
        assert one.tf2.startswith("gs://simclr-checkpoints-tf2/simclrv")
        assert one.tf1.startswith(("gs://simclr-checkpoints/simclrv", "gs://simclr-gcs/checkpoints/ResNet50_"))
        Architecture(one.depth, one.width, 0.0625 if one.sk else 0.0)
        assert f"r{one.depth}_{one.width}x_sk{int(one.sk)}" in name or "simclrv1" in name
        assert all(buckets.split(address)[1] for address in (one.tf1, one.tf2))


def test_the_sizes_are_those_of_the_architectures():
    for one in official.CHECKPOINTS.values():
        sk_ratio = 0.0625 if one.sk else 0.0
        encoder = Architecture(one.depth, one.width, sk_ratio=sk_ratio, proj_head_mode="none", num_proj_layers=0)
        shapes = {k: shape for k, shape in weights(encoder).items() if "/moving_" not in k}
        assert abs(sum(map(math.prod, shapes.values())) / 1e6 - one.parameters) < 1, one.name
        assert (one.features, one.megabytes) == (encoder.feature_dim, 4 * one.parameters)


def test_what_to_take_is_named_for_five_purposes_and_there():
    assert len(official.ADVICE) == 5
    assert set(official.ADVICE.values()) <= official.CHECKPOINTS.keys()
    lines = table(list(official.CHECKPOINTS.values()))
    row = next(line for line in lines if line.startswith("simclrv2/pretrained/r101_2x_sk1 "))
    assert row.split()[1:] == ["ResNet-101", "2x", "SK", "257", "M", "1,028", "MB", "4096", "0", "79.0", "names"]
    for purpose, name in official.ADVICE.items():
        assert any(purpose in line and line.endswith(name) for line in lines)
    assert all(len(line) <= 132 for line in lines)


def test_what_is_said_to_be_checked_has_a_golden():
    for folder, networks in {"forward": official.COMPARED, "manifests/tf1": official.NAMED}.items():
        ending = "npz" if folder == "forward" else "json"
        for depth, width, sk in networks:
            assert golden.content(f"{folder}/r{depth}_{width}x_sk{int(sk)}.{ending}")


def test_a_checkpoint_arrives_whole_with_its_folder_and_without_the_hub_module(bucket, tmp_path):
    told = []
    assert fetch(ADDRESS, tmp_path / "r50", progress=lambda *bytes: told.append(bytes)) == tmp_path / "r50"
    assert_whole(tmp_path / "r50", bucket)
    total = sum(len(bucket.files[f"{FOLDER}/{name}"]) for name in NAMES)
    assert told == sorted(told)
    assert told[-1] == (total, total)


def test_a_second_call_asks_nobody(bucket, tmp_path, monkeypatch):
    fetch(ADDRESS, tmp_path / "r50")
    monkeypatch.setattr(buckets, "HOST", "http://127.0.0.1:9")
    assert fetch(ADDRESS, tmp_path / "r50") == tmp_path / "r50"


def test_the_listing_is_read_to_its_last_page(bucket, tmp_path):
    bucket.page = 1
    fetch(ADDRESS, tmp_path / "r50")
    assert_whole(tmp_path / "r50", bucket)


def test_a_connection_that_breaks_goes_on_where_it_broke(bucket, tmp_path):
    path = f"{FOLDER}/{NAMES[2]}"
    bucket.cut[path] = [30_000, 0, 20_000]
    fetch(ADDRESS, tmp_path / "r50")
    assert_whole(tmp_path / "r50", bucket)
    asked = [wanted for key, wanted in bucket.asked if key == path]
    assert asked == [None, "bytes=30000-", "bytes=30000-", "bytes=50000-"]


def test_a_download_that_was_given_up_goes_on_in_the_next_call(bucket, tmp_path):
    path = f"{FOLDER}/{NAMES[2]}"
    bucket.cut[path] = [30_000] + [0] * download.TRIES
    with pytest.raises(InputError, match=r"must be reachable, but is not .*; 30,000 of 100,002 bytes of .* are here"):
        fetch(ADDRESS, tmp_path / "r50")
    assert not (tmp_path / "r50").exists()
    bucket.asked.clear()
    fetch(ADDRESS, tmp_path / "r50")
    assert_whole(tmp_path / "r50", bucket)
    assert bucket.asked == [(path, "bytes=30000-"), (f"{FOLDER}/{NAMES[3]}", None)]


def test_a_server_without_ranges_sends_all_again(bucket, tmp_path):
    bucket.ranges = False
    bucket.cut[f"{FOLDER}/{NAMES[2]}"] = [30_000]
    fetch(ADDRESS, tmp_path / "r50")
    assert_whole(tmp_path / "r50", bucket)


def test_a_server_that_is_busy_is_asked_again(bucket, tmp_path):
    bucket.refuse[f"{FOLDER}/{NAMES[1]}"] = [503, 429]
    fetch(ADDRESS, tmp_path / "r50")
    assert_whole(tmp_path / "r50", bucket)


@pytest.mark.parametrize("field", ["md5Hash", "crc32c"])
def test_a_wrong_checksum_is_refused_and_the_file_removed(bucket, tmp_path, field):
    path = f"{FOLDER}/{NAMES[2]}"
    bucket.checksums[path] = {field: "AAAAAA=="}
    with pytest.raises(
        InputError, match=f"must have the {field.removesuffix('Hash')} that the bucket lists, but has not"
    ):
        fetch(ADDRESS, tmp_path / "r50")
    assert not (tmp_path / "r50").exists()
    assert not (tmp_path / "r50.part" / NAMES[2]).exists()
    bucket.checksums.clear()
    fetch(ADDRESS, tmp_path / "r50")
    assert_whole(tmp_path / "r50", bucket)


def test_a_bucket_without_one_of_the_checksums_is_held_to_the_other(bucket, tmp_path):
    path = f"{FOLDER}/{NAMES[2]}"
    bucket.checksums[path] = {"md5Hash": None}
    fetch(ADDRESS, tmp_path / "r50")
    bucket.checksums[path] = {"md5Hash": None, "crc32c": "AAAAAA=="}
    with pytest.raises(InputError, match="must have the crc32c"):
        fetch(ADDRESS, tmp_path / "other")


def test_more_bytes_than_listed_are_refused(bucket, tmp_path):
    bucket.checksums[f"{FOLDER}/{NAMES[2]}"] = {"size": "1000"}
    with pytest.raises(InputError, match=r"must be as long as the bucket says\. Received: bytes=1000"):
        fetch(ADDRESS, tmp_path / "r50")
    assert not (tmp_path / "r50").exists()


def test_a_damaged_part_of_an_earlier_call_is_not_taken(bucket, tmp_path):
    part = tmp_path / "r50.part"
    part.mkdir()
    (part / NAMES[2]).write_bytes(b"x" * 100_002)
    (part / NAMES[3]).write_bytes(b"x" * 200_000)
    fetch(ADDRESS, tmp_path / "r50")
    assert_whole(tmp_path / "r50", bucket)


def test_a_file_that_was_changed_in_the_cache_is_downloaded_again_alone(bucket, tmp_path):
    fetch(ADDRESS, tmp_path / "r50")
    path = tmp_path / "r50" / NAMES[2]
    times = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    bucket.asked.clear()
    fetch(ADDRESS, tmp_path / "r50")
    assert_whole(tmp_path / "r50", bucket)
    assert bucket.asked == [(f"{FOLDER}/{NAMES[2]}", None)]


def test_a_folder_that_holds_another_address_is_not_taken_for_this_one(bucket, tmp_path):
    fetch(ADDRESS, tmp_path / "r50")
    with pytest.raises(InputError, match=r"must hold gs://bucket/other; choose another folder\. Received: it_holds="):
        fetch("gs://bucket/other", tmp_path / "r50")


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"[" * 10_000,
        b"null",
        b'{"files": 1}',
        b'{"files": {}}',
        b'{"files": {"a": {"relative": "../x"}}}',
        b"\xff",
    ],
)
def test_a_record_of_any_content_is_no_proof(bucket, tmp_path, record):
    fetch(ADDRESS, tmp_path / "r50")
    (tmp_path / "r50" / download.RECORD).write_bytes(record)
    fetch(ADDRESS, tmp_path / "r50")
    assert_whole(tmp_path / "r50", bucket)


@pytest.mark.parametrize("key", ["listing", f"{FOLDER}/{NAMES[2]}"])
@pytest.mark.parametrize(
    "to", ["https://127.0.0.1:9/x", "http://elsewhere.invalid/x", "ftp://127.0.0.1/x", "file:///etc/passwd"]
)
def test_a_redirection_to_somebody_else_is_not_followed(bucket, tmp_path, key, to):
    bucket.moved[key] = to
    with pytest.raises(InputError, match=r"must answer itself, but sends to|must be there for everyone"):
        fetch(ADDRESS, tmp_path / "r50")
    assert not (tmp_path / "r50").exists()


def test_a_redirection_of_the_host_to_itself_is_followed(bucket, tmp_path):
    path = f"{FOLDER}/{NAMES[2]}"
    bucket.files["bucket/elsewhere"] = bucket.files[path]
    bucket.moved[path] = f"{buckets.HOST}/bucket/elsewhere"
    fetch(ADDRESS, tmp_path / "r50")
    assert (tmp_path / "r50" / NAMES[2]).read_bytes() == bucket.files[path]


@pytest.mark.parametrize("place", ["r50", "r50.part", f"r50.part/{NAMES[2]}", "r50.part/variables"])
def test_links_in_the_cache_are_not_followed(bucket, tmp_path, place):
    """A folder that others can write to: what the download writes must not land where a link leads."""
    bucket.files[f"{FOLDER}/variables/x"] = b"x" * 1000
    bucket.files[f"{FOLDER}/saved_model.pb"] = b"x"
    for name in NAMES:
        bucket.files.pop(f"{FOLDER}/{name}") if place.endswith("variables") else None
    outside = tmp_path / "outside"
    outside.mkdir()
    victim = outside / "victim"
    victim.write_bytes(b"precious")
    link = tmp_path / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(victim if place.endswith(NAMES[2]) else outside)
    with pytest.raises(InputError, match="no link"):
        fetch(ADDRESS, tmp_path / "r50")
    assert victim.read_bytes() == b"precious"
    assert [path.name for path in outside.iterdir()] == ["victim"]


@pytest.mark.parametrize(
    "answer",
    [
        b"[]",
        b"null",
        b"[" * 100_000,
        b'{"items": [{}]}',
        b'{"items": 3}',
        b'{"items": [{"name": 1, "size": "1"}]}',
        b"\xff",
    ],
)
def test_a_listing_of_any_content_is_one_sentence(bucket, tmp_path, answer):
    bucket.said = answer
    with pytest.raises(InputError) as caught:
        fetch(ADDRESS, tmp_path / "r50")
    assert str(caught.value).isprintable()


def test_a_listing_without_end_ends(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(buckets, "PAGES", 5)
    bucket.said = b'{"nextPageToken": "1", "items": []}'
    with pytest.raises(InputError, match="in at most 5 pages; name a folder in it"):
        fetch(ADDRESS, tmp_path / "r50")


def test_a_file_that_was_lost_is_downloaded_again_alone(bucket, tmp_path):
    fetch(ADDRESS, tmp_path / "r50")
    (tmp_path / "r50" / NAMES[0]).unlink()
    bucket.asked.clear()
    fetch(ADDRESS, tmp_path / "r50")
    assert_whole(tmp_path / "r50", bucket)
    assert bucket.asked == [(f"{FOLDER}/{NAMES[0]}", None)]


@pytest.mark.parametrize("name", ["../../evil", "a/../../evil", "/etc/evil", "a\\..\\evil", "c:evil", "a//b"])
def test_a_name_that_leads_out_of_the_folder_is_refused_before_anything_is_written(bucket, tmp_path, name):
    bucket.files[f"{FOLDER}/{name}"] = b"evil"
    with pytest.raises(InputError, match="must have plain names; nothing was downloaded"):
        fetch(ADDRESS, tmp_path / "r50")
    assert not list(tmp_path.iterdir())
    assert not bucket.asked


@pytest.mark.parametrize("address", ["gs://", "https://x/y", "gs://bucket/../x", "gs://b\\c/x"])
def test_an_address_that_is_none_is_refused(address, tmp_path):
    with pytest.raises(InputError, match="an address must be gs://BUCKET/FOLDER"):
        fetch(address, tmp_path / "x")


def test_an_empty_folder_and_a_folder_of_several_checkpoints_are_refused(bucket, tmp_path):
    with pytest.raises(InputError, match="must hold a file; there is none in the bucket"):
        fetch("gs://simclr-checkpoints/simclrv2/pretrained/r50", tmp_path / "x")
    with pytest.raises(
        InputError, match=r"must be a checkpoint's folder or file\. Received: folders_in_it=\['r50_1x_sk0'\]"
    ):
        fetch("gs://simclr-checkpoints/simclrv2/pretrained", tmp_path / "x")
    assert not bucket.asked


def test_a_single_file_is_downloaded_as_such(bucket, tmp_path):
    bucket.files["simclr-gcs/checkpoints/ResNet50_1x.zip"] = b"zip"
    bucket.files["simclr-gcs/checkpoints/ResNet50_1x.zip.old"] = b"old"
    path = fetch("gs://simclr-gcs/checkpoints/ResNet50_1x.zip", tmp_path / "v1")
    assert path == tmp_path / "v1" / "ResNet50_1x.zip"
    assert path.read_bytes() == b"zip"
    assert fetch("gs://simclr-gcs/checkpoints/ResNet50_1x.zip", tmp_path / "v1") == path


def test_a_saved_model_is_downloaded_with_its_folders(bucket, tmp_path):
    where = "simclr-checkpoints-tf2/simclrv2/pretrained/r50_1x_sk0/saved_model"
    for name in ("saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"):
        bucket.files[f"{where}/{name}"] = name.encode()
    folder = fetch(f"gs://{where}", tmp_path / "tf2")
    assert (folder / "variables" / "variables.index").read_bytes() == b"variables/variables.index"
    assert (folder / "saved_model.pb").read_bytes() == b"saved_model.pb"


@pytest.mark.parametrize(("key", "code"), [("listing", 404), ("listing", 403), (f"{FOLDER}/{NAMES[0]}", 404)])
def test_a_refusal_of_the_server_is_said(bucket, tmp_path, key, code):
    bucket.refuse[key] = [code]
    with pytest.raises(InputError, match=f"must be there for everyone to read. Received: {code}"):
        fetch(ADDRESS, tmp_path / "r50")
    assert not (tmp_path / "r50").exists()


def run(monkeypatch, capfd, *words) -> tuple[int, str, str]:
    """Exit code and what a command wrote."""
    monkeypatch.setattr(sys, "argv", ["tf-simclr", *map(str, words)])
    code = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code
    return code, *capfd.readouterr()


def test_without_a_network_a_command_ends_with_one_sentence(monkeypatch, capfd, tmp_path):
    def cut(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", cut)
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    name = "simclrv2/pretrained/r50_1x_sk0"
    for words in (["get", name], ["convert", name]):
        code, out, err = run(monkeypatch, capfd, "checkpoints", *words, "--cache_dir", tmp_path / "cache")
        assert (code, out) == (2, "")
        assert err == (
            "https://storage.googleapis.com must be reachable, but is not ([Errno -2] Name or service not known); "
            "run the same command again when it is\n"
        )
    assert not list((tmp_path / "cache").glob("*"))


def test_an_unknown_name_is_answered_with_those_that_come_near(monkeypatch, capfd):
    code, out, err = run(monkeypatch, capfd, "checkpoints", "get", "pretrained/r50_2x_sk1")
    assert (code, out) == (2, "")
    assert "such as simclrv2/pretrained/r50_2x_sk1, or" in err
    assert err.endswith("Received: name='pretrained/r50_2x_sk1'\n")


def test_the_list_shows_all_or_those_that_match_or_all_of_one(monkeypatch, capfd):
    code, out, _ = run(monkeypatch, capfd, "checkpoints", "list")
    assert code == 0
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith("simclrv")}
    assert set(lines) == set(official.CHECKPOINTS)
    assert lines["simclrv2/finetuned_10pct/r101_2x_sk1"][1:4] == ["ResNet-101", "2x", "SK"]
    assert lines["simclrv2/finetuned_10pct/r101_2x_sk1"][-3:] == ["1", "78.8", "names"]
    _, out, _ = run(monkeypatch, capfd, "checkpoints", "list", "--match", "pretrained/r152")
    assert sum(line.startswith("simclrv2/pretrained/r152") for line in out.splitlines()) == 5
    _, out, _ = run(monkeypatch, capfd, "checkpoints", "list", "--match", "finetuned_1pct/r50_1x_sk0")
    assert "57.9 % (official, ImageNet)" in out
    assert "gs://simclr-checkpoints-tf2/simclrv2/finetuned_1pct/r50_1x_sk0/saved_model" in out
    code, out, err = run(monkeypatch, capfd, "checkpoints", "list", "--match", "r51")
    assert (code, out) == (2, "")
    assert err == "match must be a part of at least one name. Received: match='r51'\n"


def test_the_list_asks_a_bucket_for_what_no_source_tells(monkeypatch, capfd, bucket):
    bucket.files["simclr-checkpoints/simclrv2/readme.txt"] = b""
    _, out, _ = run(monkeypatch, capfd, "checkpoints", "list", "--remote", "gs://simclr-checkpoints/simclrv2/")
    assert out.splitlines() == [
        "gs://simclr-checkpoints/simclrv2/pretrained/",
        "gs://simclr-checkpoints/simclrv2/readme.txt",
    ]


def test_get_says_where_the_checkpoint_lies_and_how_far_it_is(monkeypatch, capfd, bucket, tmp_path):
    words = ["checkpoints", "get", "simclrv2/pretrained/r50_1x_sk0", "--cache_dir", tmp_path]
    code, out, err = run(monkeypatch, capfd, *words)
    assert code == 0
    assert out == f"{tmp_path / FOLDER}\n"
    assert err.splitlines()[-1] == f"{ADDRESS}: 0.4 of 0.4 MB (100%)"
    assert_whole(tmp_path / FOLDER, bucket)
    assert run(monkeypatch, capfd, *words) == (0, out, "")
    code, _, err = run(monkeypatch, capfd, "checkpoints", "get", ADDRESS, "--tf2", "True", "--cache_dir", tmp_path)
    assert code == 2
    assert "an address needs none" in err


@pytest.fixture
def official_files(tmp_path):
    """A made checkpoint with the official names, shapes and files, as a bucket holds it."""
    from tests.converters import official as made

    def files(folder: str, *, selector: int | None = None) -> dict[str, bytes]:
        made.write_tf1(tmp_path / folder, "r18_1x_sk0_cifar", selector=selector)
        return {f"simclr-checkpoints/{folder}/{p.name}": p.read_bytes() for p in (tmp_path / folder).iterdir()}

    return files


def test_convert_downloads_and_takes_the_catalogues_layer_where_no_graph_tells(
    monkeypatch, capfd, bucket, tmp_path, official_files
):
    bucket.files |= official_files("simclrv2/finetuned_1pct/r50_1x_sk0")
    words = ["simclrv2/finetuned_1pct/r50_1x_sk0", tmp_path / "out.safetensors", "--cache_dir", tmp_path / "cache"]
    code, out, err = run(monkeypatch, capfd, "checkpoints", "convert", *words, "--verify", "False")  # other tests do
    assert code == 0, err
    assert "10 classes on projection layer 1" in out
    assert (tmp_path / "out.safetensors").exists()


@pytest.mark.slow
def test_convert_takes_what_a_stored_graph_tells_and_says_if_the_catalogue_expects_otherwise(
    monkeypatch, capfd, bucket, tmp_path, official_files
):
    bucket.files |= official_files("simclrv2/finetuned_1pct/r50_1x_sk0", selector=2)
    words = ["simclrv2/finetuned_1pct/r50_1x_sk0", tmp_path / "out.pth", "--cache_dir", tmp_path / "cache"]
    code, out, err = run(monkeypatch, capfd, "checkpoints", "convert", *words)
    assert code == 0, err
    assert "10 classes on projection layer 2" in out
    assert "the catalogue expects the classifier on projection layer 1" in err


@pytest.mark.slow
def test_convert_reads_a_zip_of_version_1_without_unpacking_it_into_the_cache(
    monkeypatch, capfd, bucket, tmp_path, official_files
):
    import io
    import zipfile

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in official_files("ResNet50_1x").items():
            archive.writestr(name.removeprefix("simclr-checkpoints/"), content)
    bucket.files["simclr-gcs/checkpoints/ResNet50_1x.zip"] = packed.getvalue()
    words = ["simclrv1/ResNet50_1x", tmp_path / "v1.keras", "--cache_dir", tmp_path / "cache"]
    code, out, err = run(monkeypatch, capfd, "checkpoints", "convert", *words)
    assert code == 0, err
    assert "in a zip" in out
    assert {
        path.name for path in (tmp_path / "cache" / "simclr-gcs" / "checkpoints" / "ResNet50_1x.zip").iterdir()
    } == {
        "ResNet50_1x.zip",
        download.RECORD,
    }


def test_the_record_of_a_download_says_where_it_came_from(bucket, tmp_path):
    fetch(ADDRESS, tmp_path / "r50")
    record = json.loads((tmp_path / "r50" / download.RECORD).read_text())
    assert record["address"] == ADDRESS
    assert set(record["files"]) == set(NAMES)
