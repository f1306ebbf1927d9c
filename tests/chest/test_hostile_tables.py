"""Tables and folders as people leave them, in kinds beside those of `test_collections`: none is joined wrong unsaid.

Each is read as a person would, or refused, or what was done is told among the problems.
"""

import itertools

import numpy as np
import pytest
from PIL import Image

from tests.chest.dicoms import content, dataset, stored
from tf_simclr.chest.collections import chexpert, nih, prepare, siim, tables
from tf_simclr.data.radiographs import partition, splits
from tf_simclr.data.radiographs.patients import reconciled
from tf_simclr.data.radiographs.prepared import load
from tf_simclr.errors import InputError

HEAD = "path,label,patient\n"


def touch(path, text: str = ""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def own(folder, text: str, *, files=("a.png", "b.png", "c.png"), **options):
    for name in files:
        touch(folder / name, name)
    (folder / "own.csv").write_text(text)
    return tables.from_csv(folder / "own.csv", **options)


# --- files --------------------------------------------------------------------------------------------------------


def test_one_file_by_two_names_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"each file of own\.csv must be listed once.*line 2', 'own\.csv, line 3'"):
        own(tmp_path, HEAD + "a,x,1\na.png,y,2\nb.png,x,3\n")


def test_a_name_of_two_files_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"must stand for one file, own\.csv, line 2.*endings=\['\.dcm', '\.png'\]"):
        own(tmp_path, HEAD + "a,x,1\nb.png,y,2\n", files=("a.dcm", "a.png", "b.png"))


def test_names_with_accents_are_found_however_the_disk_writes_them(tmp_path):
    found = own(tmp_path, HEAD + "é.png,x,1\ne\u0301b.png,y,2\n", files=("e\u0301.png", "éb.png"))
    assert [entry.path.name for entry in found.entries] == ["e\u0301.png", "éb.png"]


@pytest.mark.parametrize("path", ["A.PNG", "https://x.org/a.png", "file:///a.png", ".", "a.jpg", "x/a.png"])
def test_a_path_that_is_none_is_told(tmp_path, path):
    found = own(tmp_path, HEAD + f"{path},x,1\nb.png,y,2\n")
    assert len(found.entries) == 1
    assert found.problems[0].startswith("a row has no file: ")


# --- cells --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("one", "other"), [("1", "1.0"), ("01", "1"), ("sick", "SICK"), ("no disease", "NoDisease")])
def test_classes_that_are_one_to_a_person_are_refused(tmp_path, one, other):
    with pytest.raises(InputError, match="must differ by more than capitals and spaces"):
        own(tmp_path, HEAD + f"a.png,{one},1\nb.png,{other},2\n")
    for name in (one, other):
        touch(tmp_path / "folder" / name / "0.png")
    with pytest.raises(InputError, match="must differ by more than capitals and spaces"):
        tables.from_folder(tmp_path / "folder")


@pytest.mark.parametrize("other", ["sick\u200b", "\ufeffsick", "sick\xa0", "\u200esick", " sick\t"])
def test_what_nobody_sees_in_a_cell_is_not_there(tmp_path, other):
    assert own(tmp_path, HEAD + f"a.png,sick,1\nb.png,{other},2\n").classes == ("sick",)


def test_letters_and_their_accents_are_one(tmp_path):
    assert own(tmp_path, HEAD + "a.png,wéll,1\nb.png,we\u0301ll,2\n").classes == ("wéll",)


@pytest.mark.parametrize("empty", ["nan", "NaN", "NA", "n/a", "#N/A", "<NA>", "NULL", " "])
@pytest.mark.parametrize("column", ["label", "patient"])
def test_an_empty_cells_many_names(tmp_path, empty, column):
    row = {"path": "a.png", "label": "x", "patient": "1"} | {column: empty}
    with pytest.raises(InputError, match=r"must have a file, a label and a patient.*\[3\]"):
        own(tmp_path, HEAD + "b.png,y,2\n" + ",".join(row.values()) + "\n")


