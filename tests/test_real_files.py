"""The command on real files, with weights in the released checkpoint's layout, against a plain computation."""

from __future__ import annotations

import io
import shutil

import cv2
import numpy as np
import pydicom
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from pydicom.encaps import generate_frames

from panecho_embed.cli.main import main
from panecho_embed.datasets import LocalIds
from panecho_embed.models.panecho import PanEcho, save_checkpoint
from panecho_embed.store import EmbeddingFile, verify
from tests.media.builders import pydicom_file
from tests.media.test_dicom_samples import STILLS

LOOPS = {"examples_ybr_color.dcm": 30, "color3d_jpeg_baseline.dcm": 120}
# The plain computation sees whole frames.
PLAIN = ["--mask-sector", "off"]
MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Random weights in the released layout, with the block scales of a trained model, so that every part shows."""
    torch.manual_seed(5)
    model = PanEcho(pretrained=False, tasks=["EF"])
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("gamma"):
                value.uniform_(0.2, 0.6)
    path = tmp_path_factory.mktemp("weights") / "panecho.pt"
    save_checkpoint(model, path)
    return path


@pytest.fixture(scope="module")
def embedded(weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pydicom's own")
    (folder / "échos").mkdir()
    for name in [*LOOPS, *STILLS]:
        shutil.copy(pydicom_file(name), folder / "échos" / name)
    out = folder / "out.h5"
    result = CliRunner().invoke(
        main, ["extract", str(folder / "échos"), "-o", str(out), "--weights", str(weights), *PLAIN]
    )
    # Their ids are opaque; the local table says which is which.
    table = LocalIds.read(out.with_name("out.h5.ids.csv"))
    return (
        result,
        EmbeddingFile(out),
        dict(zip(table.translated("video", [*LOOPS, *STILLS]), [*LOOPS, *STILLS], strict=True)),
    )


def test_loops_are_embedded_and_stills_are_told(embedded):
    result, file, names = embedded
    assert result.exit_code == 0, result.output
    assert verify(file.path) == []
    rows = file.rows
    assert rows["video_id"].map(names).value_counts().to_dict() == dict.fromkeys(LOOPS, 4)
    assert set(rows["fps"]) == {30.0}
    assert {names[video] for video in file.failures["video_id"]} == set(STILLS)
    assert (file.failures["stage"] == "skipped").all()
    assert file.failures["message"].str.contains("still").all()


def test_no_identifier_of_the_headers_is_in_the_file(embedded):
    _, file, _ = embedded
    content = file.path.read_bytes()
    for name in [*LOOPS, *STILLS]:
        header = pydicom.dcmread(pydicom_file(name), stop_before_pixels=True)
        for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            value = str(header.get(keyword, ""))
            if len(value) > 3:
                assert value.encode() not in content, keyword


def test_an_embedding_is_what_opencv_and_the_model_give_step_by_step(embedded, weights):
    _, file, names = embedded
    model = PanEcho(weights=weights, backbone_only=True)
    rows = file.rows
    for name, count in LOOPS.items():
        images = generate_frames(pydicom.dcmread(pydicom_file(name)).PixelData, number_of_frames=count)
        video = [np.asarray(Image.open(io.BytesIO(image)).convert("RGB")) for image in images]
        for row in np.flatnonzero(rows["video_id"].map(names) == name)[[0, 3]]:
            start = rows["first_frame"][row]
            clip = []
            for frame in video[start : start + 16]:
                bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
                square = cv2.resize(bgr, (256, 256), interpolation=cv2.INTER_AREA)[16:240, 16:240]
                clip.append((square / 255 - MEAN) / STD)
            x = torch.from_numpy(np.stack(clip)).permute(3, 0, 1, 2)[None].float()
            with torch.inference_mode():
                expected = model(x)[0].numpy()
            ours = file.read(row, row + 1)[0]
            cosine = ours @ expected / np.linalg.norm(ours) / np.linalg.norm(expected)
            assert cosine > 0.9999
            np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_colours_matter_to_the_test_above(weights):
    """A channel swap, the commonest mistake, would be seen: it moves an embedding by far more than the tolerance."""
    model = PanEcho(weights=weights, image_encoder_only=True)
    frame = pydicom.dcmread(pydicom_file("color3d_jpeg_baseline.dcm"))
    image = next(iter(generate_frames(frame.PixelData, number_of_frames=120)))
    rgb = cv2.resize(np.asarray(Image.open(io.BytesIO(image)).convert("RGB")), (224, 224)) / 255
    both = np.stack([(rgb - MEAN) / STD, (rgb[..., ::-1] - MEAN) / STD]).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        a, b = model(torch.from_numpy(both).float()).numpy()
    assert np.abs(a - b).max() > 100 * 1e-4
