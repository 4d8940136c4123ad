"""Several clip plans in one pass: the rows of single extractions, one decoding, every picture encoded once."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from panecho_embed.core.clips import ClipPlan
from panecho_embed.core.errors import ArgumentError, SettingsMismatchError, StoreError
from panecho_embed.core.planes import pictures_of
from panecho_embed.core.shards import Shard
from panecho_embed.extraction import decode
from panecho_embed.extraction.merging import merge
from panecho_embed.extraction.run import extract
from panecho_embed.models.backbones import Backbone, load_backbone
from panecho_embed.store import EmbeddingFile, Parts, verify
from tests.media.builders import numbered_frames, write_dicom
from tests.test_extraction import moving
from tests.tiny import FEEDING, INFO, Patches, tiny

PLANS = {
    "four": ClipPlan(),
    "step": {"frame_step": 2, "num_clips": 3},
    "windows": {"stride": 3},
    "short": ClipPlan(frames_per_clip=5, num_clips=2, short="skip"),
}
LENGTHS = [40, 3, 23]


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    for i, count in enumerate(LENGTHS):
        np.savez(folder / f"v{i}.npz", frames=moving(count, seed=i), fps=np.array(30.0))
    (folder / "broken.avi").write_text("x")
    return folder


@pytest.fixture(scope="module")
def model() -> Backbone:
    return load_backbone("random", image_size=32)


class Counting(Patches):
    """Counts the pictures that it encodes."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures = 0

    def forward(self, pictures):
        self.pictures += len(pictures)
        return super().forward(pictures)


class Means(torch.nn.Module):
    """Clips whose order of pictures shows."""

    def forward(self, pictures):
        return (pictures * torch.arange(1, pictures.shape[1] + 1)[:, None]).mean(dim=1)


def published(encoder=None) -> Backbone:
    return Backbone("tiny", encoder or Patches(), Means(), 12, 12, FEEDING, INFO, plane_order="published")


@pytest.mark.parametrize("make", [published, tiny, lambda: load_backbone("random", image_size=32)])
def test_each_file_is_what_a_run_of_its_own_gives(studies, tmp_path, make):
    summary = extract(studies, tmp_path / "sweep", backbone=make(), plans=PLANS, workers=0)
    assert {path.name for path in (tmp_path / "sweep").iterdir()} == {f"{name}.h5" for name in PLANS}
    for name, plan in PLANS.items():
        alone = EmbeddingFile(extract(studies, tmp_path / f"{name}.h5", backbone=make(), clips=plan, workers=0).out)
        file = EmbeddingFile(tmp_path / "sweep" / f"{name}.h5")
        assert verify(file.path) == []
        np.testing.assert_allclose(file.embeddings, alone.embeddings, atol=1e-5)
        assert file.rows.equals(alone.rows)
        assert file.failures.equals(alone.failures)
        assert file.settings_id == alone.settings_id
        assert (summary.files[name].rows, summary.files[name].done) == (len(alone), 2 if name == "short" else 3)
    assert (summary.videos, summary.done, summary.exit_code) == (4, 2, 3)
    assert [failure.video_id for failure in summary.failed] == ["broken.avi"]
    assert [failure.video_id for failure in summary.skipped] == ["v1.npz"]
    assert summary.rows == sum(one.rows for one in summary.files.values())


def test_a_video_is_read_once_and_a_picture_encoded_once(studies, tmp_path, monkeypatch):
    opened = []
    open_cine = decode.open_cine
    monkeypatch.setattr(decode, "open_cine", lambda *a, **k: opened.append(a) or open_cine(*a, **k))
    encoder = Counting()
    extract(studies, tmp_path / "sweep", backbone=published(encoder), plans=PLANS, workers=0, engine_backend="eager")
    assert len(opened) == len(LENGTHS) + 1
    plans = [ClipPlan(), ClipPlan(frame_step=2, num_clips=3), ClipPlan(num_clips=None, stride=3), PLANS["short"]]
    expected = 0
    for count in LENGTHS:
        clips = [found for plan in plans if len(found := plan.indices(count))]
        expected += len(pictures_of(clips, count, "published").planes)
    assert encoder.pictures == expected
    apart = sum(len(pictures_of([c], n, "published").planes) for n in LENGTHS for p in plans if len(c := p.indices(n)))
    assert expected < 0.9 * apart


