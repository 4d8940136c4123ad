"""The embedding file: written whole or not at all, opened by h5py alone, checked, merged from parts.

/            attrs: format, schema_version, level, provenance (JSON), fingerprint, created_utc
/embeddings  (N, D) float32 or float16
/rows/       video (N,) int32 into /videos; first_frame, frames_per_clip (N,) int32; frame_step (N,) float64
/videos/     video_id, study_id, patient_id, view, split, path, sha256, num_frames, fps, fps_source, status (M,)
/labels/     one column per label (M,)
/failures/   video_id, path, stage, message
"""

from panecho_embed.store.mapped import RowsOnDisk
from panecho_embed.store.merge import merge
from panecho_embed.store.mirror import Mirror
from panecho_embed.store.parts import Parts, finish_together
from panecho_embed.store.read import EmbeddingFile
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
    "verify",
]
