"""What the JSON API answers; the OpenAPI document is made of these."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

Value = float | int | str | None


class Problem(BaseModel):
    """Why a request was refused."""

    detail: str


class Column(BaseModel):
    """A column that filters, tables and the map can name."""

    name: str
    kind: Literal["number", "text"]
    values: list[str] = Field(description="a text column's values, if there are at most 50")
    low: float | None = None
    high: float | None = None


class Info(BaseModel):
    """What is served."""

    file: str
    level: str
    studies: int
    videos: int
    patients: int
    backbone: str
    weights: str
    pretrained: bool
    fingerprint: str
    index: str = Field(description='kind of index that searches use, "exact" without')
    columns: list[Column]
    similarities: list[str]
    upload_limit_mb: float
    upload_limit_frames: int = Field(description="of an upload that may have to be encoded")
    upload_limit_seconds: float = Field(description="for an upload to arrive, and again to be decoded and encoded")
    notes: list[str] = Field(description="what a person should know of the columns: labels that have another name here")
    has_videos: bool


class Video(BaseModel):
    """A video of a study. match: its cosine with the nearest video of the query."""

    video_id: str
    view: str
    num_frames: int
    fps: float | None
    match: float | None = None


class Item(BaseModel):
    """A study or a video. labels: every other column. videos: its videos (a study's first twelve)."""

    level: Literal["study", "video"]
    id: str
    study_id: str
    patient_id: str
    view: str
    labels: dict[str, Value]
    num_videos: int
    videos: list[Video]


class Listing(BaseModel):
    """A page of the table of studies."""

    total: int
    offset: int
    items: list[Item]


class Hit(BaseModel):
    """A neighbour. similarity: -1 to 1."""

    rank: int
    similarity: float
    item: Item


class Hits(BaseModel):
    """The neighbours of a query, best first."""

    query: str
    level: Literal["study", "video"]
    similarity: str
    candidates: int
    note: str
    hits: list[Hit]


class UploadHits(Hits):
    """The neighbours of an uploaded video, and a moving picture of it (a data: address)."""

    preview: str
    notes: list[str]


class MapPoints(BaseModel):
    """Points of a map. values: the colour column, null where missing; message: why there are no points (yet)."""

    method: Literal["pca", "umap"]
    state: Literal["ready", "computing", "failed"]
    message: str
    level: Literal["study", "video"]
    ids: list[str]
    studies: list[str]
    x: list[float]
    y: list[float]
    values: list[Value]
