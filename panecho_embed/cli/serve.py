"""`panecho-embed serve`: a page to look at similar studies."""

from __future__ import annotations

import secrets
from pathlib import Path
from urllib.parse import quote

import click

from panecho_embed.cli.options import existing_file
from panecho_embed.core.errors import NotInstalledError


@click.command()
@click.argument("emb", metavar="EMB.h5", type=existing_file)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8600,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--token",
    envvar="PANECHO_EMBED_TOKEN",
    help="Token that every request needs; the printed address contains it.  [default: a new one]",
)
@click.option("--weights", type=existing_file, help="Weights file for uploads.  [default: where extract looks]")
@click.option(
    "--index/--exact",
    "use_index",
    default=None,
    help="Use the index beside the file, or compare exactly.  [default: the index if there is one]",
)
@click.option(
    "--max-upload-mb",
    type=click.FloatRange(min=0.001),
    default=256.0,
    show_default=True,
    help="Maximum size of an uploaded video in MB.",
)
@click.option(
    "--max-upload-frames",
    type=click.IntRange(min=1),
    default=2000,
    show_default=True,
    help="Maximum number of frames per upload.",
)
@click.option(
    "--max-upload-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=120.0,
    show_default=True,
    help="Time limit for an upload to arrive, and the same again to decode and encode it.",
)
def serve(
    emb: Path,
    host: str,
    port: int,
    token: str | None,
    weights: Path | None,
    use_index: bool | None,
    max_upload_mb: float,
    max_upload_frames: int,
    max_upload_seconds: float,
) -> None:
    """Serve a page on this computer: studies, videos, near studies, a map, search by upload.

    The JSON API behind it describes itself at /api/openapi.json. Needs the extra: pip install 'panecho-embed[serve]'.
    """
    try:
        from panecho_embed.retrieval.server.app import ServeSettings, create_app
        from panecho_embed.retrieval.server.listen import listening, server_of
        from panecho_embed.retrieval.server.upload import UploadLimits
    except ModuleNotFoundError as error:
        raise NotInstalledError(error.name or "fastapi", "serve") from error
    # Whoever else has an account on this computer reaches the port too.
    chosen = token or secrets.token_urlsafe(24)
    limits = UploadLimits(max_upload_mb, max_upload_frames, max_upload_seconds)
    app = create_app(emb, ServeSettings(chosen, weights, use_index, limits))
    for note in app.state.notes:
        click.echo(f"note: {note}", err=True)
    with listening(host, port) as (socket, address):
        click.echo(f"{address}?token={quote(chosen, safe='')}")
        click.echo("Ctrl-C ends it.", err=True)
        server_of(app).run(sockets=[socket])
