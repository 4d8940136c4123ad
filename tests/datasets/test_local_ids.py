"""The local table of ids: it maps back, it is kept from run to run, and it is for one user only."""

from __future__ import annotations

import csv
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from panecho_embed.core.errors import ArgumentError, ManifestError, MediaError
from panecho_embed.datasets import LocalIds, describe_manifest, is_opaque, local_ids, local_path, located, read_manifest
from panecho_embed.datasets.ids import read_salt
from panecho_embed.datasets.local_ids import carry_over
from tests.datasets.test_folder import SALT, write_dicom


@pytest.fixture
def dicoms(tmp_path):
    folder = tmp_path / "in"
    write_dicom(folder / "DOE^JANE" / "a.dcm")
    write_dicom(folder / "ROE^JOHN" / "b.dcm", patient="MRN-4711", study="1.2.3.999.7")
    return folder


def ids(manifest):
    return [(video.video_id, video.study_id, video.patient_id) for video in manifest.videos]


def test_the_table_is_private_maps_back_and_is_the_same_next_time(dicoms, tmp_path):
    local = tmp_path / "out.h5.ids.csv"
    manifest = read_manifest(dicoms, local=local)
    assert local.stat().st_mode & 0o777 == 0o600
    assert manifest.notes == (
        f"ids are opaque; {local} maps them back, for this machine only (--ids plain keeps ids plain)",
    )
    first, second, *lines = local.read_text().splitlines()
    rows = list(csv.DictReader(lines))
    assert first.startswith("# salt: ")
    assert second.startswith("# sha256: ")
    assert [(row["video_id"], row["study_id"], row["patient_id"]) for row in rows] == ids(manifest)
    assert [row["plain_video_id"] for row in rows] == ["DOE^JANE/a.dcm", "ROE^JOHN/b.dcm"]
    assert [row["plain_study_id"] for row in rows] == ["1.2.3.999.1", "1.2.3.999.7"]
    assert [row["plain_patient_id"] for row in rows] == ["MRN-0815", "MRN-4711"]
    assert [row["path"] for row in rows] == [str(dicoms / row["plain_video_id"]) for row in rows]
    before = local.read_bytes()
    assert ids(read_manifest(dicoms, local=local)) == ids(manifest)
    assert local.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out.h5.ids.csv"]


def test_a_salt_from_a_file_gives_the_same_ids_everywhere(dicoms, tmp_path):
    (tmp_path / "salt.txt").write_text(f"{SALT}\n")
    salt = read_salt(tmp_path / "salt.txt")
    one = read_manifest(dicoms, salt=salt, local=tmp_path / "one.ids.csv")
    assert ids(one) == ids(read_manifest(dicoms, salt=salt))
    # Another output's table is a salt file too.
    assert read_salt(tmp_path / "one.ids.csv") == SALT


@pytest.mark.parametrize("content", ["x", "", "y" * 30, "# salt: short\nvideo_id\n"])
def test_a_salt_file_with_a_poor_salt_is_refused(tmp_path, content):
    (tmp_path / "salt.txt").write_text(content)
    with pytest.raises(ArgumentError, match=r"salt\.txt .*needs 16 characters"):
        read_salt(tmp_path / "salt.txt")


def test_another_salt_than_the_tables_is_refused(dicoms, tmp_path):
    read_manifest(dicoms, local=tmp_path / "t.ids.csv")
    with pytest.raises(ManifestError, match=r"t\.ids\.csv has ids of another salt.*--salt-file"):
        read_manifest(dicoms, salt=SALT, local=tmp_path / "t.ids.csv")


def test_another_salt_than_that_of_the_table_that_is_read_is_refused(dicoms, tmp_path):
    table = tmp_path / "list.csv"
    manifest = read_manifest(dicoms, local=local_path(table))
    describe_manifest(manifest).to_csv(table, index=False)
    with pytest.raises(ArgumentError, match=r"list\.csv\.ids\.csv has ids of another salt.*--salt-file"):
        read_manifest(table, salt=SALT)
    again = read_manifest(table, salt=LocalIds.read(local_path(table)).salt)
    assert ids(again) == ids(manifest)
    # Where nothing is hashed, a salt in the environment is in nobody's way.
    assert len(read_manifest(table, salt=SALT, ids="plain").videos) == 2


@pytest.mark.parametrize("content", ["", "video_id\n", "# salt: \nvideo_id\n", f"# salt: {SALT}\nvideo_id,path\n"])
def test_a_table_that_is_none_is_said(dicoms, tmp_path, content):
    (tmp_path / "t.ids.csv").write_text(content)
    with pytest.raises(ManifestError, match=r"t\.ids\.csv"):
        read_manifest(dicoms, local=tmp_path / "t.ids.csv")
    assert (tmp_path / "t.ids.csv").read_text() == content


