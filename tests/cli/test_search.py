from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

from panecho_embed.cli.atlas import atlas
from panecho_embed.cli.index import index
from panecho_embed.cli.pool import pool
from panecho_embed.cli.search import print_table, search
from panecho_embed.cli.serve import serve
from panecho_embed.core.errors import PanEchoEmbedError
from panecho_embed.retrieval import Collection
from probes.cli.audit import audit
from tests.search.conftest import embed_films, make_films, vectors_file


@pytest.fixture
def emb(tmp_path):
    return vectors_file(tmp_path / "emb.h5")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    return make_films(tmp_path_factory.mktemp("films"))


@pytest.fixture(scope="module")
def film_emb(films):
    return embed_films(films)


def run(command, *arguments) -> str:
    result = CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_study_finds_studies_as_a_table_as_json_and_as_csv(emb):
    table = run(search, emb, "--study", "P2-S0", "-k", 3)
    found = json.loads(run(search, emb, "--study", "P2-S0", "-k", 3, "--json"))
    rows = list(csv.DictReader(io.StringIO(run(search, emb, "--study", "P2-S0", "-k", 3, "--csv"))))
    ids = [hit["study_id"] for hit in found["hits"]]
    assert len(ids) == 3
    assert [row["study_id"] for row in rows] == ids
    assert re.findall(r"P\d-S0", table.split("\n", 1)[1]) == ids
    assert "EF" in table


def test_numbers_stand_in_line_with_no_more_decimals_than_they_need(capsys):
    print_table([{"similarity": 0.99121, "EF": 15.5, "age": 49}, {"similarity": 0.98, "EF": 31, "age": None}],
                ["similarity", "EF", "age"])  # fmt: skip
    assert capsys.readouterr().out.splitlines() == [
        "similarity    EF  age",
        "    0.9912  15.5   49",
        "    0.9800  31.0",
    ]


def test_filters_and_measures_are_passed_on(emb):
    found = json.loads(run(search, emb, "--study", "P2-S0", "--where", "EF > 30", "--similarity", "best", "--json"))
    assert {hit["patient_id"] for hit in found["hits"]} == {"P4", "P5"}
    assert found["similarity"] == "best"


def test_a_vector_finds_videos(emb, tmp_path):
    np.save(tmp_path / "q.npy", np.ones(8))
    assert json.loads(run(search, emb, "--vector", tmp_path / "q.npy", "--json"))["level"] == "video"


def test_evaluation_has_the_documented_keys(emb):
    found = json.loads(run(search, emb, "--evaluate", "sex", "--level", "clip", "--json"))
    for name in ("top1", "top5", "map"):
        assert {"value", "low", "high"} <= found[name].keys()


def test_the_study_measures_stand_side_by_side(emb):
    table = run(search, emb, "--evaluate", "split", "--level", "study")
    assert all(name in table for name in ("mean", "best", "view", "chance"))
    found = json.loads(run(search, emb, "--evaluate", "split", "--level", "study", "--json"))
    assert found["measures"].keys() == {"mean", "best", "view"}


def test_a_flag_that_can_do_nothing_for_a_vector_is_refused(emb, tmp_path):
    np.save(tmp_path / "q.npy", np.ones(8))
    with pytest.raises(
        PanEchoEmbedError, match=r"--include-same-patient does nothing: .*q\.npy shows no patient of emb\.h5"
    ):
        run(search, emb, "--vector", tmp_path / "q.npy", "--include-same-patient")


def test_a_measure_that_is_asked_for_is_the_only_one(emb):
    found = json.loads(run(search, emb, "--evaluate", "split", "--level", "study", "--similarity", "best", "--json"))
    assert found["similarity"] == "best"
    assert "measures" not in found


def test_the_table_says_what_a_column_was_taken_as(emb):
    said = run(search, emb, "--evaluate", "EF", "--include-same-patient")
    assert said.startswith("EF as a class (it holds 5 different whole numbers; --as changes that) at video level")
    assert "difference1" in run(search, emb, "--evaluate", "EF", "--as", "number")


