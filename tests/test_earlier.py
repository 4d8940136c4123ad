"""What an earlier release made in another order of planes is refused by every command that would use it."""

from __future__ import annotations

import gzip
import json
import shutil

import numpy as np
import pytest
import torch

from panecho_embed.core.digests import write_sums
from panecho_embed.core.errors import ArgumentError, EarlierReleaseError, WeightsError
from panecho_embed.core.shards import Shard
from panecho_embed.extraction.run import extract
from panecho_embed.models.backbones import load_backbone
from panecho_embed.models.panecho import PanEcho, save_checkpoint
from panecho_embed.retrieval.embed_new import Embedder
from panecho_embed.store import EmbeddingFile, verify
from tests.cli.test_extract import run
from tests.resealed import reseal_attributes
from tests.test_extraction import moving
from tests.tiny import tiny

SAID = "made by an earlier release: it does not say in which order of planes"


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies")
    for i in range(3):
        np.save(folder / f"v{i}.npy", moving(18, seed=i))
    return folder


def age(path):
    """Make an embedding file what an earlier release wrote: no order of planes in its record."""
    record = json.loads(EmbeddingFile(path).provenance.to_json())
    del record["plane_order"]
    reseal_attributes(path, provenance=json.dumps(record))
    return path


@pytest.fixture
def earlier(studies, tmp_path):
    extract(studies, tmp_path / "e.h5", backbone=tiny(), workers=0)
    return age(tmp_path / "e.h5")


@pytest.mark.parametrize(
    "words",
    [
        ["info", "FILE"],
        ["pool", "FILE", "--by", "study", "-o", "OUT"],
        ["reclip", "FILE", "-o", "OUT"],
        ["probe", "linear", "FILE", "--target", "view", "-o", "OUT"],
        ["audit", "FILE"],
        ["search", "FILE", "--video", "v0.npy"],
        ["index", "FILE"],
        ["predict", "FILE", "-o", "OUT"],
        ["atlas", "FILE", "-o", "OUT"],
    ],
    ids=lambda words: words[0],
)
def test_commands_refuse_an_embedding_file(words, earlier, tmp_path):
    words = [{"FILE": earlier, "OUT": tmp_path / "out"}.get(word, word) for word in words]
    assert SAID in run(*words, expect=1).output
    assert not (tmp_path / "out").exists()


def test_verify_names_it(earlier):
    assert SAID in run("verify", earlier, expect=1).output
    assert SAID in verify(earlier)[0]


def test_extract_refuses_to_go_on_and_makes_it_anew_when_asked(earlier, studies):
    before = earlier.read_bytes()
    with pytest.raises(EarlierReleaseError, match=r"Make it again"):
        extract(studies, earlier, backbone=tiny(), workers=0)
    assert earlier.read_bytes() == before
    extract(studies, earlier, backbone=tiny(), workers=0, overwrite=True)
    assert verify(earlier) == []


def test_extract_refuses_to_go_on_from_parts(studies, tmp_path, monkeypatch):
    monkeypatch.setattr("panecho_embed.extraction.writing.PART_VIDEOS", 1)

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("panecho_embed.extraction.run.finish_together", stopped)
    out = tmp_path / "e.h5"
    with pytest.raises(KeyboardInterrupt):
        extract(studies, out, backbone=tiny(), workers=0)
    monkeypatch.undo()
    for part in (tmp_path / "e.h5.parts").glob("part-*.h5"):
        age(part)
    with pytest.raises(EarlierReleaseError, match=SAID):
        extract(studies, out, backbone=tiny(), workers=0)
    assert extract(studies, out, backbone=tiny(), workers=0, overwrite=True).done == 3


def test_a_fine_tuned_checkpoint_without_an_order_is_refused_and_a_released_one_is_published(tmp_path):
    save_checkpoint(PanEcho(pretrained=False, width=1 / 12), tmp_path / "w.pt")
    content = torch.load(tmp_path / "w.pt", weights_only=True)
    assert content["panecho_embed"]["plane_order"] == "published"
    del content["panecho_embed"]["plane_order"]
    torch.save(content, tmp_path / "w.pt")
    for load in (lambda path: PanEcho(weights=path), lambda path: load_backbone("panecho", path)):
        with pytest.raises(WeightsError, match=r"an earlier release trained this model on RGB frames.*fine-tune again"):
            load(tmp_path / "w.pt")
    del content["panecho_embed"]
    torch.save(content, tmp_path / "w.pt")
    assert PanEcho(weights=tmp_path / "w.pt").plane_order == "published"
    assert load_backbone("panecho", tmp_path / "w.pt").plane_order == "published"