@pytest.mark.parametrize(
    ("was", "now"),
    [("MRN-0815", "MRN-0816"), ("patient-", "patient-0"), ("# salt: ", "# salt: 0"), ("1.2.3.", "1,2.3.")],
)
def test_a_damaged_table_joins_nothing(dicoms, tmp_path, was, now):
    local = tmp_path / "t.ids.csv"
    read_manifest(dicoms, local=local)
    local.write_text(local.read_text().replace(was, now, 1))
    with pytest.raises(ManifestError, match=r"t\.ids\.csv.* damaged") as error:
        LocalIds.read(local)
    assert "MRN" not in str(error.value)


def test_one_bit_in_the_table_is_an_error(dicoms, tmp_path):
    local = tmp_path / "t.ids.csv"
    read_manifest(dicoms, local=local)
    whole = local.read_bytes()
    for place in range(len(whole)):
        local.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(ManifestError, match=r"t\.ids\.csv"):
            LocalIds.read(local)
    # As a file with a salt, too.
    local.write_bytes(whole.replace(b"# salt: ", b"# salt: x"))
    with pytest.raises(ArgumentError, match=r"t\.ids\.csv is damaged"):
        read_salt(local)


def test_a_table_without_a_digest_is_of_an_earlier_release(dicoms, tmp_path):
    local = tmp_path / "t.ids.csv"
    read_manifest(dicoms, local=local)
    first, _, *lines = local.read_text().splitlines(keepends=True)
    local.write_text("".join([first, *lines]))
    with pytest.raises(ManifestError, match=r"t\.ids\.csv is damaged, or of an earlier release"):
        read_manifest(dicoms, local=local)


def test_two_that_add_to_one_table_at_the_same_time_lose_nothing(dicoms, tmp_path, monkeypatch):
    local = tmp_path / "t.ids.csv"
    read_manifest(dicoms, local=local)
    write_dicom(tmp_path / "more" / "c.dcm")
    write_dicom(tmp_path / "others" / "d.dcm", patient="MRN-1")
    table, read, reads, in_between = LocalIds.read(local), LocalIds.read, [], threading.Event()

    def told(path):
        found = read(path)
        reads.append(path)
        # The first asks for the salt alone.
        if len(reads) == 2:
            in_between.set()
        return found

    monkeypatch.setattr(LocalIds, "read", told)
    with ThreadPoolExecutor() as pool:
        with local_ids._alone(local):
            other = pool.submit(read_manifest, tmp_path / "more", local=local)
            # It must not come that far; without a lock, it does.
            in_between.wait(0.3)
            mine = read_manifest(tmp_path / "others", salt=table.salt)
            row = next(iter(table.rows.values()))
            local_ids._write(local, table.salt, [*table.rows.values(), (mine.videos[0].video_id, *row[1:])])
        other.result()
    known = LocalIds.read(local).rows
    assert len(known) == 4
    assert {*known} >= {mine.videos[0].video_id, other.result().videos[0].video_id}


def test_rows_of_other_videos_stay(dicoms, tmp_path):
    local = tmp_path / "t.ids.csv"
    read_manifest(dicoms, local=local)
    write_dicom(tmp_path / "more" / "c.dcm")
    read_manifest(tmp_path / "more", local=local)
    assert len(LocalIds.read(local).rows) == 3


def test_names_of_any_kind_come_back(tmp_path):
    folder = tmp_path / 'in, "quoted"'
    for name in ("line\nend", 'quo"te, comma', "caf\udce9", "  blanks  "):
        write_dicom(folder / name)
    manifest = read_manifest(folder, local=tmp_path / "t.ids.csv")
    table = LocalIds.read(tmp_path / "t.ids.csv")
    ids = [(video.path, video.video_id, video.study_id, video.patient_id) for video in manifest.videos]
    assert [table.origin(*some) for some in ids] == [video.origin for video in manifest.videos]


def test_a_table_of_opaque_ids_is_read_back_with_its_local_table(dicoms, tmp_path):
    table = tmp_path / "list.csv"
    manifest = read_manifest(dicoms, local=local_path(table))
    describe_manifest(manifest).assign(EF=[50, 60], patient_id=["mine", manifest.videos[1].patient_id]).to_csv(
        table, index=False
    )
    text = table.read_text()
    assert not [secret for secret in ("DOE", "MRN", "1.2.3", str(dicoms)) if secret in text]
    again = read_manifest(table, local=tmp_path / "out.h5.ids.csv")
    assert [video.video_id for video in again.videos] == [video.video_id for video in manifest.videos]
    assert [video.location for video in again.videos] == [video.location for video in manifest.videos]
    # A patient's id that somebody has corrected is hashed as well, and kept.
    assert is_opaque(again.videos[0].patient_id)
    assert again.videos[0].origin.patient_id == "mine"
    assert again.videos[1].origin == manifest.videos[1].origin
    assert LocalIds.read(tmp_path / "out.h5.ids.csv").salt == LocalIds.read(local_path(table)).salt
    local_path(table).unlink()
    with pytest.raises(ManifestError, match=r"list\.csv has opaque paths, and its local table of ids, .* is not there"):
        read_manifest(table)


