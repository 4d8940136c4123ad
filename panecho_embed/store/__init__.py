"""The embedding file: written whole or not at all, read by one function that checks it, merged from parts.

/            attrs: format, schema_version, level, provenance (JSON), settings_id, created_utc
/embeddings  (N, D) float32 or float16, in one piece
/checksums   (B,) uint32, of each 2 MiB of /embeddings
/rows/       video (N,) int32 into /videos; first_frame, frames_per_clip (N,) int32; frame_step (N,) float64
/videos/     video_id, study_id, patient_id, view, split, path, and the facts of `VideoFacts` and `Recording` (M,)
/labels/     one column per label (M,)
/label_units (1,) JSON, units of labels by name; only where any is known
/failures/   video_id, path, stage, message

Further columns of /rows and /videos are handed on by all that reads and writes files. Behind the HDF5 file stands a
table of what lies where, with checksums of every byte (`contents`).
"""

from panecho_embed.store.merge import merge
from panecho_embed.store.mirror import Mirror
from panecho_embed.store.parts import Parts, finish_together
from panecho_embed.store.read import EmbeddingFile
from panecho_embed.store.rows import RowsOnDisk, npy_rows
from panecho_embed.store.verify import verify
from panecho_embed.store.write import EmbeddingWriter

__all__ = [
    "EmbeddingFile",
    "EmbeddingWriter",
    "Mirror",
    "Parts",
    "RowsOnDisk",
    "finish_together",
    "merge",
    "npy_rows",
    "verify",
]
