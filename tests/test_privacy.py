"""Whatever DICOM says of a person, and whatever files and folders are called, stays out of all that is written."""

from __future__ import annotations

import gzip
import io
import logging
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from pydicom.dataset import Dataset

from panecho_embed.cli.main import main
from panecho_embed.datasets import LocalIds
from panecho_embed.extraction import run as extraction
from panecho_embed.retrieval import embed_new
from tests.datasets.test_folder import write_dicom
from tests.finetuning.conftest import NARROW, finetune, rows_of
from tests.tiny import tiny

# 37 attributes that name a person, a study, a device or a place.
PEOPLE = [
    "PatientName",
    "PatientMotherBirthName",
    "PatientBirthName",
    "OtherPatientNames",
    "ReferringPhysicianName",
    "PerformingPhysicianName",
    "OperatorsName",
    "RequestingPhysician",
    "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy",
    "ConsultingPhysicianName",
    "ResponsiblePerson",
    "VerifyingObserverName",
    "PersonName",
]
DATES = ("PatientBirthDate", "StudyDate", "SeriesDate", "AcquisitionDate")
NUMBERS = ("PatientID", "AccessionNumber", "StudyID", "IssuerOfPatientID", "AdmissionID", "DeviceSerialNumber")
WORDS = [
    "InstitutionName",
    "InstitutionalDepartmentName",
    "StationName",
    "PatientAddress",
    "PatientTelephoneNumbers",
    "PatientComments",
    "CountryOfResidence",
    "StudyDescription",
]
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "DeviceUID")
PATIENTS = 10


def identified(folder: Path, patient: int) -> tuple[Path, list[str]]:
    """A cine loop as a PACS exports it, PATIENT^NAME/STUDYUID/SERIESUID/INSTANCEUID.dcm, and all that identifies it."""
    letter = "ABCDEFGHIJKLMNOP"[patient]
    given = {name: f"QX{letter}{i:02d}SURNAME^GIVEN{letter}{i:02d}" for i, name in enumerate(PEOPLE)}
    given |= {name: f"19{30 + patient}07{11 + i}" for i, name in enumerate(DATES)}
    given |= {name: f"Q{patient}7{i}4815162342" for i, name in enumerate(NUMBERS)}
    given |= {name: f"ZW{letter}{i:02d}PLACE" for i, name in enumerate(WORDS)}
    given |= {name: f"1.2.826.77.{patient}.{i}.4711" for i, name in enumerate(UIDS)}
    assert len(given) == 37
    who = given["PatientName"]
    place = folder / f"{who}_{given['PatientBirthDate']}" / given["StudyInstanceUID"] / given["SeriesInstanceUID"]
    path = place / f"{given['SOPInstanceUID']}.dcm"
    write_dicom(path, frames=18)
    dataset = pydicom.dcmread(path)
    rng = np.random.default_rng(patient)
    film = rng.integers(0, 200, (40, 48, 3)) + np.arange(18)[:, None, None, None] * patient // 3
    dataset.PixelData = film.astype(np.uint8).tobytes()
    for name, value in given.items():
        setattr(dataset, name, value)
    nested = Dataset()
    nested.PatientName = f"NESTED{letter}QX^INNER"
    nested.AccessionNumber = f"NESTED{letter}9151"
    dataset.RequestAttributesSequence = [nested]
    private = dataset.private_block(0x0011, f"PRIV{letter}MAKERQX", create=True)
    private.add_new(0x01, "LO", f"PRIV{letter}VALUEQX")
    dataset.save_as(path)
    secrets = [*given.values(), who.replace("^", " "), *who.split("^"), nested.PatientName.family_name]
    return path, [*secrets, nested.AccessionNumber, f"PRIV{letter}MAKERQX", f"PRIV{letter}VALUEQX", str(path.parent)]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory):
    """A folder as a PACS exports it, the labels that a hospital has, and every identifier."""
    folder = tmp_path_factory.mktemp("data") / "export"
    paths, secrets = zip(*(identified(folder, i) for i in range(PATIENTS)), strict=True)
    # Damaged ones, whose failures are told of; a file that is no video, with a name for a suffix.
    broken, told = identified(folder, PATIENTS)
    broken.write_bytes(broken.read_bytes()[:-50_000])
    still, more = identified(folder, PATIENTS + 1)
    still.write_bytes(still.read_bytes()[:2000])
    (folder / "QXSTRAY.SURNAMESUFFIX").write_text("nothing")
    lines = [f"Q{i}704815162342,{40 + i},QX{'ABCDEFGHIJ'[i]}00SURNAME" for i in range(PATIENTS)]
    labels = folder.parent / "labels.csv"
    labels.write_text("PatientID,EF,PatientName\n" + "\n".join(lines) + "\n")
    everything = {s for some in (*secrets, told, more) for s in some} | {"SURNAMESUFFIX", "QXSTRAY"}
    return folder, labels, paths, everything