def test_every_result_says_what_it_was_made_with(emb):
    for asked in (["--study", "P2-S0"], ["--evaluate", "split"], ["--duplicates", 0.9], ["--outliers", 2]):
        result = CliRunner().invoke(search, [str(a) for a in (emb, *asked, "--json")], catch_exceptions=False)
        block = json.loads(result.stdout)["made"]
        assert (block["weights"], block["pretrained"]) == ("random (seed 0)", False)
        assert block["settings_id"] == Collection(emb).provenance.settings_id
        assert "note: RANDOM WEIGHTS, NOT PRETRAINED (random (seed 0)): results say nothing" in result.stderr


def test_the_index_that_was_used_is_named(emb):
    run(index, emb, "--kind", "ivf")
    assert "nearest of 15 videos, by ivf; --exact compares all" in run(search, emb, "--video", "P1/S0/A4C")
    assert "nearest of 15 videos\n" in run(search, emb, "--video", "P1/S0/A4C", "--exact")
    found = json.loads(run(search, emb, "--video", "P1/S0/A4C", "--where", "EF > 1", "--json"))["made"]
    assert (found["found_by"], found["where"], found["same_patient"]) == ("ivf", "EF > 1", False)


def test_a_table_of_several_studies_is_asked_with_one_of_them(film_emb, films):
    with pytest.raises(PanEchoEmbedError, match=r"holds 5 studies .*--query-study"):
        run(search, film_emb, "--file", films)
    found = json.loads(run(search, film_emb, "--file", films, "--query-study", "PHANTOM-0003-S1", "--json"))
    assert "counts as patient PHANTOM-0003, left out" in found["note"]


def test_a_measure_that_can_not_be_evaluated_is_named(tmp_path):
    emb = vectors_file(tmp_path / "no-views.h5", views=("",), patients=8)
    found = json.loads(run(search, emb, "--evaluate", "split", "--level", "study", "--json"))
    assert found["measures"].keys() == {"mean", "best"}
    assert "the query's views are not known" in found["not_evaluated"]["view"]
    table = run(search, emb, "--evaluate", "split", "--level", "study")
    assert "note: by view, not evaluated, for none of the 8 study items can be compared by view" in table


def test_duplicates_across_patients_stand_out(tmp_path):
    values = np.eye(6)
    values[3] = values[1]
    emb = vectors_file(tmp_path / "d.h5", views=("A4C",), dim=6, rows=1, values=values)
    assert "2 items, lowest 1.0000, 2 PATIENTS: P1/S0/A4C, P3/S0/A4C" in run(search, emb, "--duplicates", 0.98)
    assert len(json.loads(run(search, emb, "--duplicates", 0.98, "--json"))["groups"]) == 1


def test_filters_hold_for_duplicates_and_outliers(emb):
    rows = json.loads(run(search, emb, "--outliers", 99, "--where", "view == 'PLAX'", "--json"))["outliers"]
    assert [row["view"] for row in rows] == ["PLAX"] * 6
    groups = json.loads(run(search, emb, "--duplicates", -1, "--where", "view == 'PLAX'", "--json"))["groups"]
    assert [len(group["items"]) for group in groups] == [6]


def test_outliers_are_listed(emb):
    assert len(json.loads(run(search, emb, "--outliers", 4, "--json"))["outliers"]) == 4
    assert "distance" in run(search, emb, "--outliers", 4)


def test_a_contact_sheet_is_one_file_that_loads_nothing(film_emb, tmp_path):
    out = tmp_path / "sheet.html"
    run(search, film_emb, "--study", "PHANTOM-0002-S1", "-k", 2, "--html", out)
    page = out.read_text()
    assert page.count("data:image/webp;base64,") == 9
    assert not re.search(r"(src|href)=\"(?!data:)", page)


def test_a_contact_sheet_says_which_videos_have_moved(emb, tmp_path):
    run(search, emb, "--video", "P1/S0/A4C", "--html", tmp_path / "sheet.html")
    assert "video not shown: it can" in (tmp_path / "sheet.html").read_text()


