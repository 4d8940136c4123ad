"""What the JSON API answers; the OpenAPI document is made of these."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

Value = float | int | str | None


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="in words: what is wrong, what is allowed, the nearest names")


class Column(BaseModel):
    """A column that filters, tables and the map can name."""

    name: str = Field(examples=["EF"])
    kind: Literal["number", "text"]
    values: list[str] = Field(description="a text column's values, if there are at most 50")
    low: float | None = Field(
        default=None, description="a number column's least value; null for texts, or where all miss"
    )
    high: float | None = Field(default=None, description="a number column's greatest value")


class Info(BaseModel):
    """What is served."""

    file: str = Field(description="the embedding file's name, without its folder", examples=["echos.h5"])
    level: str = Field(description="what a row of it is: frame, clip, video or study", examples=["clip"])
    studies: int
    videos: int = Field(description="0 for a file at study level")
    patients: int
    backbone: str = Field(examples=["panecho"])
    weights: str = Field(description="the name of the weights file, or how they were made", examples=["panecho.pt"])
    pretrained: bool = Field(description="false: random weights, whose similarities say nothing about a trained model")
    settings_id: str = Field(description="SHA-256 of the settings that made the embeddings")
    index: str = Field(description='kind of index that searches use, "exact" without', examples=["exact"])
    columns: list[Column]
    similarities: list[str] = Field(description="ways to compare studies that this file allows")
    upload_limit_mb: float = Field(examples=[256.0])
    upload_limit_frames: int = Field(description="of an upload that may have to be encoded", examples=[2000])
    upload_limit_seconds: float = Field(
        description="for an upload to arrive, and again to be decoded and encoded", examples=[120.0]
    )
    notes: list[str] = Field(description="what a person should know of the columns: labels that have another name here")
    has_videos: bool = Field(description="false for a file at study level")
    clip_limit_frames: int = Field(
        description="a clip shows at most this many frames of a longer video, from its start"
    )


class Video(BaseModel):
    """One video of a study and its facts."""

    video_id: str = Field(examples=["PHANTOM-0001-S1/A4C-1"])
    view: str = Field(description="empty where not known", examples=["A4C"])
    num_frames: int
    fps: float | None = Field(description="frames per second, null where not known")
    match: float | None = Field(
        default=None,
        description="its cosine with the nearest video of the query, of the same view where there is one; "
        "null without a query",
    )


class Item(BaseModel):
    """A study or a video."""

    level: Literal["study", "video"]
    id: str = Field(description="study_id, or video_id", examples=["PHANTOM-0001-S1"])
    study_id: str
    patient_id: str
    view: str = Field(description="of a study: all that its videos have", examples=["A2C, A4C"])
    labels: dict[str, Value] = Field(description="every other column; null where missing", examples=[{"EF": 55.2}])
    num_videos: int
    num_failed: int = Field(description="of a study: further videos of it that have no embedding, and are not shown")
    videos: list[Video] = Field(
        description="its videos; of a study in a table, the first twelve; of one among hits, the twelve to "
        "compare with the query: a view at a time, best match first"
    )


class Listing(BaseModel):
    """A page of the table of studies."""

    total: int = Field(description="studies that match, on all pages")
    offset: int = Field(description="how many of them stand before this page")
    items: list[Item]


class Hit(BaseModel):
    """A neighbour."""

    rank: int = Field(description="1 is the nearest")
    similarity: float = Field(description="-1 to 1; 1 is identical", examples=[0.9312])
    item: Item


class Hits(BaseModel):
    """The neighbours of a query, best first."""

    query: str = Field(examples=["study PHANTOM-0001-S1"])
    level: Literal["study", "video"]
    similarity: str = Field(description="mean, best or view for studies, cosine for videos")
    candidates: int = Field(description="how many studies or videos were compared, after filters")
    note: str = Field(description="what a person should know besides, or empty")
    hits: list[Hit] = Field(description="fewer than k where fewer exist")


class UploadHits(Hits):
    """The neighbours of an uploaded video."""

    upload: str = Field(description="a name for `/api/search?upload=`, to ask again without sending the video")
    preview: str = Field(description="a moving picture of the upload, as a data: address")
    notes: list[str] = Field(description="what of the upload could not be used, and why")


class MapPoints(BaseModel):
    """Points of a map; lists of one length, a point a place."""

    method: Literal["pca", "umap"]
    state: Literal["ready", "computing", "failed"] = Field(description="computing: ask again in a second or two")
    message: str = Field(description="why there are no points (yet), or empty")
    level: Literal["study", "video"] = Field(description="what a point is")
    ids: list[str]
    studies: list[str] = Field(description="the study of every point")
    x: list[float]
    y: list[float]


class MapValues(BaseModel):
    """A column's values, in the order of the map's points."""

    column: str = Field(examples=["EF"])
    values: list[Value] = Field(description="null where missing")