def test_a_model_on_frames_is_no_checkpoint_for_panecho_s_own_code(tmp_path):
    """That reads the state dict under "weights", by the released names."""
    model = PanEcho(pretrained=False, width=1 / 12)
    model.plane_order = "frames"
    save_checkpoint(model, tmp_path / "w.pt")
    content = torch.load(tmp_path / "w.pt", weights_only=True)
    assert content.keys() == {"state_dict", "panecho_embed"}
    assert not [name for name in content["state_dict"] if name.startswith("encoder.")]
    assert content["panecho_embed"]["layout"] == "panecho-embed"
    again = PanEcho(weights=tmp_path / "w.pt")
    assert again.plane_order == "frames"
    x = torch.rand(1, 3, 4, 32, 32)
    with torch.inference_mode():
        assert torch.equal(again(x)["EF"], model(x)["EF"])
        again.plane_order = "published"
        assert not torch.allclose(again(x)["EF"], model(x)["EF"])


def test_heads_and_uploads_take_no_embeddings_of_another_order(studies, tmp_path):
    """Of the same weights: `grid --frozen` makes such files."""
    save_checkpoint(PanEcho(pretrained=False, tasks=["EF"], width=1 / 12), tmp_path / "w.pt")
    backbone = load_backbone("panecho", tmp_path / "w.pt", image_size=32)
    backbone.plane_order = "frames"
    file = EmbeddingFile(extract(studies, tmp_path / "e.h5", backbone=backbone, workers=0).out)
    words = ["predict", file.path, "-o", tmp_path / "p", "--weights", tmp_path / "w.pt"]
    assert "made with the order of planes 'frames', and panecho takes 'published'" in run(*words, expect=1).output
    with pytest.raises(ArgumentError, match="order of planes 'frames', and panecho takes 'published'"):
        Embedder(file.provenance, tmp_path / "w.pt", device="cpu")


def test_parts_of_other_shards_are_refused(studies, tmp_path):
    extract(studies, tmp_path / "e.h5", backbone=tiny(), workers=0, shard=Shard(1, 2))
    kept = tmp_path / "e.h5.parts" / ".videos.jsonl.gz"
    head, *lines = gzip.decompress(kept.read_bytes()).splitlines()
    record = json.loads(head)
    provenance = json.loads(record["provenance"])
    del provenance["plane_order"]
    record["provenance"] = json.dumps(provenance)
    kept.write_bytes(gzip.compress(b"\n".join([json.dumps(record).encode(), *lines])))
    with pytest.raises(EarlierReleaseError, match=r"the parts in .* are made by an earlier release"):
        extract(studies, tmp_path / "e.h5", backbone=tiny(), workers=0, shard=Shard(2, 2))


def test_weights_of_our_own_layout_are_verified(tmp_path):
    model = PanEcho(pretrained=False, tasks=["EF"], width=1 / 12)
    model.plane_order = "frames"
    save_checkpoint(model, tmp_path / "w.pt")
    assert "whole: panecho with 1 heads" in run("weights", "verify", tmp_path / "w.pt").output


def test_an_order_that_there_is_not_is_refused(tmp_path):
    model = PanEcho(pretrained=False, tasks=["EF"], width=1 / 12)
    model.plane_order = "mixed"
    with pytest.raises(ArgumentError, match="plane_order is 'mixed'; allowed are published, frames"):
        model(torch.rand(1, 3, 2, 32, 32))
    with pytest.raises(ArgumentError, match="plane_order is 'mixed'"):
        save_checkpoint(model, tmp_path / "w.pt")


def test_a_saved_probe_is_refused(studies, tmp_path):
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "video_id,EF,split\n"
        + "".join(f"v{i}.npy,{40 + 5 * i},{s}\n" for i, s in enumerate(("train", "train", "test")))
    )
    extract(studies, tmp_path / "e.h5", backbone=tiny(), workers=0)
    words = ["--target", "EF", "--labels", labels, "-o", tmp_path / "probe", "--draws", "10"]
    run("probe", "linear", tmp_path / "e.h5", *words)
    saved = tmp_path / "probe" / "probe.json"
    document = json.loads(saved.read_text())
    del document["targets"]["EF"]["provenance"]["plane_order"]
    saved.write_text(json.dumps(document))
    write_sums(saved.parent)
    result = run("probe", "apply", tmp_path / "probe", tmp_path / "e.h5", "-o", tmp_path / "p.csv", expect=1)
    assert "probe.json: trained on embeddings made by an earlier release" in result.output


def test_an_index_of_such_a_file_goes_with_it(studies, tmp_path):
    extract(studies, tmp_path / "e.h5", backbone=tiny(), workers=0)
    run("index", tmp_path / "e.h5")
    shutil.copy(tmp_path / "e.h5", tmp_path / "kept.h5")
    age(tmp_path / "e.h5")
    assert SAID in run("search", tmp_path / "e.h5", "--video", "v0.npy", expect=1).output
    assert EmbeddingFile(tmp_path / "kept.h5").provenance.plane_order == "frames"
