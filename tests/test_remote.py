"""Inputs and outputs behind URLs: an S3 server of this machine, and fsspec's file system in memory."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from panecho_embed.cli.main import main
from panecho_embed.core import remote
from panecho_embed.core.errors import ArgumentError, ManifestError, RemoteError, SettingsMismatchError, StoreError
from panecho_embed.core.remote import cache_folder
from panecho_embed.core.shards import Shard
from panecho_embed.datasets import describe_manifest, read_manifest
from panecho_embed.extraction.run import extract
from panecho_embed.phantoms import write_studies
from panecho_embed.store import EmbeddingFile, verify
from panecho_embed.store.lock import RunLock
from tests.buckets import bucket_of, forget, names_in
from tests.test_extraction import moving
from tests.test_shards import contents
from tests.tiny import Patches, tiny

pytest.importorskip("s3fs", reason="s3fs is not installed (the extra [s3])")
pytest.importorskip("moto", reason="moto is not installed (the extra [test])")


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "echos"
    for i in range(8):
        (folder / f"p{i // 4}").mkdir(parents=True, exist_ok=True)
        np.save(folder / f"p{i // 4}/v{i}.npy", moving(18 + i, seed=i))
    (folder / "p1/broken.avi").write_text("no video")
    (folder / "notes.txt").write_text("no video either")
    return folder


@pytest.fixture(scope="module")
def server():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait()


@pytest.fixture
def bucket(server, studies, tmp_path, monkeypatch):
    """s3://echos-N, with the studies in `videos`."""
    settings = {
        "ENDPOINT_URL": server,
        "ACCESS_KEY_ID": "id",
        "SECRET_ACCESS_KEY": "key",
        "DEFAULT_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setenv("PANECHO_EMBED_CACHE", str(tmp_path / "cache"))
    with bucket_of("s3", studies) as url:
        yield url


def but_places(path):
    """What is in an embedding file, but where the videos were and since when."""
    file = EmbeddingFile(path)
    columns = {name: list(column) for name, column in file.video_columns.items() if name not in ("path", "mtime_ns")}
    rows = file.rows.drop(columns="path")
    return repr(columns), repr(rows.to_dict("list")), file.embeddings.tolist(), file.failures["message"].tolist()


def run(source, out, **options):
    return extract(source, out, backbone=tiny(), workers=0, **options)


def test_from_bucket_to_bucket_as_from_folder_to_folder(bucket, studies, tmp_path):
    here = tmp_path / "here.h5"
    local = run(studies, here)
    summary = run(f"{bucket}/videos", f"{bucket}/out.h5")
    assert (summary.exit_code, summary.done, summary.rows) == (3, 8, local.rows)
    assert [f.stage for f in summary.failed] == ["open"]
    assert summary.failed[0].path == f"{bucket}/videos/p1/broken.avi"
    assert names_in(bucket) == ["out.h5"]
    assert list((tmp_path / "cache/written").iterdir()) == []
    copy = remote.cached(f"{bucket}/out.h5")
    assert verify(copy) == []
    assert but_places(copy) == but_places(here)


def test_several_plans_in_a_bucket(bucket, studies, tmp_path):
    plans = {"four": {}, "windows": {"stride": 5}}
    summary = run(f"{bucket}/videos", f"{bucket}/sweep/", plans=plans)
    assert summary.files["four"].out == f"{bucket}/sweep/four.h5"
    assert [n for n in names_in(bucket) if n.startswith("sweep")] == ["sweep/four.h5", "sweep/windows.h5"]
    run(studies, tmp_path / "here", plans=plans)
    for name in plans:
        assert but_places(remote.cached(f"{bucket}/sweep/{name}.h5")) == but_places(tmp_path / "here" / f"{name}.h5")
    again = run(f"{bucket}/videos", f"{bucket}/sweep", plans=plans | {"one": {"num_clips": 1}})
    assert [file.reused for file in again.files.values()] == [8, 8, 0]


def test_what_is_done_stays_done(bucket):
    run(f"{bucket}/videos", f"{bucket}/out.h5")
    again = run(f"{bucket}/videos", f"{bucket}/out.h5")
    assert again.reused == 8
    fsspec.filesystem("s3").pipe(f"{bucket}/videos/p0/v0.npy", b"something else")
    changed = run(f"{bucket}/videos", f"{bucket}/out.h5")
    assert (changed.reused, changed.done) == (7, 7)


class Interrupted(Patches):
    """Stops at the third run of the encoder."""

    left = 2

    def forward(self, frames):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return super().forward(frames)


def test_another_machine_goes_on_from_the_parts(bucket, tmp_path, monkeypatch):
    stopping = tiny()
    stopping.image_encoder = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        options = {"workers": 0, "batch_pictures": 40, "engine_backend": "eager"}
        extract(f"{bucket}/videos", f"{bucket}/out.h5", backbone=stopping, **options)
    assert [name.startswith("out.h5.parts/") for name in names_in(bucket)] == [True]
    monkeypatch.setenv("PANECHO_EMBED_CACHE", str(tmp_path / "another"))
    summary = run(f"{bucket}/videos", f"{bucket}/out.h5")
    assert 0 < summary.reused < 8
    assert summary.done == 8
    assert names_in(bucket) == ["out.h5"]
    once = tmp_path / "once.h5"
    run(f"{bucket}/videos", once)
    assert contents(remote.cached(f"{bucket}/out.h5")) == contents(once)


def test_what_could_not_be_uploaded_is_by_the_next_run(bucket, monkeypatch):
    def gone(source, url):
        raise RemoteError(f"{url} can't be reached: no route")

    with monkeypatch.context() as patch:
        patch.setattr("panecho_embed.store.mirror.upload", gone)
        with pytest.raises(StoreError, match=r"no route.*the same command on this machine uploads it"):
            run(f"{bucket}/videos", f"{bucket}/out.h5")
    assert names_in(bucket) == []
    assert run(f"{bucket}/videos", f"{bucket}/out.h5").reused == 8
    assert names_in(bucket) == ["out.h5"]


@pytest.mark.parametrize("kept", ["output", "parts"])
def test_what_another_machine_has_delivered_since_counts(bucket, tmp_path, monkeypatch, kept):
    """Machine A keeps what it could not upload; B begins anew and delivers; A goes on from what B has delivered."""

    def stopped(source, url, upload=remote.upload):
        if kept == "parts" or ".parts" not in url:
            raise RemoteError(f"{url} can't be reached: no route")
        upload(source, url)

    out = f"{bucket}/out.h5"
    with monkeypatch.context() as patch:
        patch.setattr("panecho_embed.store.mirror.upload", stopped)
        with pytest.raises(StoreError, match="no route"):
            run(f"{bucket}/videos", out)
    assert len(list((tmp_path / "cache").rglob("part-*.h5"))) == 1
    with monkeypatch.context() as patch:
        patch.setenv("PANECHO_EMBED_CACHE", str(tmp_path / "another"))
        run(f"{bucket}/videos", out, dtype="float16", overwrite=True)
    with pytest.raises(SettingsMismatchError, match="dtype"):
        run(f"{bucket}/videos", out)
    assert run(f"{bucket}/videos", out, dtype="float16").reused == 8
    assert EmbeddingFile(remote.cached(out)).provenance.dtype == "float16"


def test_a_run_that_begins_at_the_end_of_another_keeps_its_work(bucket, tmp_path, monkeypatch):
    at_the_end = []

    def released(lock, remove=RunLock.remove_folder):
        remove(lock)
        home = lock.folder.parent
        home.mkdir(exist_ok=True)
        at_the_end.append(home / "out.h5")
        at_the_end[0].write_text("another run's")

    monkeypatch.setattr(RunLock, "remove_folder", released)
    run(f"{bucket}/videos", f"{bucket}/out.h5")
    assert at_the_end[0].read_text() == "another run's"


def test_videos_that_are_gone_meanwhile_are_failures_to_be_tried_again(bucket, tmp_path):
    table = tmp_path / "list.csv"
    table.write_text(f"path,EF\n{bucket}/videos/p0/v0.npy,50\n{bucket}/videos/p0/late.npy,60\n")
    summary = run(table, tmp_path / "out.h5")
    assert (summary.exit_code, summary.done) == (3, 1)
    assert summary.failed[0].stage == "fetch"
    assert "nothing of that name" in summary.failed[0].message
    system = fsspec.filesystem("s3")
    system.cp_file(f"{bucket}/videos/p0/v1.npy", f"{bucket}/videos/p0/late.npy")
    assert (again := run(table, tmp_path / "out.h5")).exit_code == 0
    assert again.reused == 1


def test_the_network_is_gone_in_mid_run(bucket, tmp_path, monkeypatch):
    def cut(frames):
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        forget("s3")
        return Patches.forward(model.image_encoder, frames)

    model = tiny()
    monkeypatch.setattr(model.image_encoder, "forward", cut)
    table = tmp_path / "list.csv"
    table.write_text("path\n" + "".join(f"{bucket}/videos/p0/v{i}.npy\n" for i in range(3)))
    summary = extract(table, tmp_path / "out.h5", backbone=model, workers=0, batch_pictures=1)
    assert [failure.stage for failure in summary.failed] == ["fetch"] * 2
    assert "can't be reached" in summary.failed[0].message
    assert summary.exit_code == 3


def test_a_table_in_the_bucket_names_what_lies_beside_it(bucket):
    fsspec.filesystem("s3").pipe(f"{bucket}/videos/list.csv", b"path,EF\np0/v1.npy,55\n")
    manifest = read_manifest(f"{bucket}/videos/list.csv")
    assert manifest.videos[0].path == f"{bucket}/videos/p0/v1.npy"
    assert manifest.labels["EF"].tolist() == [55]


def test_dicom_ids_are_those_of_a_local_folder(bucket, tmp_path):
    write_studies(tmp_path / "dicom", layout="dicom", patients=1, num_frames=2, size=(64, 64))
    fsspec.filesystem("s3").put(f"{tmp_path}/dicom/", f"{bucket}/dicom/", recursive=True)
    forget("s3")
    here, there = (
        read_manifest(source, salt="a salt of the tests") for source in (tmp_path / "dicom", f"{bucket}/dicom")
    )
    ids = [[(v.video_id, v.study_id, v.patient_id) for v in manifest.videos] for manifest in (here, there)]
    assert ids[0] == ids[1]
    assert ids[0][0][2].startswith("patient-")
    tables = [describe_manifest(manifest).drop(columns="path") for manifest in (here, there)]
    assert tables[0].equals(tables[1])


def test_reading_commands(bucket, studies, tmp_path):
    here = tmp_path / "here.h5"
    run(studies, here)
    fsspec.filesystem("s3").put(str(here), f"{bucket}/out.h5")
    url = f"{bucket}/out.h5"
    for command in (["info", url], ["verify", url], ["search", url, "--video", "p0/v1.npy", "-k", "2"]):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 0, result.output
    with h5py.File(remote.cached(url)) as one, h5py.File(here) as other:
        assert one.attrs["settings_id"] == other.attrs["settings_id"]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["info", "s3://no-such-bucket-at-all/x.h5"], "nothing of that name (or no such bucket)"),
        (["extract", "s3://no-such-bucket-at-all/x", "-o", "out.h5", "--backbone", "random"], "no such bucket"),
        (["info", "nosuch://x/y.h5"], "nothing can be read or written at nosuch://"),
        (["merge", "s3://b/out.h5"], "only `extract` writes to one"),
        (["reclip", "here.h5", "-o", "s3://b/out.h5"], "only `extract` writes to one"),
    ],
)
def test_what_is_said(bucket, tmp_path, monkeypatch, command, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.h5").touch()
    result = CliRunner().invoke(main, command)
    assert result.exit_code in (1, 2)
    assert message in " ".join(result.output.split())


def test_a_bucket_to_write_to_that_is_not_there(bucket, tmp_path):
    with pytest.raises(StoreError, match="no such bucket"):
        run(f"{bucket}/videos", "s3://no-such-bucket-at-all/out.h5")
    assert list((tmp_path / "cache/written").iterdir()) == []


def test_without_credentials(bucket, tmp_path, monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    forget("s3")
    with pytest.raises(RemoteError, match="credentials"):
        read_manifest(f"{bucket}/videos")


@pytest.mark.parametrize(("url", "package", "extra"), [("s3://b/x", "s3fs", "s3"), ("gs://b/x", "gcsfs", "gcs")])
def test_without_the_extra(monkeypatch, url, package, extra):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, url.partition(":")[0], raising=False)
    with pytest.raises(ArgumentError, match=rf"pip install 'panecho-embed\[{extra}\]'"):
        read_manifest(url)


@pytest.fixture
def memory():
    system = fsspec.filesystem("memory")
    system.store.clear()
    remote.sizes_and_times.cache_clear()
    yield system
    system.store.clear()


def test_public_data_sets_are_refused_rather_than_stripped_of_their_labels(memory):
    memory.pipe("/echonet/FileList.csv", b"FileName,EF\n")
    memory.pipe("/echonet/Videos/a.avi", b"x")
    with pytest.raises(ManifestError, match="EchoNet-Dynamic"):
        read_manifest("memory://echonet")
    assert [video.video_id for video in read_manifest("memory://echonet", "folder").videos] == ["Videos/a.avi"]
    with pytest.raises(ManifestError, match="this machine alone"):
        read_manifest("memory://echonet", "echonet-dynamic")


def test_shards_need_a_file_system(memory, studies):
    with pytest.raises(ArgumentError, match="job array"):
        run(studies, "memory://x/out.h5", shard=Shard(1, 2))


def test_a_copy_is_fetched_again_when_the_file_has_changed(memory, tmp_path, monkeypatch):
    monkeypatch.setenv("PANECHO_EMBED_CACHE", str(tmp_path))
    memory.pipe("/x/a.h5", b"one")
    first = remote.cached("memory://x/a.h5")
    assert remote.cached("memory://x/a.h5") == first
    memory.pipe("/x/a.h5", b"three")
    second = remote.cached("memory://x/a.h5")
    assert second.read_bytes() == b"three"
    assert not first.exists()


def test_a_folder_of_images_is_fetched_as_a_folder(memory):
    for i in range(3):
        memory.pipe(f"/x/study/{i}.png", b"picture")
    assert [video.path for video in read_manifest("memory://x").videos] == ["memory://x/study"]
    with remote.fetched("memory://x/study") as path:
        assert sorted(entry.name for entry in Path(path).iterdir()) == ["0.png", "1.png", "2.png"]
    assert not Path(path).exists()


def test_what_a_killed_process_fetched_is_removed_by_the_next(memory, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ended = subprocess.Popen(["true"])
    ended.wait()
    left = tmp_path / f"{remote.scratch_prefix()}{ended.pid}-x"
    of_another_machine = tmp_path / f"panecho-embed-fetched-other-01234567-{ended.pid}-x"
    for folder in (left, of_another_machine):
        folder.mkdir()
    memory.pipe("/x/a.npy", b"one")
    with remote.fetched("memory://x/a.npy"):
        assert not left.exists()
        assert of_another_machine.exists()


def test_two_may_want_the_same_file_at_once(memory, tmp_path, monkeypatch):
    monkeypatch.setenv("PANECHO_EMBED_CACHE", str(tmp_path))
    memory.pipe("/x/a.h5", b"one")
    fetches = []

    def slow(url, target, download=remote.download):
        fetches.append(url)
        time.sleep(0.3)
        download(url, target)

    monkeypatch.setattr(remote, "download", slow)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(remote.cached, ["memory://x/a.h5"] * 2)
    assert first == second
    assert first.read_bytes() == b"one"
    assert len(fetches) == 1


def test_a_cache_that_cannot_be_written(memory, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("PANECHO_EMBED_CACHE", str(tmp_path / "file"))
    memory.pipe("/x/a.h5", b"one")
    with pytest.raises(RemoteError, match=r"PANECHO_EMBED_CACHE"):
        remote.cached("memory://x/a.h5")


def test_a_fetched_file_is_for_this_user_alone(memory, tmp_path):
    memory.pipe("/x/a.csv", b"path")
    remote.download("memory://x/a.csv", tmp_path / "a.csv")
    assert (tmp_path / "a.csv").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "url",
    [
        "s3://id:s/SECRET@b/v/a.npy",
        "s3://SECRET@b/a.npy",
        "gs://b/a.npy?X-Amz-Signature=SECRET",
        "ftp://u:SECRET@h/a.npy",
    ],
)
def test_secrets_in_urls_are_refused_and_not_told(tmp_path, url):
    table = tmp_path / "list.csv"
    table.write_text(f"path\n{url}\n")
    calls = (
        lambda: read_manifest(url),
        lambda: read_manifest(table),
        lambda: run(tmp_path, url),
        lambda: remote.cached(url),
    )
    for call in calls:
        with pytest.raises((ArgumentError, ManifestError)) as caught:
            call()
        assert "SECRET" not in str(caught.value)
    for command in (["extract", url, "-o", "x.h5"], ["extract", "x", "-o", url], ["info", url], ["merge", url]):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 2
        assert "SECRET" not in result.output


@pytest.mark.parametrize("scheme", ["http", "https", "ftp", "webhdfs", "file", "S3"])
def test_other_schemes_are_refused(scheme):
    with pytest.raises(ArgumentError, match=rf"{scheme}://.*s3:// or gs://"):
        remote.files_below(f"{scheme}://h/dir")


@pytest.mark.parametrize(("text", "url"), [("s3://a/b", True), ("C://a", False), ("/a/b", False), ("a", False)])
def test_what_is_a_url(text, url):
    assert remote.is_url(text) is url


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "~/.cache/panecho-embed/read"),
        ({"XDG_CACHE_HOME": "/xdg"}, "/xdg/panecho-embed/read"),
        ({"XDG_CACHE_HOME": "/xdg", "PANECHO_EMBED_CACHE": "/mine"}, "/mine/read"),
        ({"PANECHO_EMBED_CACHE": "~/mine"}, "~/mine/read"),
    ],
)
def test_where_the_cache_is(monkeypatch, settings, expected):
    for name in ("XDG_CACHE_HOME", "PANECHO_EMBED_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert cache_folder("read") == Path(expected).expanduser()