def test_lines_are_counted_as_an_editor_does(tmp_path):
    with pytest.raises(InputError, match=r"empty_lines=\[5\]"):
        own(tmp_path, 'path,label,patient,note\na.png,x,1,"two\nlines"\n\nb.png,,2,\n')


@pytest.mark.parametrize(
    ("one", "other"),
    [("P1", "p1"), ("1", "1.0"), ("1", '"1,0"'), ("007", "7"), ("'007", "7"), ('"=""007"""', "7"), ("A 1", "a1")],
)
def test_patients_that_are_one_to_a_person_are_one(tmp_path, one, other):
    rows = "path,label,patient,split\na.png,x,{one},train\nb.png,y,{other},{part}\nc.png,x,another,test\n"
    found = own(tmp_path, rows.format(one=one, other=other, part="train"))
    assert len({entry.patient for entry in found.entries}) == 2
    with pytest.raises(InputError, match="may be in two splits"):
        own(tmp_path, rows.format(one=one, other=other, part="test"))


def test_patients_whose_digits_a_spreadsheet_has_thrown_away_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"must have all of their digits.*shortened_lines=\[2\]"):
        own(tmp_path, HEAD + "a.png,x,1.23E+11\nb.png,y,2\n")
    assert len(own(tmp_path, HEAD + "a.png,x,4e12\nb.png,y,5e12\n").entries) == 2  # a pseudonym may look so


@pytest.mark.parametrize(
    ("one", "other"), [("P1", "P10"), ("10", "1"), ("1.5", "1"), ("0", "00a"), ("a-1", "a1"), ("1", '"1,000"')]
)
def test_patients_that_differ_stay_apart(tmp_path, one, other):
    found = own(tmp_path, HEAD + f"a.png,x,{one}\nb.png,y,{other}\n")
    assert len({entry.patient for entry in found.entries}) == 2
    assert found.problems == ()


def test_findings_may_have_a_comma_where_others_have_a_point(tmp_path):
    text = "path;A;B;patient\na.png;1,0;0,00;1\nb.png;-1,0;;2\nc.png;0.0;1;3\n"
    assert [entry.labels for entry in own(tmp_path, text, label=["A", "B"]).entries] == [(1, 0), (-1, -2), (0, 1)]
    for word in ("yes", "True", "ja", "0,5", "10,0"):
        with pytest.raises(InputError, match=r"a label must be 1, 0, -1 or empty, A in .*line 2"):
            own(tmp_path, f"path;A;patient\na.png;{word};1\n", label=["A"])


def test_the_head_again_is_no_row(tmp_path):
    found = own(tmp_path, HEAD + "a.png,x,1\n" + HEAD.title() + "b.png,y,2\n")
    assert (len(found.entries), found.problems, found.classes) == (2, (), ("x", "y"))


def test_two_columns_of_one_name_must_be_one(tmp_path):
    head, same = "path,label,patient,{name},{name}\n", "a.png,x,1,{one},{one}\nb.png,y,2,{two},{two}\n"
    for name, one, two in (("label", "x", "y"), ("sex", "F", "M"), ("split", "train", "test")):
        assert len(own(tmp_path, head.format(name="sex") + same.format(one=one, two=two)).entries) == 2
        with pytest.raises(InputError, match=rf"must have each column once.*{name}"):
            own(tmp_path, head.format(name=name) + f"a.png,x,1,{one},{two}\nb.png,y,2,{two},{two}\n")