def contents(data: bytes, name: str):
    """The bytes, and those of what they hold in compressed or encoded form."""
    yield name, data
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.namelist():
                yield from contents(archive.read(member), f"{name}!{member}")
    elif data[:2] == b"\x1f\x8b":
        yield from contents(gzip.decompress(data), f"{name}!gzip")
    elif data[:8] == b"\x89HDF\r\n\x1a\n":
        with h5py.File(io.BytesIO(data)) as file:
            texts = [str(dict(file.attrs))]

            def look(key, item):
                texts.extend([key, str(dict(item.attrs))])
                if isinstance(item, h5py.Dataset) and item.dtype.kind in "OSV":
                    texts.append(repr(item[...].tolist()))

            file.visititems(look)
        yield f"{name}!hdf5", "\n".join(texts).encode()


def leaks(where: dict[str, bytes], secrets: set[str]) -> list[str]:
    """Where an identifier stands, as it is or in UTF-16, whatever the case of its letters."""
    needles = [(secret, secret.lower().encode()) for secret in secrets]
    found = []
    for name, data in where.items():
        for inner, piece in contents(data, name):
            # Without its zeros, ASCII in UTF-16 of either order is ASCII.
            small = piece.lower().replace(b"\0", b"") + inner.lower().encode()
            found += [f"{secret} in {inner}" for secret, needle in needles if needle in small]
    return found


def files_below(*folders: Path) -> dict[str, bytes]:
    """Every file but the local tables, which alone may hold identifiers and are for one user."""
    found = {}
    for path in (p for folder in folders for p in folder.rglob("*") if p.is_file()):
        if path.name.endswith(".ids.csv"):
            assert path.stat().st_mode & 0o777 == 0o600, path
        else:
            found[str(path.relative_to(path.parents[-2]))] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def small_model():
    """The commands with a backbone that costs nothing."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (extraction, embed_new):
            patch.setattr(module, "load_backbone", lambda *_, **__: tiny())
        yield


@pytest.fixture(scope="module")
def work(hospital, small_model, tmp_path_factory):
    """A folder in which every command has run on a hospital's export, and all that they said."""
    export, labels, paths, _ = hospital
    folder = tmp_path_factory.mktemp("work")
    said = {}

    def run(*words, expect=0):
        # Which shard the damaged files fall to, the random salt decides.
        allowed = (0, 3) if "--shard" in words else (expect,)
        result = CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)
        assert result.exit_code in allowed, result.output
        said[f"said by {words[0]} {words[1]}"[:40] + str(len(said))] = result.output.encode()

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PANECHO_EMBED_CACHE", str(folder / "cache"))
        run("manifest", export, "-o", "list.csv")
        run("extract", export, "-o", "emb.h5", "--workers", "0", expect=3)
        run("extract", "list.csv", "-o", "again.h5", "--workers", "0", expect=3)
        for shard in ("1/2", "2/2"):
            run("extract", export, "-o", "shards.h5", "--workers", "0", "--shard", shard)
        shutil.copytree("shards.h5.parts", "parts-kept")
        run("merge", "shards.h5", expect=3)
        run("info", "emb.h5", "--failures")
        run("info", "emb.h5", "--json")
        run("verify", "emb.h5")
        run("pool", "emb.h5", "--by", "study", "-o", "studies.h5")
        run("probe", "linear", "emb.h5", "--target", "EF", "--labels", labels, "-o", "ef")
        run("probe", "linear", "studies.h5", "--target", "all", "--labels", labels, "--folds", "3", "-o", "all")
        run("audit", "emb.h5", "--labels", labels)
        study = LocalIds.read(Path("emb.h5.ids.csv"))
        asked = next(iter(study.rows.values()))[1]
        run("index", "emb.h5")
        run("search", "emb.h5", "--study", asked, "--json")
        run("search", "emb.h5", "--study", asked, "--csv", "--html", "sheet.html")
        run("search", "emb.h5", "--study", next(iter(study.rows.values()))[4])
        run("search", "emb.h5", "--file", paths[0], "--json")
        run("search", "emb.h5", "--file", paths[0].parents[2], "--csv")
        run("search", "emb.h5", "--outliers", "2")
        model = ("--backbone", "random", "--image-size", "32", "--tasks", "EF")
        run("predict", export, "-o", "predicted", *model, "--clips", "1", "--workers", "0", expect=3)
    return folder, said


