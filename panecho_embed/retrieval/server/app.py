"""The ASGI application: the JSON API, pictures and clips, and the pages that use them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

import jinja2
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool

from panecho_embed._version import __version__
from panecho_embed.core.errors import ArgumentError, MediaError, PanEchoEmbedError, WeightsError
from panecho_embed.datasets import LocalIds
from panecho_embed.media.pictures import Picture
from panecho_embed.retrieval.collection import UnknownIdError
from panecho_embed.retrieval.embed_new import Embedder, NewVideos
from panecho_embed.retrieval.find import Query, vector_query
from panecho_embed.retrieval.index import open_collection
from panecho_embed.retrieval.pictures import known_fps, video_path
from panecho_embed.retrieval.server import contract
from panecho_embed.retrieval.server.cache import PictureCache
from panecho_embed.retrieval.server.guard import Guard
from panecho_embed.retrieval.server.library import Library
from panecho_embed.retrieval.server.models import Hits, Info, Item, Listing, MapPoints, MapValues, UploadHits
from panecho_embed.retrieval.server.picture_workers import Kind, PictureWorkers, draw
from panecho_embed.retrieval.server.refusals import refusal
from panecho_embed.retrieval.server.upload import KeptUploads, UploadError, UploadLimits, Uploads

_PACKAGE = "panecho_embed.retrieval"
_CACHE_BYTES = 256 * 1024 * 1024

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_FLAGS = re.compile(r" \(-{1,2}[a-z][\w-]*(?:;[^()]*)?\)")


class StampError(ArgumentError):
    """A picture asked for by a page of another file."""


_STATUS = (((UnknownIdError, MediaError), 404), (StampError, 409), (WeightsError, 503))


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """How a file is served.

    token: asked for in every request; None: only this computer may ask. weights: for uploads, None to look where
    `extract` looks. use_index: as in `open_collection`.
    """

    token: str | None = None
    weights: Path | None = None
    use_index: bool | None = None
    limits: UploadLimits = field(default_factory=UploadLimits)


def create_app(emb: str | Path, settings: ServeSettings | None = None, embedder: Embedder | None = None) -> FastAPI:
    """The page and API of an embedding file; everything that a first request needs is read before it comes.

    `state.notes` of what comes back says what a person should know of the columns. embedder: for uploads, where one is
    loaded already. Raises StoreError for a file that can't be served.
    """
    chosen = settings or ServeSettings()
    collection, index = open_collection(emb, chosen.use_index)
    library = Library(collection, index)

    def make_embedder() -> Embedder:
        known = LocalIds.beside(collection.path)
        return embedder or Embedder(collection.provenance, chosen.weights, known=known)

    picture_workers = PictureWorkers()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(picture_workers.close)

    app = FastAPI(
        lifespan=lifespan,
        title="panecho-embed",
        version=__version__,
        description=contract.DESCRIPTION,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        responses=contract.GUARDED,
    )
    _add_errors(app)
    uploads = Uploads(make_embedder, chosen.limits)
    _add_items(app, library, uploads.limits)
    _add_searches(app, library, uploads)
    _add_media(app, library, picture_workers)
    _add_pages(app, library.stamp)
    app.add_middleware(Guard, token=chosen.token)
    app.state.notes = collection.notes
    return app


def _add_errors(app: FastAPI) -> None:
    def answer(status: int, detail: str) -> JSONResponse:
        # Messages name the command line's flags; a page has none.
        detail = _FLAGS.sub("", detail)
        # Escapes keep half a character pair, which UTF-8 can't hold, from breaking the answer.
        return JSONResponse({"detail": detail.encode("utf-8", "backslashreplace").decode()}, status)

    @app.exception_handler(PanEchoEmbedError)
    def refused(_request: Request, error: PanEchoEmbedError) -> JSONResponse:
        return answer(next((status for kinds, status in _STATUS if isinstance(error, kinds)), 400), str(error))

    @app.exception_handler(UploadError)
    def not_taken(_request: Request, error: UploadError) -> JSONResponse:
        return answer(error.status, error.detail)

    @app.exception_handler(404)
    def nowhere(request: Request, error: HTTPException) -> Response:
        return refusal(404, "There is no such page", str(error.detail), request.url.path, request.headers)

    @app.exception_handler(RequestValidationError)
    def malformed(_request: Request, error: RequestValidationError) -> JSONResponse:
        problems = (f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in error.errors())
        return answer(422, "; ".join(problems))


def _add_items(app: FastAPI, library: Library, limits: UploadLimits) -> None:
    """What is served: the file, its studies, and its videos as a table, one by one, and as points of a map."""

    @app.get("/api/info")
    def info() -> Info:
        """What is served, and the columns that filters can name."""
        return library.info(limits)

    @app.get("/api/studies", responses=contract.PROBLEMS)
    def studies(
        q: contract.Words = None,
        where: contract.Where = None,
        sort: contract.SortColumn = None,
        descending: contract.Descending = False,
        offset: contract.Offset = 0,
        limit: contract.Limit = 50,
    ) -> Listing:
        """A page of the table of studies."""
        return library.listing(q or "", where, sort or "", descending, offset, limit)

    @app.get("/api/study", responses=contract.PROBLEMS)
    def study(id: contract.StudyId) -> Item:
        """A study with all of its videos."""
        return library.item("study", library.collection.position("study", library.own_id("study", id)), every=True)

    @app.get("/api/video", responses=contract.PROBLEMS)
    def video(id: contract.VideoId) -> Item:
        """A video with its own labels."""
        return library.item("video", library.collection.position("video", library.own_id("video", id)))

    @app.get("/api/map", responses=contract.PROBLEMS)
    def points(method: contract.MapMethod = "pca") -> MapPoints:
        """Every video as a point; UMAP begins to be computed when it is first asked for."""
        return library.points(method)

    @app.get("/api/map/values", responses=contract.PROBLEMS)
    def values(column: contract.PointColumn) -> MapValues:
        """A column's values, one a point of the map."""
        return library.values(column)


