"""What the API promises beside its models: parameters and error answers, as the OpenAPI document tells them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query
from fastapi.responses import Response

from panecho_embed.retrieval.filters import MAX_LENGTH
from panecho_embed.retrieval.server.models import Problem
from panecho_embed.retrieval.similarity import Measure

_FILTER = (
    "A filter over columns: comparisons with numbers, 'texts', lists and None, joined by and, or, not. "
    "A study is picked if one of its videos is."
)

StudyId = Annotated[str, Query(max_length=1000, description="The id of a study.", examples=["PHANTOM-0001-S1"])]
VideoId = Annotated[str, Query(max_length=1000, description="The id of a video.", examples=["PHANTOM-0001-S1/A4C-1"])]
AskingStudy = Annotated[
    str | None,
    Query(max_length=1000, description="Ask with this study; give it or `video`.", examples=["PHANTOM-0001-S1"]),
]
AskingVideo = Annotated[
    str | None,
    Query(max_length=1000, description="Ask with this video; give it or `study`.", examples=["PHANTOM-0001-S1/A4C-1"]),
]
AskingUpload = Annotated[
    str | None,
    Query(max_length=100, description="Ask again with an upload: the name that its answer gave, for half an hour."),
]
FileName = Annotated[
    str | None,
    Query(max_length=1000, description="The file's name; of it, only a known suffix is used.", examples=["new.avi"]),
]
Words = Annotated[
    str | None,
    Query(max_length=1000, description="Part of the id of a study or patient, or of a view.", examples=["A4C"]),
]
Where = Annotated[str | None, Query(max_length=MAX_LENGTH, description=_FILTER, examples=["view == 'A4C' and EF < 40"])]
SortColumn = Annotated[
    str | None, Query(max_length=1000, description="A column, see /api/info; none: as in the file.", examples=["EF"])
]
Descending = Annotated[bool, Query(description="Turn the order round; what has no value stands last either way.")]
Offset = Annotated[int, Query(ge=0, le=2**31, description="How many to leave out at the beginning.")]
Limit = Annotated[int, Query(ge=1, le=200, description="How many to give at most.")]
Neighbours = Annotated[int, Query(ge=1, le=200, description="How many to find.")]
Level = Annotated[Literal["study", "video"], Query(description="What to find.")]
Similarity = Annotated[
    Measure,
    Query(
        description="How studies are compared: the cosine of their means; the best match of every video, both ways; "
        "view by view. Videos are compared by their cosine, whatever stands here."
    ),
]
SamePatient = Annotated[bool, Query(description="Keep the patient's other studies and videos in.")]
MapMethod = Annotated[Literal["pca", "umap"], Query(description="How the map is made.")]
PointColumn = Annotated[str, Query(max_length=1000, description="A column, see /api/info.", examples=["EF"])]
Stamp = Annotated[
    str | None,
    Query(
        alias="of",
        max_length=100,
        description="The stamp of the file, as the pages carry it; with it a browser may keep the answer for a while.",
    ),
]


def _problem(description: str, example: str) -> dict[str, Any]:
    return {
        "model": Problem,
        "description": description,
        "content": {"application/json": {"example": {"detail": example}}},
    }


GUARDED: dict[int | str, dict[str, Any]] = {
    401: _problem("The token is missing or wrong.", "a token is needed: the address that `serve` printed holds it"),
    403: _problem("Another page asked.", "another page can't ask; open this one in the browser"),
    421: _problem("Asked for under another name.", "this page answers to 127.0.0.1 and localhost only"),
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: _problem("A filter, column or combination that can't be used.", "there is no column 'EFF'; nearest: EF"),
    404: _problem(
        "An id that is not in the file, or a video that has moved.",
        "no study is called 'PHANTOM-1-S1' in echos.h5; nearest: PHANTOM-0001-S1",
    ),
    422: _problem("A parameter of the wrong kind.", "k: Input should be less than or equal to 200"),
}
MEDIA_PROBLEMS: dict[int | str, dict[str, Any]] = PROBLEMS | {
    409: _problem("A stamp of another file.", "the page is of another file than is served now; reload it"),
}
UPLOAD_PROBLEMS: dict[int | str, dict[str, Any]] = PROBLEMS | {
    408: _problem(
        "Too slow to arrive, or to decode and encode.",
        "decoding and encoding the upload took longer than 120 s, the most that is allowed; cut the video, or let "
        "`serve --max-upload-seconds` allow more",
    ),
    413: _problem(
        "Too large, or too many frames to encode.",
        "the upload is larger than 256 MB, the most that is taken; `serve --max-upload-mb` takes more",
    ),
    415: _problem("Not sent as application/octet-stream.", "send the file's bytes as application/octet-stream"),
    422: _problem(
        "A parameter of the wrong kind, or no video.",
        "no video could be read from the upload: no frame could be decoded",
    ),
    503: _problem(
        "The model's weights are not available, or two other uploads wait already.",
        "another upload is being answered; try again in a while",
    ),
}
UPLOAD_BODY = {
    "requestBody": {
        "required": True,
        "description": "A DICOM, AVI, MP4 or another video file, byte for byte.",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}
DESCRIPTION = """Similar echocardiogram studies in one embedding file.

All ids are those of the file; no parameter is ever taken for a path. Errors are JSON: `{"detail": "why"}`.
Where `serve` printed a token, every request needs it as `Authorization: Bearer TOKEN`."""


def binary(media_type: str, description: str) -> dict[str, Any]:
    """What to give a route that answers with bytes of one type."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    return {
        "response_class": Response,
        "responses": {**MEDIA_PROBLEMS, 200: {"description": description, "content": content}},
    }


def ranged(media_type: str, description: str) -> dict[str, Any]:
    """The same for a route of whose bytes a range can be asked for."""
    whole = binary(media_type, description)
    part = {"description": "The range that was asked for.", "content": whole["responses"][200]["content"]}
    whole["responses"] |= {206: part, 416: {"description": "The range lies behind the end."}}
    return whole