def test_a_patient_may_be_corrected_by_the_opaque_id_of_another(dicoms, tmp_path):
    table = tmp_path / "list.csv"
    one, two = read_manifest(dicoms, local=local_path(table)).videos
    table.write_text(f"path,patient_id\n{one.path},{two.patient_id}\n{two.path},{two.patient_id}\n")
    again = read_manifest(table, local=tmp_path / "out.h5.ids.csv").videos
    assert {video.patient_id for video in again} == {two.patient_id}
    assert {video.origin.patient_id for video in again} == {"MRN-4711"}
    known = LocalIds.read(tmp_path / "out.h5.ids.csv")
    assert known.translated("patient", ["MRN-4711"]) == [two.patient_id]
    assert known.translated("video", ["a.dcm", "b.dcm"]) == [video.video_id for video in again]
    assert known.translated("study", ["x"])[0] not in {video.study_id for video in again}


def test_a_hospitals_own_table_of_dicom_is_hashed_and_one_of_avi_is_not(dicoms, tmp_path):
    (tmp_path / "mine.csv").write_text("path,patient_id,EF\nin/DOE^JANE/a.dcm,MRN-0815,50\n")
    (video,) = read_manifest(tmp_path / "mine.csv").videos
    assert all(map(is_opaque, (video.video_id, video.patient_id, video.path)))
    assert video.location == str(tmp_path / "in" / "DOE^JANE" / "a.dcm")
    (plain,) = read_manifest(tmp_path / "mine.csv", ids="plain").videos
    assert (plain.patient_id, plain.path) == ("MRN-0815", video.location)
    np.save(tmp_path / "v.npy", np.zeros((2, 32, 32), np.uint8))
    (tmp_path / "other.csv").write_text("path,patient_id\nv.npy,p1\n")
    assert read_manifest(tmp_path / "other.csv").videos[0].patient_id == "p1"


def test_ids_of_the_hospital_are_translated(tmp_path):
    folder = tmp_path / "in"
    write_dicom(folder / "p" / "a.dcm")
    write_dicom(folder / "q" / "a.dcm", patient="MRN-4711", study="1.2.3.999.7")
    write_dicom(folder / "q" / "b.dcm", patient="MRN-4711", study="1.2.3.999.7")
    one, two, three = read_manifest(folder, local=tmp_path / "t.ids.csv").videos
    table = LocalIds.read(tmp_path / "t.ids.csv")
    assert table.translated("patient", ["MRN-4711", "", one.patient_id]) == [two.patient_id, "", one.patient_id]
    assert table.translated("study", ["1.2.3.999.1", "1.2.3.999.7"]) == [one.study_id, two.study_id]
    assert table.translated("video", ["p/a.dcm", two.origin.path, "b.dcm"]) == [v.video_id for v in (one, two, three)]
    # Two files are called a.dcm: neither is meant. What nobody knows is hashed, not handed on.
    assert table.translated("video", ["a.dcm"])[0] not in {video.video_id for video in (one, two, three)}
    assert is_opaque(table.translated("patient", ["MRN-9999"])[0])


def test_where_a_video_lies_is_known_beside_the_file_and_beside_its_folder(dicoms, tmp_path):
    manifest = read_manifest(dicoms, local=tmp_path / "sweep.ids.csv")
    video = manifest.videos[0]
    assert located(tmp_path / "sweep" / "one.h5", video.path) == video.location
    assert located(tmp_path / "sweep" / "one.h5", "/plain/a.avi") == "/plain/a.avi"
    with pytest.raises(MediaError, match=r"can't be played.*other\.h5\.ids\.csv is not there"):
        located(tmp_path / "elsewhere" / "other.h5", video.path)


def test_what_is_made_of_a_file_gets_its_table(dicoms, tmp_path):
    manifest = read_manifest(dicoms, local=local_path(tmp_path / "a.h5"))
    carry_over(tmp_path / "a.h5", local_path(tmp_path / "b.h5"), [video.video_id for video in manifest.videos])
    assert LocalIds.read(tmp_path / "b.h5.ids.csv").rows == LocalIds.read(tmp_path / "a.h5.ids.csv").rows
    assert (tmp_path / "b.h5.ids.csv").stat().st_mode & 0o777 == 0o600
    carry_over(tmp_path / "a.h5", local_path(tmp_path / "c.h5"), ["plain"])
    assert not (tmp_path / "c.h5.ids.csv").exists()


def test_a_table_that_can_not_be_written_is_said(dicoms, tmp_path):
    with pytest.raises(ManifestError, match=r"can.t write .*t\.ids\.csv, the local table .*: the folder does not"):
        read_manifest(dicoms, local=tmp_path / "nowhere" / "t.ids.csv")