def test_a_further_plan_embeds_itself_alone(studies, tmp_path):
    out = tmp_path / "sweep"
    extract(studies, out, backbone=published(), plans={"four": {}}, workers=0)
    before = EmbeddingFile(out / "four.h5")
    rows, values = before.rows, before.embeddings
    encoder = Counting()
    plans = {"four": {}, "two": {"num_clips": 2}}
    # "auto" would try an engine out first.
    summary = extract(studies, out, backbone=published(encoder), plans=plans, workers=0, engine_backend="eager")
    # What failed is tried again for all.
    assert [one.reused for one in summary.files.values()] == [3, 0]
    plan = ClipPlan(num_clips=2)
    assert encoder.pictures == sum(len(pictures_of([plan.indices(n)], n, "published").planes) for n in LENGTHS)
    after = EmbeddingFile(out / "four.h5")
    assert after.rows.equals(rows)
    np.testing.assert_array_equal(after.embeddings, values)
    assert len(EmbeddingFile(out / "two.h5")) == 5


def test_a_stopped_run_goes_on_and_ends_as_an_undisturbed_one(studies, tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    class Stopping(Counting):
        def forward(self, pictures):
            if self.pictures > 40:
                raise Stop
            return super().forward(pictures)

    monkeypatch.setattr("panecho_embed.extraction.writing.PART_VIDEOS", 1)
    out, undisturbed = tmp_path / "sweep", tmp_path / "undisturbed"
    with pytest.raises(Stop):
        extract(studies, out, backbone=published(Stopping()), plans=PLANS, workers=0, batch_pictures=4)
    assert not list(out.glob("*.h5"))
    extract(studies, out, backbone=published(), plans=PLANS, workers=0)
    extract(studies, undisturbed, backbone=published(), plans=PLANS, workers=0)
    assert {path.name for path in out.iterdir()} == {f"{name}.h5" for name in PLANS}
    for name in PLANS:
        mine, theirs = (EmbeddingFile(folder / f"{name}.h5") for folder in (out, undisturbed))
        np.testing.assert_array_equal(mine.embeddings, theirs.embeddings)
        assert mine.rows.equals(theirs.rows)


@pytest.fixture
def dicoms(tmp_path):
    """Two patients, whose ids in headers are hashed by a salt."""
    folder = tmp_path / "studies"
    folder.mkdir()
    for name in ("a", "b"):
        tags = {"PatientID": f"MRN-{name}", "StudyInstanceUID": f"1.2.{ord(name)}"}
        write_dicom(folder / f"{name}.dcm", numbered_frames(20), **tags)
    return folder


def test_all_files_of_a_folder_have_the_same_ids_in_every_run(dicoms, tmp_path):
    out, two = tmp_path / "sweep", {"num_clips": 2}
    extract(dicoms, out, backbone=published(), plans={"one": {}, "two": two}, workers=0)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    summary = extract(dicoms, out, backbone=published(), plans={"one": {}, "two": two}, workers=0)
    assert [file.reused for file in summary.files.values()] == [2, 2]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    extract(dicoms, out, backbone=published(), plans={"two": two, "three": {"num_clips": 3}}, workers=0)
    patients = [
        EmbeddingFile(out / f"{name}.h5").video_columns["patient_id"].tolist() for name in ("one", "two", "three")
    ]
    assert patients[0] == patients[1] == patients[2]
    assert len(set(patients[0])) == 2
    assert {path.name for path in tmp_path.iterdir()} == {"studies", "sweep", "sweep.ids.csv"}


def test_a_finished_file_without_its_local_table_is_not_extended(dicoms, tmp_path):
    out = tmp_path / "out.h5"
    extract(dicoms, out, backbone=published(), workers=0, id_salt="a salt of the tests")
    (tmp_path / "out.h5.ids.csv").unlink()
    with pytest.raises(StoreError, match=r"out\.h5 has opaque ids, and their local table .*\.ids\.csv is not there"):
        extract(dicoms, out, backbone=published(), workers=0)
    assert not (tmp_path / "out.h5.ids.csv").exists()
    with pytest.raises(
        StoreError, match=r"2 videos that the input does not list, .* \(are their ids of another salt\?\)"
    ):
        extract(dicoms, out, backbone=published(), workers=0, id_salt="another salt of the tests")
    (tmp_path / "out.h5.ids.csv").unlink()
    assert extract(dicoms, out, backbone=published(), workers=0, id_salt="a salt of the tests").reused == 2


def test_what_else_lies_in_the_folder_is_no_concern(studies, tmp_path):
    out = tmp_path / "sweep"
    out.mkdir()
    (out / "junk.h5").write_text("no embeddings")
    (out / "folder.h5").mkdir()
    assert extract(studies, out, backbone=published(), plans={"one": {}}, workers=0).done == 3


def test_shards_of_several_plans_give_one_patient_one_id(dicoms, tmp_path):
    out, both = tmp_path / "sweep", {"one": {}, "two": {"num_clips": 2}}
    for i in range(8):
        # Enough that both shards have some.
        shutil.copy(dicoms / "a.dcm", dicoms / f"a{i}.dcm")
    for number in (1, 2):
        extract(dicoms, out, backbone=published(), plans=both, workers=0, shard=Shard(number, 2))
    for name in both:
        assert merge(out / f"{name}.h5").exit_code == 0
    one, two = (EmbeddingFile(out / f"{name}.h5").video_columns["patient_id"].tolist() for name in both)
    assert one == two


def test_overwriting_goes_on_after_a_stop_between_two_merges(studies, tmp_path, monkeypatch):
    out, plans = tmp_path / "sweep", {"one": {}, "two": {"num_clips": 2}}
    extract(studies, out, backbone=published(), plans=plans, workers=0)
    put_in_place = Parts.put_in_place

    def stopped(parts, *arguments, **keywords):
        if parts.out.name == "two.h5":
            raise KeyboardInterrupt
        put_in_place(parts, *arguments, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(Parts, "put_in_place", stopped)
        with pytest.raises(KeyboardInterrupt):
            extract(studies, out, backbone=published(), plans=plans, workers=0, overwrite=True)
    summary = extract(studies, out, backbone=published(), plans=plans, workers=0, overwrite=True)
    assert [file.reused for file in summary.files.values()] == [3, 3]
    assert sorted(path.name for path in out.iterdir()) == ["one.h5", "two.h5"]


def test_each_file_says_why_it_has_no_row_of_a_video_that_no_plan_can_cut(tmp_path):
    studies = tmp_path / "studies"
    studies.mkdir()
    np.save(studies / "short.npy", moving(20))
    plans = {"rate": {"target_fps": 15.0}, "long": ClipPlan(frames_per_clip=64, short="skip")}
    for _ in range(2):
        summary = extract(studies, tmp_path / "sweep", backbone=published(), plans=plans, workers=0)
        failed, skipped = summary.files["rate"].failed, summary.files["long"].skipped
        assert [f.message.partition(" were")[0] for f in failed] == ["clips at 15 frames per second"]
        assert [f.message.partition(";")[0] for f in skipped] == ["20 frames"]
        assert (summary.files["rate"].exit_code, summary.files["long"].exit_code) == (3, 0)
    for name in plans:
        assert verify(tmp_path / "sweep" / f"{name}.h5") == []


def test_shards_of_several_plans_are_merged_one_by_one(studies, tmp_path):
    out, plans = tmp_path / "sweep", {"four": {}, "two": {"num_clips": 2}}
    for number in (1, 2):
        extract(studies, out, backbone=published(), plans=plans, workers=0, shard=Shard(number, 2))
    for name, plan in plans.items():
        merge(out / f"{name}.h5")
        alone = extract(studies, tmp_path / f"{name}.h5", backbone=published(), clips=plan, workers=0).out
        np.testing.assert_array_equal(EmbeddingFile(out / f"{name}.h5").embeddings, EmbeddingFile(alone).embeddings)


def test_a_file_of_other_settings_is_refused_before_anything_is_embedded(studies, tmp_path):
    out = tmp_path / "sweep"
    extract(studies, out, backbone=published(), plans={"four": {}}, workers=0)
    with pytest.raises(
        SettingsMismatchError, match=r"four\.h5 was made with other settings.*clips\.num_clips: 3, not 4"
    ):
        extract(studies, out, backbone=published(), plans={"new": {}, "four": {"num_clips": 3}}, workers=0)
    assert {path.name for path in out.iterdir()} == {"four.h5"}


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 200])
def test_a_name_that_is_no_file_s_is_refused(studies, tmp_path, name):
    with pytest.raises(ArgumentError, match="a plan can't be called"):
        extract(studies, tmp_path / "sweep", backbone=published(), plans={name: {}}, workers=0)
    assert list(tmp_path.iterdir()) == []


def test_what_fails_before_the_first_part_leaves_no_folder(studies, tmp_path):
    with pytest.raises(ArgumentError, match="no field of a clip plan"):
        extract(studies, tmp_path / "sweep", backbone=published(), plans={"a": {"nonsense": 1}}, workers=0)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("precious")
    with pytest.raises(StoreError, match="no folder for the files of several plans"):
        extract(studies, tmp_path / "file", backbone=published(), plans={"a": {}}, workers=0)