@pytest.mark.parametrize("start", [b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"])
def test_a_workbook_is_said_to_be_one(tmp_path, start):
    (tmp_path / "own.csv").write_bytes(start + bytes(100))
    with pytest.raises(InputError, match=r"own\.csv must be a csv file, and is a workbook; save it as csv"):
        tables.from_csv(tmp_path / "own.csv")


def test_a_class_of_rows_without_files_is_none(tmp_path):
    found = own(tmp_path, HEAD + "none.png,z,1\na.png,x,1\nb.png,y,2\n")
    assert found.classes == ("x", "y")
    assert found.problems == ("a row has no file: none.png",)


def test_nothing_said_of_a_patient_is_nothing(tmp_path):
    text = "path,label,patient,sex,view,age\na.png,x,1,nan,NA,n/a\nb.png,y,2,F,PA,60\n"
    found = own(tmp_path, text)
    assert [dict(entry.attributes) for entry in found.entries] == [{}, {"sex": "F", "view": "PA", "age": "60"}]


def test_a_file_without_its_ending_may_have_one_in_capitals(tmp_path):
    found = own(tmp_path, HEAD + "a,x,1\nb,y,2\n", files=("a.PNG", "b.DCM"))
    assert [entry.path.name for entry in found.entries] == ["a.PNG", "b.DCM"]


LEAKS = {
    "no file is there": HEAD + "C:\\Doe_Jane: 1\\a.png,x,Doe^Jane\n",
    "listed twice": HEAD + "Doe_Jane.png,x,Doe^Jane\nDoe_Jane.png,y,Doe^Jane\n",
    "a file twice": HEAD + "Doe_Jane.png,x,Doe^Jane\nDoe_Jane,y,Doe^Jane\n",
    "two files": HEAD + "Doe_Jane2,x,Doe^Jane\n",
    "in two parts": "path,label,patient,split\nDoe_Jane.png,x,Doe^Jane,train\na.png,y,Doe^Jane,test\n",
    "no head": "Doe_Jane.png,x,Doe^Jane\na.png,y,Doe^Jane\n",
    "a part that is none": "path,label,patient,split\nDoe_Jane.png,x,Doe^Jane,train\na.png,y,Doe^Jane,rest\n",
    "no label": HEAD + "Doe_Jane.png,,Doe^Jane\n",
    "cells that are missing": HEAD + "Doe_Jane.png,x\n",
    "digits that are missing": HEAD + "Doe_Jane.png,x,1.2E+9\n",
}


@pytest.mark.parametrize("kind", LEAKS)
def test_no_sentence_names_a_patient(tmp_path, kind):
    files = ("Doe_Jane.png", "Doe_Jane2.png", "Doe_Jane2.dcm", "a.png")
    with pytest.raises(InputError) as caught:
        own(tmp_path, LEAKS[kind], files=files)
    assert "Doe" not in str(caught.value)


def test_a_finding_named_twice_is_refused(tmp_path):
    with pytest.raises(InputError, match="must be named once each"):
        own(tmp_path, "path,A,patient\na.png,1,1\n", label=["A", "A"])


# --- splits that come with a collection ---------------------------------------------------------------------------

PARTS = ["train", "val", "test"]


@pytest.mark.parametrize("column", ["split", "SPLIT", "subset", "Partition", "fold", "part", "phase", "set", "usage"])
def test_a_column_of_parts_is_used_whatever_it_is_called(tmp_path, column):
    rows = "".join(f"{name}.png,{'xy'[i % 2]},{i},{part}\n" for i, (name, part) in enumerate(zip("abc", PARTS)))  # noqa: B905
    found = own(tmp_path, f"path,label,patient,{column}\n" + rows)
    assert [entry.split for entry in found.entries] == ["train", "validation", "test"]
    assert bool(found.problems) == (column.lower() != "split")  # said, where it was guessed


@pytest.mark.parametrize("column", ["fold", "CV_folds", "train_test_split", "cohort subset", "test", "Train"])
def test_a_column_of_folds_is_said_to_be_none(tmp_path, column):
    found = own(tmp_path, f"path,label,patient,{column},folder\na.png,x,1,0,u\nb.png,y,2,1,v\nc.png,y,3,2,w\n")
    assert {entry.split for entry in found.entries} == {""}
    assert found.problems == (f"the column {column} does not name parts to train and to test on, and is not used",)


@pytest.mark.parametrize("column", ["is_test", "Is Train", "isval", "in_test_set", "is_validation_split"])
def test_a_column_that_says_who_is_in_a_part_is_refused(tmp_path, column):
    with pytest.raises(InputError, match=rf"must be one column, split.*\['{column}'\]"):
        own(tmp_path, f"path,label,patient,{column}\na.png,x,1,0\nb.png,y,2,1\n")
    text = f"path,label,patient,{column},split,is_smoker\na.png,x,1,0,train,1\nb.png,y,2,1,test,0\n"
    assert [entry.split for entry in own(tmp_path, text).entries] == ["train", "test"]


def test_two_columns_of_parts_that_differ_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"must be the split; call it split.*'one', 'two'"):
        own(tmp_path, "path,label,patient,one,two\na.png,x,1,train,test\nb.png,y,2,test,train\n")


def test_folders_of_parts_hold_folders_of_classes(tmp_path):
    for name in ("train/NORMAL/a", "train/PNEUMONIA/b", "val/NORMAL/c", "test/NORMAL/d", "test/PNEUMONIA/e"):
        touch(tmp_path / f"{name}.png")
    found = tables.from_folder(tmp_path)
    assert found.classes == ("NORMAL", "PNEUMONIA")
    assert [entry.split for entry in found.entries] == ["test", "test", "train", "train", "validation"]
    assert {entry.patient for entry in found.entries} == {""}
    touch(tmp_path / "unlabelled" / "f.png")
    with pytest.raises(InputError, match="must all be classes, or all be parts of a split"):
        tables.from_folder(tmp_path)


def test_a_patients_folder_in_two_parts_is_refused(tmp_path):
    for name in ("train/sick/p1/a", "train/well/p2/b", "test/sick/p1/c", "test/well/p3/d"):
        touch(tmp_path / f"{name}.png")
    with pytest.raises(InputError, match=r"may be in two splits.*\['test/sick', 'train/sick'\]"):
        tables.from_folder(tmp_path)


def test_what_a_folder_holds_beside_radiographs_is_told(tmp_path):
    for name in ("sick/a.png", "well/b.png", "x.png", "sick/c.nii", "sick/d.nii.gz", "well/e.zip", "well/f.tif"):
        touch(tmp_path / name)
    touch(tmp_path / "table.csv")
    touch(tmp_path / ".hidden" / "g.bmp")
    assert tables.from_folder(tmp_path).problems == (
        "radiographs that lie in no class's folder are passed over (1)",
        "files that are no DICOM, PNG or JPEG are passed over (1 .gz, 1 .nii, 1 .tif, 1 .zip)",
    )


def test_what_this_program_wrote_beside_the_classes_is_no_radiograph(tmp_path):
    for name in ("sick/a.png", "well/b.png", "ready/seen.png", "runs/covid/roc.png", "other/c.png"):
        touch(tmp_path / name)
    before = tables.from_folder(tmp_path)
    assert before.classes == ("other", "ready", "runs", "sick", "well")
    for name in ("ready/settings.json", "ready/records-00000-of-00001.tfrecord", "ready.salt", "other/config.json"):
        touch(tmp_path / name, "{}")
    touch(tmp_path / "runs/covid/config.json", '{"command": "chest covid"}')
    found = tables.from_folder(tmp_path)
    assert found.classes == ("other", "sick", "well")  # whose config.json is somebody else's
    assert found.problems == ("folders that this program wrote are passed over (2)",)


# --- public collections -------------------------------------------------------------------------------------------

STUDIES = "id,Negative for Pneumonia,Typical Appearance,Indeterminate Appearance,Atypical Appearance\n"
IMAGES = "id,boxes,label,StudyInstanceUID\n"


def of_siim(folder, studies, images):
    for study, image in (("s1", "a"), ("s2", "b")):
        touch(folder / "train" / study / "series" / f"{image}.dcm", image)
    touch(folder / "train_study_level.csv", STUDIES + studies)
    touch(folder / "train_image_level.csv", IMAGES + images)
    return siim.collection(folder)


def test_a_study_of_two_appearances_and_an_image_of_another_study_are_refused(tmp_path):
    rows = "a_image,,n,s1\nb_image,,n,s2\n"
    with pytest.raises(InputError, match=r"has two, .*line 3.*'s1'"):
        of_siim(tmp_path, "s1_study,0,1,0,0\ns1_study,1,0,0,0\ns2_study,1,0,0,0\n", rows)
    with pytest.raises(InputError, match="must lie in the folder of the study"):
        of_siim(tmp_path, "s1_study,0,1,0,0\ns2_study,1,0,0,0\n", rows.replace("n,s1", "n,s2"))
    assert len(of_siim(tmp_path, "s1_study,0,1,0,0\ns1_study,0,1,0,0\ns2_study,1,0,0,0\n", rows).entries) == 2


ROWS = "00000001_000.png,Mass,0,1\n00000002_000.png,No Finding,0,2\n00000003_000.png,Edema,0,3\n"
TRAIN, TEST = "00000001_000.png\n00000002_000.png\n", "00000003_000.png\n"


def of_nih(folder, rows=ROWS, **lists):
    for number in (1, 2, 3):
        touch(folder / "images" / f"0000000{number}_000.png", str(number))
    touch(folder / "Data_Entry_2017.csv", "Image Index,Finding Labels,Follow-up #,Patient ID\n" + rows)
    for name, text in lists.items():
        touch(folder / name, text)
    return nih.collection(folder)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ({"train_val_list.txt": TRAIN}, {"test_list.txt": TEST}),
        ({"Train_Val_List.TXT": TRAIN}, {"TEST_LIST.txt": TEST}),
        ({"lists/train_val_list.txt": TRAIN}, {"lists/test_list.txt": TEST}),
        ({"train_val_list.txt": TRAIN.replace("\n", ",")}, {"test_list.txt": TEST}),
        ({"train_val_list.txt": "images/" + TRAIN.replace("\n0", "\nimages/0")}, {"test_list.txt": f"images\\{TEST}"}),
        ({"train_val_list.txt": TRAIN.replace(".png", ".PNG")}, {"test_list.txt": TEST.replace(".png", "")}),
    ],
    ids=["plain", "capitals", "a folder", "commas", "paths", "endings"],
)
def test_nihs_lists_are_heard_however_they_are_written(tmp_path, train, test):
    assert [entry.split for entry in of_nih(tmp_path, **train, **test).entries] == ["train", "train", "test"]