def _add_searches(app: FastAPI, library: Library, uploads: Uploads) -> None:
    """Searches by an id of the file, by a video in the request, and by one that was sent before."""
    kept = KeptUploads()

    def upload_query(new: NewVideos) -> Query:
        return vector_query(library.collection, new.vectors, "upload", new.views)

    @app.get("/api/search", responses=contract.PROBLEMS)
    def search(
        study: contract.AskingStudy = None,
        video: contract.AskingVideo = None,
        upload: contract.AskingUpload = None,
        level: contract.Level = "study",
        k: contract.Neighbours = 10,
        similarity: contract.Similarity = "mean",
        where: contract.Where = None,
        include_same_patient: contract.SamePatient = False,
    ) -> Hits:
        """The studies or videos nearest to a study or a video of the file, or to an upload that is kept."""
        if upload is None:
            query = library.query(study, video)
        elif study is video is None:
            query = upload_query(kept.get(upload))
        else:
            raise ArgumentError("give one of study, video and upload")
        return library.hits(query, level, k, similarity, where, include_same_patient)

    @app.post("/api/search", responses=contract.UPLOAD_PROBLEMS, openapi_extra=contract.UPLOAD_BODY)
    async def search_upload(
        request: Request,
        name: contract.FileName = None,
        level: contract.Level = "study",
        k: contract.Neighbours = 10,
        similarity: contract.Similarity = "mean",
        where: contract.Where = None,
    ) -> UploadHits:
        """The studies or videos nearest to the video in the body; of the file nothing is kept."""
        # A type that a foreign page can't send without asking first.
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/octet-stream":
            raise UploadError(415, "send the file's bytes as application/octet-stream")
        taken = await uploads.take(request, name or "")
        hits = library.hits(upload_query(taken.new), level, k, similarity, where, include_same_patient=True)
        return UploadHits(
            **hits.model_dump(), upload=kept.keep(taken.new), preview=taken.preview, notes=list(taken.new.notes)
        )


def _add_media(app: FastAPI, library: Library, picture_workers: PictureWorkers) -> None:
    cache = PictureCache(_CACHE_BYTES)
    collection = library.collection

    def shown(kind: Kind, video: str, stamp: str | None) -> Response:
        if stamp not in (None, library.stamp):
            raise StampError("the page is of another file than is served now; reload it")
        own = library.own_id("video", video, suggest=False)

        def make() -> Picture:
            return picture_workers.make(draw, video_path(collection, own), kind, known_fps(collection, own))

        picture = cache.get((kind, own), make)
        # Without the stamp, another file's picture could be kept under the same address.
        keep = "no-store" if stamp is None else "private, max-age=600"
        return Response(picture.content, media_type=picture.media_type, headers={"Cache-Control": keep})

    @app.get("/api/thumbnail", **contract.binary("image/webp", "The animated picture."))
    def moving(video: contract.VideoId, stamp: contract.Stamp = None) -> Response:
        """The first second and a half of a video, small, as an animated WebP."""
        return shown("thumbnail", video, stamp)

    @app.get("/api/still", **contract.binary("image/jpeg", "The picture."))
    def first_frame(video: contract.VideoId, stamp: contract.Stamp = None) -> Response:
        """The first frame of a video as JPEG."""
        return shown("still", video, stamp)

    @app.get("/api/clip", **contract.ranged("video/mp4", "The whole clip."))
    def clip(request: Request, video: contract.VideoId, stamp: contract.Stamp = None) -> Response:
        """A video as MP4; ranges of it can be asked for."""
        return _partial(shown("clip", video, stamp), request.headers.get("range"))


def _add_pages(app: FastAPI, stamp: str) -> None:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(_PACKAGE, "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )

    def page(path: str, name: str) -> None:
        html = environment.get_template(f"{name}.html").render(page=name, stamp=stamp)

        def answer() -> HTMLResponse:
            return HTMLResponse(html, headers={"Cache-Control": "no-cache"})

        app.add_api_route(path, answer, include_in_schema=False)

    for path, name in (("/", "studies"), ("/study", "study"), ("/map", "map"), ("/upload", "upload")):
        page(path, name)
    static = resources.files(_PACKAGE).joinpath("static")
    app.mount("/static", StaticFiles(directory=str(static)), name="static")


def _partial(whole: Response, wanted: str | None) -> Response:
    """The byte range (RFC 9110, section 14) that a request asks for; all of the answer for none, or for several.

    Safari plays no video without ranges.
    """
    whole.headers["Accept-Ranges"] = "bytes"
    match = _RANGE.fullmatch((wanted or "").strip())
    if match is None or not (match[1] or match[2]):
        return whole
    body = bytes(whole.body)
    size = len(body)
    if match[1]:
        first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
    else:
        first, last = max(0, size - int(match[2])), size - 1
    if first > last:
        return Response(status_code=416, headers={"Content-Range": f"bytes */{size}"})
    headers = {k: v for k, v in whole.headers.items() if k.lower() != "content-length"}
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return Response(body[first : last + 1], 206, headers, whole.media_type)
