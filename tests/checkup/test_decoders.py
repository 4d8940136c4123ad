from __future__ import annotations

import cv2
from pydicom.uid import JPEG2000

from panecho_embed.checkup import decoders


class Missing:
    """What pydicom gives for a transfer syntax without a plug-in."""

    is_available = False
    available_plugins = ()
    UID = JPEG2000


def test_all_decoders_of_this_installation_are_there():
    checks = decoders.check_decoders()
    assert {check.status for check in checks} == {"ok"}
    assert any("FFmpeg" in check.text for check in checks)
    assert any("JPEG 2000: pydicom 3" in check.text and "pylibjpeg 2" in check.text for check in checks)


def test_a_missing_plug_in_is_named_with_what_installs_it(monkeypatch):
    real = decoders.get_decoder
    monkeypatch.setattr(decoders, "get_decoder", lambda uid: Missing() if uid == JPEG2000 else real(uid))
    (warning,) = (check for check in decoders.check_decoders() if check.status != "ok")
    assert warning.status == "warning"
    assert "can't decode JPEG 2000" in warning.text
    assert "pylibjpeg" in warning.mend


def test_opencv_without_ffmpeg(monkeypatch):
    monkeypatch.setattr(cv2.videoio_registry, "hasBackend", lambda backend: False)
    check = decoders.check_decoders()[0]
    assert check.status == "warning"
    assert "no AVI" in check.text
    assert "opencv-python-headless" in check.mend
