"""The faces of the manifest as they are on this machine; tests that draw with all of them skip where one is missing."""

from functools import cache

import pytest
from PIL import features

from synth_ocr.fonts import Face, locate, read_manifest


def every_face() -> list[Face]:
    """Return all faces, found, in the manifest's order."""
    has_raqm()
    faces, found = read_manifest(), _found()
    if missing := [face.name for face in faces if face.name not in found]:
        pytest.skip(f"{len(missing)} of {len(faces)} faces are not installed (python pipelines/doctor.py --install)")
    return [found[face.name] for face in faces]


def has_raqm() -> None:
    """Skip a test that sets text where Pillow cannot."""
    if not features.check("raqm"):
        pytest.skip("Pillow finds no FriBiDi to set text with (python pipelines/doctor.py --install)")


@cache
def _found() -> dict[str, Face]:
    return locate(read_manifest())
