"""One video of a data set to be written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from panecho_embed.core.records import Frames
from panecho_embed.phantom.filming import render
from panecho_embed.phantom.patients import PhantomPatient, View


@dataclass(frozen=True, slots=True)
class Video:
    """One video to be written. path: relative to the folder written, with forward slashes."""

    path: str
    patient: PhantomPatient
    view: View
    take: int
    split: str
    num_frames: int
    fps: float
    size: tuple[int, int]

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return Path(self.path).stem

    def film(self, overlay: bool) -> Frames:
        """Its pictures, with or without what a scanner burns in."""
        return render(self.patient, self.view, self.num_frames, self.fps, self.size, take=self.take, overlay=overlay)