def test_a_sheet_replaces_what_is_asked_for_alone(emb, tmp_path):
    out = tmp_path / "sheet.html"
    out.write_text("mine")
    with pytest.raises(PanEchoEmbedError, match=r"is there already; take another output \(--html\)"):
        run(search, emb, "--study", "P1-S0", "--html", out)
    assert out.read_text() == "mine"
    found = json.loads(run(search, emb, "--study", "P1-S0", "--html", out, "--overwrite", "--json"))
    assert len(found["hits"]) == 5
    assert "Similar to study P1-S0" in out.read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"emb.h5", "sheet.html"}


@pytest.mark.parametrize("link", ["itself", "a link", "a hard link"])
def test_the_embedding_file_is_never_replaced(emb, tmp_path, link):
    out = tmp_path / "other.h5"
    if link == "itself":
        out = emb
    else:
        (out.symlink_to if link == "a link" else out.hardlink_to)(emb)
    before = emb.read_bytes()
    for command, *arguments in (
        (search, emb, "--study", "P1-S0", "--html", out),
        (search, emb, "--study", "P1-S0", "--html", out, "--overwrite"),
        (atlas, emb, "-o", out, "--method", "pca", "--overwrite"),
        (pool, emb, "--by", "study", "-o", out, "--overwrite"),
        (audit, emb, "-o", out, "--overwrite"),
    ):
        with pytest.raises(PanEchoEmbedError, match=r"is what is read, .*emb\.h5; it would be lost"):
            run(command, *arguments)
    assert emb.read_bytes() == before


def test_a_new_file_is_embedded_by_the_same_weights(film_emb, films, tmp_path):
    with (tmp_path / "new.npy").open("wb") as file:
        # Another header: the same pixels, other bytes.
        np.lib.format.write_array(file, np.load(films.with_name("PHANTOM-0003-A4C-0.npy")), version=(2, 0))
    found = json.loads(run(search, film_emb, "--file", tmp_path / "new.npy", "--json"))
    best = found["hits"][0]
    assert best["video_id"] == "PHANTOM-0003-S1/A4C-0"
    assert best["similarity"] == pytest.approx(1, abs=1e-5)
    assert found["note"] == ""


def test_a_file_that_is_embedded_already_counts_as_its_patient(film_emb, films):
    found = json.loads(run(search, film_emb, "--file", films.with_name("PHANTOM-0003-A4C-0.npy"), "--json"))
    assert "PHANTOM-0003" not in {hit["patient_id"] for hit in found["hits"]}
    assert "shows PHANTOM-0003-S1/A4C-0 of films.h5, and counts as patient PHANTOM-0003" in found["note"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nothing is given; give one of --study"),
        (["--study", "P1-S0", "--video", "x"], "--study and --video is given"),
        (["--study", "P9"], "no study is called 'P9'"),
        (["--study", "P1-S0", "-k", "0"], "k is 0"),
        (["--study", "P1-S0", "--where", "EEF < 3"], "nearest: EF"),
        (["--study", "P1-S0", "--index"], "has no index; build one"),
        (["--study", "P1-S0", "--json", "--csv"], "both given"),
        (["--outliers", "3", "--html", "x.html"], "--html does nothing with --outliers"),
        (["--evaluate", "EF", "--where", "EF > 3"], "--where does nothing with --evaluate"),
        (["--duplicates", "1", "-k", "10"], "-k does nothing with --duplicates"),
        (["--outliers", "3", "--exact"], "--index/--exact does nothing with --outliers"),
        (["--study", "P1-S0", "--weights", __file__], "--weights does nothing with --study"),
        (["--evaluate", "EEF"], "no column 'EEF'"),
        (["--evaluate", "EF", "--similarity", "best"], "'best' compares studies; videos are compared by their cosine"),
        (["--video", "P1/S0/A4C", "--similarity", "mean"], "leave --similarity out, or take studies (--level study)"),
        (["--duplicates", "2"], "between -1 and 1"),
        (["--study", "P1-S0", "--overwrite"], "--overwrite is about --html"),
    ],
)
def test_mistakes_are_named(emb, arguments, says):
    with pytest.raises(PanEchoEmbedError) as error:
        CliRunner().invoke(search, [str(emb), *arguments], catch_exceptions=False)
    assert says in str(error.value)


