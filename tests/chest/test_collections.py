"""Tables and folders of the three kinds of collections, and what is wrong with some."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.chest.dicoms import content, dataset, stored
from tf_simclr.chest.collections import nih, siim, tables
from tf_simclr.chest.files.squares import pseudonym
from tf_simclr.errors import InputError

STUDIES = "id,Negative for Pneumonia,Typical Appearance,Indeterminate Appearance,Atypical Appearance\n"
IMAGES = "id,boxes,label,StudyInstanceUID\n"
BOX = "\"[{'x': 1.0, 'y': 2.0, 'width': 3.0, 'height': 4.0}]\""


def touch(path, content: str = ""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.fixture
def siim_folder(tmp_path):
    """Two studies; the first has two images, of which one has a box."""
    for study, image in (("s1", "a"), ("s1", "b"), ("s2", "c")):
        touch(tmp_path / "train" / study / "series" / f"{image}.dcm")
    touch(tmp_path / "train_study_level.csv", STUDIES + "s1_study,0,1,0,0\ns2_study,1,0,0,0\n")
    rows = f'a_image,{BOX},opacity 1 1 2 3 4,s1\nb_image,"",none 1 0 0 1 1,s1\nc_image,"",none 1 0 0 1 1,s2\n'
    touch(tmp_path / "train_image_level.csv", IMAGES + rows)
    return tmp_path


def test_siims_images_have_their_studys_label(siim_folder):
    found = {e.image: e for e in siim.collection(siim_folder).entries}
    assert {name: (e.labels, e.study, e.boxes) for name, e in found.items()} == {
        "a": ((0, 1, 0, 0), "s1", 1),
        "b": ((0, 1, 0, 0), "s1", 0),
        "c": ((1, 0, 0, 0), "s2", 0),
    }
    assert found["a"].path == siim_folder / "train/s1/series/a.dcm"


def test_boxless_siblings_can_be_left_out(siim_folder):
    assert [e.image for e in siim.collection(siim_folder, boxless_siblings=False).entries] == ["a", "c"]


def test_rows_without_files_and_files_without_rows_are_told(siim_folder):
    (siim_folder / "train/s2/series/c.dcm").rename(siim_folder / "train/s2/series/d.dcm")
    assert siim.collection(siim_folder).problems == (
        "a row of train_image_level.csv has no file: c",
        "a file has no row in train_image_level.csv: d",
    )


@pytest.mark.parametrize(
    ("table", "content", "reason"),
    [
        ("train_study_level.csv", "id,Typical Appearance\ns1_study,1\n", r"must have the columns.*Negative for Pneum"),
        ("train_study_level.csv", STUDIES + "s1_study,0,yes,0,0\n", r"a label must be 0 or 1, .*line 2.*'yes'"),
        ("train_study_level.csv", STUDIES + "s1_study,1,1,0,0\n", r"a study must have one appearance, .*line 2"),
        ("train_study_level.csv", STUDIES + "s1_study,0,1,0\n", r"must have 5 cells.*uneven_lines=\[2\]"),
        ("train_study_level.csv", STUDIES + "s1_study,0,1,0,0\n", r"each study .* must be in .*study='s2'"),
        ("train_image_level.csv", IMAGES + "a_image,__import__('os'),x,s1\n", r"boxes must be a list of dictionaries"),
        ("train_image_level.csv", IMAGES, r"must hold at least one radiograph"),
    ],
)
def test_tables_that_are_not_siims_are_refused(siim_folder, table, content, reason):
    touch(siim_folder / table, content)
    with pytest.raises(InputError, match=reason):
        siim.collection(siim_folder)


@pytest.fixture
def nih_folder(tmp_path):
    touch(tmp_path / "images_001/images/00000001_000.png")
    touch(tmp_path / "images_002/images/00000002_000.png")
    head = "Image Index,Finding Labels,Follow-up #,Patient ID\n"
    rows = "00000001_000.png,Pneumonia|Mass,0,1\n00000002_000.png,No Finding,0,2\n00000003_000.png,Mass,0,3\n"
    touch(tmp_path / "Data_Entry_2017.csv", head + rows)
    return tmp_path


def test_nihs_findings_may_occur_together(nih_folder):
    touch(nih_folder / "train_val_list.txt", "00000001_000.png\n")
    touch(nih_folder / "test_list.txt", "00000002_000.png\n")
    found = nih.collection(nih_folder)
    names = [[found.classes[i] for i in np.flatnonzero(e.labels)] for e in found.entries]
    assert names == [["Mass", "Pneumonia"], ["No Finding"]]
    assert [(e.patient, e.split) for e in found.entries] == [("1", "train"), ("2", "test")]
    assert found.problems == ("a row of Data_Entry_2017.csv has no file: 00000003_000.png",)


def test_an_unknown_finding_and_a_double_split_are_refused(nih_folder):
    for name in ("train_val_list.txt", "test_list.txt"):
        touch(nih_folder / name, "00000001_000.png\n")
    with pytest.raises(InputError, match=r"no image may be in .*train_val_list"):
        nih.collection(nih_folder)
    table = nih_folder / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("|Mass", "|Mess"))
    (nih_folder / "test_list.txt").unlink()
    with pytest.raises(InputError, match=r"findings must be among .*line 2. Received: \['Mess'\]"):
        nih.collection(nih_folder)


def test_a_patient_in_two_splits_is_refused(nih_folder, tmp_path):
    table = nih_folder / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("No Finding,0,2", "No Finding,0,1"))
    touch(nih_folder / "train_val_list.txt", "00000001_000.png\n")
    touch(nih_folder / "test_list.txt", "00000002_000.png\n")
    with pytest.raises(
        InputError,
        match=r"no patient of NIH .* in two splits. Received: images=\['00000001_000.png', '00000002_0.*count=1",
    ):
        nih.collection(nih_folder)
    touch(tmp_path / "a.png")
    touch(tmp_path / "b.png")
    touch(tmp_path / "own.csv", "path,label,patient,split\na.png,sick,p1,train\nb.png,well,p1,test\n")
    with pytest.raises(InputError, match=r"no patient of own\.csv may be in two splits"):
        tables.from_csv(tmp_path / "own.csv")


def test_tables_without_their_columns_or_their_file_are_refused(nih_folder, tmp_path):
    touch(nih_folder / "Data_Entry_2017.csv", "Image Index,Patient ID\n00000001_000.png,1\n")
    with pytest.raises(InputError, match=r"Data_Entry_2017\.csv must have the columns .*missing=\['Finding Labels'\]"):
        nih.collection(nih_folder)
    touch(tmp_path / "own.csv", "file,label,patient\na.png,sick,p1\n")
    with pytest.raises(InputError, match=r"own\.csv must have the columns .*missing=\['path'\]"):
        tables.from_csv(tmp_path / "own.csv")
    with pytest.raises(InputError, match=r"must be a readable csv file, .*No such file"):
        tables.from_csv(tmp_path / "none.csv")
    touch(tmp_path / "own.csv", "path,label,patient\na.png,sick,p1\n")
    with pytest.raises(InputError, match="must hold at least one radiograph"):
        tables.from_csv(tmp_path / "own.csv")


def test_a_table_of_ones_own(tmp_path):
    for name in ("a.png", "sub/b.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name)
    touch(tmp_path / "own.csv", "path,label,patient\na.png,sick,p1\nsub/b.png,well|odd,p2\nc.png,sick,p3\n")
    found = tables.from_csv(tmp_path / "own.csv")
    assert found.classes == ("odd", "sick", "well")
    assert [(e.image, e.labels, e.patient) for e in found.entries] == [
        ("a.png", (0, 1, 0), "p1"),
        ("sub/b.png", (1, 0, 1), "p2"),
    ]
    assert found.problems == ("a row has no file: c.png",)
    touch(tmp_path / "own.csv", "path,label,patient\na.png,,p1\n")
    with pytest.raises(InputError, match=r"a file, a label and a patient.*empty_lines=\[2\]"):
        tables.from_csv(tmp_path / "own.csv")


def test_a_folder_of_class_folders(tmp_path):
    for name in ("sick/1.png", "sick/2.dcm", "well/3.jpg"):
        touch(tmp_path / name)
    found = tables.from_folder(tmp_path)
    assert found.classes == ("sick", "well")
    assert {e.image: (e.labels, e.patient) for e in found.entries} == {
        "sick/1.png": ((1, 0), ""),
        "sick/2.dcm": ((1, 0), ""),
        "well/3.jpg": ((0, 1), ""),
    }


def test_names_that_are_no_utf_8_are_told_apart(tmp_path):
    """They were a traceback when their pseudonyms were made."""
    raw = os.fsencode(tmp_path)
    for name in (b"roh\xff/1\xfe.png", "日本/1.png".encode()):
        touch(Path(os.fsdecode(raw + b"/" + name)))
    found = tables.from_folder(tmp_path)
    assert found.classes == ("roh\\xff", "日本")
    assert [pseudonym(one.image, salt="x") != "" for one in found.entries] == [True, True]
    assert [one.path.is_file() for one in found.entries] == [True, True]


TABLE = [
    ["path", "label", "patient", "Patient Age"],
    [" ./img/0.png ", "sick ", "p1", "47"],
    ["img\\1", "wéll", "p2", ""],
]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("excels", [True, False])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_tables_are_read_as_spreadsheets_leave_them(tmp_path, separator, excels, encoding, end):
    (tmp_path / "img").mkdir()
    for name in ("0.png", "1.png"):
        Image.new("L", (4, 4)).save(tmp_path / "img" / name)
    lines = [separator.join(row) for row in TABLE]
    text = end.join(
        [f"sep={separator}"] * excels + [lines[0], "", lines[1], separator * 3, lines[2] + separator, "", ""]
    )
    (tmp_path / "own.csv").write_bytes(text.encode(encoding))
    found = tables.from_csv(tmp_path / "own.csv")
    assert [(e.image, e.patient, dict(e.attributes)) for e in found.entries] == [
        ("img/0.png", "p1", {"age": "47"}),
        ("img/1", "p2", {}),
    ]
    assert found.classes == ("sick", "wéll")
    assert not found.problems


def test_classes_that_only_capitals_tell_apart_are_one_class_misspelt(tmp_path):
    for name in "abc":
        Image.new("L", (4, 4)).save(tmp_path / f"{name}.png")
    touch(tmp_path / "own.csv", "path,label,patient\na.png,Sick,1\nb.png,sick,2\nc.png,well,3\n")
    with pytest.raises(InputError, match=r"more than capitals and spaces.*\['Sick', 'sick'\]"):
        tables.from_csv(tmp_path / "own.csv")


def test_a_column_that_pandas_wrote_without_a_name_is_passed_over(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "0.png")
    touch(tmp_path / "own.csv", ",Path,LABEL,patient\n0,0.png,sick,p1\n")
    assert [e.image for e in tables.from_csv(tmp_path / "own.csv").entries] == ["0.png"]


def test_parts_of_a_table_have_the_fields_own_names(tmp_path):
    for name in "abc":
        Image.new("L", (4, 4)).save(tmp_path / f"{name}.png")
    rows = "a.png,x,1,Train\nb.png,x,2,VAL\nc.png,y,3,Testing\n"
    touch(tmp_path / "own.csv", "path,label,patient,Split\n" + rows)
    assert [e.split for e in tables.from_csv(tmp_path / "own.csv").entries] == ["train", "validation", "test"]
    touch(tmp_path / "own.csv", "path,label,patient,Split\n" + rows.replace("VAL", "fold 2"))
    with pytest.raises(InputError, match=r"a split must be one of .* line 3"):
        tables.from_csv(tmp_path / "own.csv")


def test_kaggles_sample_of_nih_is_read_with_what_its_table_says(tmp_path):
    head = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    head += "OriginalImageWidth,OriginalImageHeight,OriginalImagePixelSpacing_x,OriginalImagePixelSpacing_y\n"
    row = "00000013_005.png,Emphysema|Infiltration,5,13,060Y,M,AP,3056,2544,0.139,0.139\n"
    for folder in (tmp_path, tmp_path / "sample"):  # Kaggle's archive has it twice
        touch(folder / "sample_labels.csv", head + row)
        touch(folder / "images" / "00000013_005.png")
    found = nih.collection(tmp_path)
    assert len(found.entries) == 1
    assert found.entries[0].attributes == {"sex": "M", "age": "060Y", "view": "AP"}
    touch(tmp_path / "sample" / "images" / "00000013_005.png", "another picture")
    with pytest.raises(InputError, match="must differ"):
        nih.collection(tmp_path)


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "JPG"])
def test_nih_and_siim_that_others_resized_are_found_by_their_names(nih_folder, siim_folder, ending):
    for path in [*nih_folder.rglob("0000*.png"), *siim_folder.rglob("*.dcm")]:
        path.rename(path.with_suffix(f".{ending}"))
    assert len(nih.collection(nih_folder).entries) == 2
    found = siim.collection(siim_folder)
    assert {e.image: e.patient for e in found.entries} == {"a": "s1", "b": "s1", "c": "s2"}
    assert found.problems == ("3 images are no DICOM and name no patient; their study stands for it",)


def test_files_without_an_ending_and_of_one_name_in_each_patients_folder_are_files(tmp_path):
    whole = content(dataset(stored(12), bits=12))
    for place in (
        "sick/p1/IM0001.dcm",
        "sick/p2/IM0001.dcm",
        "sick/p2/IM0002",
        "well/p3/1.2.840.113.5",
        "well/DICOMDIR",
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(whole)
    touch(tmp_path / "sick/p1/notes.txt", "no radiograph")
    touch(tmp_path / "sick/p1/LICENSE", "nor is this")
    found = tables.from_folder(tmp_path)
    assert [e.image for e in found.entries] == [
        "sick/p1/IM0001.dcm",
        "sick/p2/IM0001.dcm",
        "sick/p2/IM0002",
        "well/p3/1.2.840.113.5",
    ]
    assert {e.patient for e in found.entries[:2]} == {""}  # the DICOMs know


def test_folders_below_a_class_are_the_patients_of_pictures(tmp_path):
    for place in ("sick/p1/0.png", "sick/p1/1.png", "well/p2/0.png", "well/p1/2.png"):
        touch(tmp_path / place)
    assert [e.patient for e in tables.from_folder(tmp_path).entries] == ["p1", "p1", "p1", "p2"]