@pytest.mark.parametrize("name", ["train_val_list.txt", "test_list.txt"])
def test_a_list_of_other_images_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=f"{name} must name images that are there"):
        of_nih(tmp_path, **{name: "00000009_000.png\n"})


def test_two_lists_that_differ_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"must be one test_list\.txt"):
        of_nih(tmp_path, **{"test_list.txt": TEST, "old/test_list.txt": TRAIN})


def test_nothing_and_something_is_refused_and_a_strangers_file_is_told(tmp_path):
    with pytest.raises(InputError, match=r"No Finding must stand alone, .*line 3"):
        of_nih(tmp_path, ROWS.replace("No Finding", "No Finding|Mass"))
    with pytest.raises(InputError, match="each file of NIH ChestX-ray14 must be listed once"):
        of_nih(tmp_path, ROWS + "00000001_000.jpg,Edema,0,1\n")
    found = of_nih(tmp_path, ROWS.replace("Mass,0,1", "Mass,0,7"))
    assert found.problems == ("a row's patient is not the one that its file is named after: 00000001_000.png",)


def test_chexperts_paths_are_never_found_by_their_last_folders_alone(tmp_path):
    names = ",".join(chexpert._OBSERVATIONS)
    row = "CheXpert-v1.0/train/patient{}/study1/view1_frontal.jpg,M,60," + "1," * 13 + "0\n"
    touch(tmp_path / "train.csv", f"Path,Sex,Age,{names}\n" + row.format(1) + row.format(2))
    touch(tmp_path / "train" / "patient1" / "study1" / "view1_frontal.jpg")
    touch(tmp_path / "study1" / "view1_frontal.jpg")
    touch(tmp_path / "view1_frontal.jpg")
    found = chexpert.collection(tmp_path)
    assert [entry.patient for entry in found.entries] == ["patient1"]
    assert found.problems == ("a row has no file: CheXpert-v1.0/train/patient2/study1/view1_frontal.jpg",)