def test_a_path_in_place_of_an_id_leads_to_the_flag_for_files(emb):
    for flag in ("--study", "--video"):
        with pytest.raises(PanEchoEmbedError, match=r"is called .* it is a path: .* --file"):
            CliRunner().invoke(search, [str(emb), flag, str(emb)], catch_exceptions=False)


def test_an_index_is_built_used_and_refused_when_stale(emb):
    told = run(index, emb, "--kind", "ivf", "--recall", "0.9")
    assert "ivf (IVF1,PQ4x4fsr) finds 1.000 of the ten nearest videos (0.9 asked for) by 1 lists and 18" in told
    assert "ivf over 18 videos" in told
    with_index = run(search, emb, "--study", "P2-S0", "--index", "--json")
    assert (
        json.loads(with_index)["hits"] == json.loads(run(search, emb, "--study", "P2-S0", "--exact", "--json"))["hits"]
    )
    vectors_file(emb, seed=5)
    with pytest.raises(PanEchoEmbedError, match="renew it: panecho-embed index"):
        CliRunner().invoke(search, [str(emb), "--study", "P2-S0"], catch_exceptions=False)


def test_an_atlas_has_the_columns_that_embedding_atlas_reads(film_emb, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "atlas.parquet"
    said = run(atlas, film_emb, "-o", out, "--method", "pca")
    assert said.endswith("--x x --y y --neighbors neighbors --image thumbnail\n")
    read = parquet.read_table(out)
    types = {field.name: str(field.type) for field in read.schema}
    assert types["x"] == types["y"] == "float"
    assert types["EF"] == "double"
    # A text of JSON would be shown, but not followed from point to point.
    assert types["neighbors"] == "struct<ids: list<element: int64>, distances: list<element: double>>"
    table = read.to_pydict()
    for row, near in enumerate(table["neighbors"]):
        assert len(near["ids"]) == len(near["distances"]) == 14
        assert row not in near["ids"]
        assert near["distances"] == sorted(near["distances"])
    assert table["video_id"][table["neighbors"][0]["ids"][0]] == "PHANTOM-0001-S1/A4C-1"
    assert all(picture.startswith("data:image/jpeg;base64,") for picture in table["thumbnail"])


def test_an_atlas_of_videos_that_have_moved_has_no_pictures(emb, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "atlas.parquet"
    run(atlas, emb, "-o", out, "--method", "pca")
    assert set(parquet.read_table(out)["thumbnail"].to_pylist()) == {None}
    with pytest.raises(PanEchoEmbedError, match="is there already; take another output"):
        run(atlas, emb, "-o", out, "--method", "pca")
    assert "--image" not in run(atlas, emb, "-o", out, "--method", "pca", "--no-thumbnails", "--overwrite")
    assert "thumbnail" not in parquet.read_schema(out).names


def test_a_host_that_can_not_be_had_is_named(emb):
    with pytest.raises(PanEchoEmbedError, match=r"host is 'no\.such\.host\.invalid'"):
        CliRunner().invoke(serve, [str(emb), "--host", "no.such.host.invalid"], catch_exceptions=False)


def test_the_page_is_announced_with_what_became_of_labels(tmp_path, monkeypatch):
    import uvicorn

    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: None)
    monkeypatch.setattr(Collection, "notes", ("the label 'fps' is called 'label_fps' here",))
    result = CliRunner().invoke(serve, [str(vectors_file(tmp_path / "emb.h5")), "--port", "0"], catch_exceptions=False)
    assert result.stderr.startswith("note: the label 'fps' is called 'label_fps' here\n")


def test_the_address_of_the_page_holds_a_new_token_or_the_one_that_is_given(emb, monkeypatch):
    import uvicorn

    monkeypatch.setattr(uvicorn.Server, "run", lambda *_, **__: None)
    addresses = [CliRunner().invoke(serve, [str(emb), "--port", "0", *more]).stdout
                 for more in ((), (), ("--token", "a/b"))]  # fmt: skip
    tokens = [address.strip().partition("?token=")[2] for address in addresses]
    assert min(len(token) for token in tokens[:2]) >= 32
    assert tokens[0] != tokens[1]
    assert tokens[2] == "a%2Fb"