def test_no_identifier_reaches_any_file_or_message(hospital, work):
    folder, said = work
    files = files_below(folder)
    assert {"emb.h5", "predictions.csv", "sheet.html", "report.html", "studies.csv"} <= {Path(f).name for f in files}
    assert any(name.endswith(".videos.jsonl.gz") for name in files)
    assert leaks(files | said, hospital[3]) == []


def test_no_identifier_reaches_an_answer_of_the_server_and_its_videos_play(hospital, work):
    pytest.importorskip("fastapi")
    from starlette.testclient import TestClient

    from panecho_embed.retrieval.server.app import create_app

    folder, _ = work
    table = LocalIds.read(folder / "emb.h5.ids.csv")
    video, study = next(iter(table.rows.values()))[:2]
    answers = {}
    with TestClient(create_app(folder / "emb.h5"), base_url="http://127.0.0.1") as client:
        for address in ("info", "studies", f"study?id={study}", f"video?id={video}", f"search?study={study}", "map"):
            answer = client.get(f"/api/{address}")
            assert answer.status_code == 200, answer.text
            answers[address] = answer.content
        for kind in ("thumbnail", "still", "clip"):
            assert client.get(f"/api/{kind}", params={"video": video}).status_code == 200
        upload = client.post(
            "/api/search",
            content=hospital[2][0].read_bytes(),
            headers={"content-type": "application/octet-stream"},
            params={"name": "QX.dcm"},
        )
        assert upload.status_code == 200, upload.text
        answers["upload"] = upload.content
        away = (folder / "emb.h5.ids.csv").rename(folder / "away.ids.csv")
        try:
            refused = client.get("/api/still", params={"video": list(table.rows)[1]})
        finally:
            away.rename(folder / "emb.h5.ids.csv")
        assert "can't be played: its ids are opaque, and the local table" in refused.text
        assert "emb.h5.ids.csv is not there" in refused.text
    assert leaks(answers, hospital[3]) == []
    # The bytes of the upload are those of a video of the file, whose patient it recognises.
    assert table.rows[video][2] in upload.text


def test_predictions_show_the_videos_and_say_where_the_table_is_if_they_can_not(work):
    folder, _ = work
    sheets = [path.read_text() for path in (folder / "predicted").rglob("*.html")]
    assert any("data:image/webp" in sheet for sheet in sheets)
    assert (folder / "predicted.ids.csv").stat().st_mode & 0o777 == 0o600
    assert not list((folder / "predicted").rglob("*.ids.csv"))


def test_no_identifier_reaches_a_fine_tuning_run(hospital, tmp_path):
    _, _, paths, secrets = hospital
    lines = [f"{path},Q{i}704815162342,{('train', 'val', 'test')[i % 3]},{40 + i}" for i, path in enumerate(paths[:9])]
    table = tmp_path / "data" / "mine.csv"
    table.parent.mkdir()
    table.write_text("path,patient_id,split,EF\n" + "\n".join(lines) + "\n")
    settings = {"data.targets": "EF", "model.width": NARROW}
    said = finetune("custom", "--init", "random", "--data", table, "-o", tmp_path / "run", **settings).output
    assert (tmp_path / "data" / "mine.csv.ids.csv").stat().st_mode & 0o777 == 0o600
    assert rows_of(tmp_path / "run")["patient_id"].str.startswith("patient-").all()
    assert leaks(files_below(tmp_path / "run") | {"said": said.encode()}, secrets) == []


def test_nothing_is_logged(hospital, small_model, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    extraction.extract(hospital[0], tmp_path / "out.h5", workers=0)
    out, err = capfd.readouterr()
    said = {"log": caplog.text.encode(), "out": out.encode(), "err": err.encode()}
    assert leaks(said, hospital[3]) == []


def test_the_search_for_leaks_finds_what_is_there(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=[b"secret-text"] * 100, compression="gzip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("member", "Secret-Text" * 50)
    (tmp_path / "c.bin").write_bytes("secret-text".encode("utf-16-be"))
    (tmp_path / "secret-text").write_bytes(gzip.compress(b"other-text" * 20))
    found = leaks(files_below(tmp_path), {"secret-text", "other-text"})
    assert {Path(text.partition(" in ")[2].partition("!")[0]).name for text in found} == {
        "a.h5",
        "b.zip",
        "c.bin",
        "secret-text",
    }