# --- patients of the table, patients of the files -----------------------------------------------------------------


@pytest.mark.parametrize("seed", range(30))
def test_no_two_images_of_a_patient_by_either_word_are_parted(seed):
    """Random tables and headers, each with errors and gaps: what either gives to one patient is never in two parts."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 40, 120)
    table, files = ([f"{of}{n}" for n in true] for of in "tf")
    for names in (table, files):
        for i in rng.integers(0, 120, rng.integers(0, 12)):
            names[i] = rng.choice(["", names[int(rng.integers(120))]])  # a gap, or another's
    images = [f"image{i}" for i in range(120)]
    patients, _ = reconciled(table, files, images=images)
    parts = splits.by_patient(
        list(patients), {"train": 0.7, "test": 0.3}, labels=rng.integers(0, 2, 120), seed=int(seed)
    )
    where = {int(row): name for name, rows in parts.items() for row in rows}
    assert sorted(where) == list(range(120))
    for one, other in itertools.combinations(range(120), 2):
        if any(names[one] and names[one] == names[other] for names in (table, files)):
            assert where[one] == where[other]


def test_a_given_split_that_the_files_contradict_is_refused(tmp_path):
    """The table has four patients in two parts; by their headers two of them, one in each part, are one."""
    rows = []
    for i, patient in enumerate(["H1", "H2", "H1", "H3"]):
        data = dataset(stored(12, shape=(32, 32)), bits=12, PatientID=patient)
        (tmp_path / f"{i}.dcm").write_bytes(content(data))
        rows.append(f"{i}.dcm,{'xy'[i % 2]},T{i},{'train' if i < 2 else 'test'}\n")
    (tmp_path / "parted.csv").write_text("path,label,patient,split\n" + "".join(rows))
    prepare.prepare(tables.from_csv(tmp_path / "parted.csv"), tmp_path / "ready", size=16, workers=1)
    with pytest.raises(InputError, match="no patient may be in two parts"):
        partition.parts(load(tmp_path / "ready"), positive="x")


def test_a_placeholder_of_most_files_is_told():
    assert any(
        "placeholder" in line for line in reconciled([""] * 12, ["ANON"] * 9 + list("abc"), images=list("a" * 12))[1]
    )
    _, said = reconciled(list("abcdefghijkl"), [""] * 12, images=list("abcdefghijkl"))
    assert said == ()


def test_pictures_of_a_table_are_prepared_with_what_the_table_says(tmp_path):
    """From the cells to the records: label, part and patient of each image are its own."""
    rng = np.random.default_rng(0)
    rows, known = [], {}
    for i in rng.permutation(12):
        Image.fromarray(np.full((16, 16), 15 * i + 70, np.uint8)).save(tmp_path / f"im{i}.png")
        rows.append(f" ./im{i}.png ;{'xyz'[i % 3]};{i // 2};{PARTS[i // 2 % 3]}\n")
        known[int(i)] = ("xyz"[i % 3], i // 2)
    (tmp_path / "own.csv").write_text("Path;Label;Patient;Subset\n" + "".join(rows), encoding="utf-16")
    prepare.prepare(tables.from_csv(tmp_path / "own.csv"), tmp_path / "ready", size=16, workers=1)
    found = load(tmp_path / "ready")
    grey = [round((float(b) * 255 - 70) / 15) for b in found.attributes["brightness"]]
    assert sorted(grey) == list(range(12))
    for number, labels, patient, part in zip(grey, found.labels, found.patients, found.splits, strict=True):
        assert found.classes[labels.argmax()] == known[number][0]
        assert part == {"val": "validation"}.get(PARTS[known[number][1] % 3], PARTS[known[number][1] % 3])
        same = [other for other, name in zip(grey, found.patients, strict=True) if name == patient]
        assert {known[other][1] for other in same} == {known[number][1]}
