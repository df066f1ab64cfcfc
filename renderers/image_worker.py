"""The confined process of `renderers.image_process`: reads one image at a time.

Started as `python -m renderers.image_worker SOCKET_FD PARENT_PID`; everything else comes as messages.
"""

import io

import numpy as np
from PIL import Image

from corpus.records import decode_image, image_header, verify_image
from renderers.confined import serve
from renderers.image_process import KEPT_INFO


def _rehearse() -> None:
    """Read images of our own: libraries import what they need at first use, and later no file opens any more."""
    Image.preinit()
    deep = Image.fromarray(np.full((8, 8), 30_000, np.uint16))
    for image, kind in ((Image.new("RGB", (8, 8)), "JPEG"), (deep, "PNG"), (Image.new("LA", (8, 8)), "PNG"),
                        (Image.new("RGBA", (8, 8)), "WEBP")):  # fmt: skip
        file = io.BytesIO()
        image.save(file, kind)
        decode_image(file.getvalue())
        verify_image(file.getvalue(), image.size)


def main() -> None:
    """Serve until the other side of the socket closes."""
    serve(_rehearse, _answer)


def _answer(request: dict, blobs: list[bytes]) -> tuple[dict, list[bytes]]:
    return ANSWERS[request["do"]](blobs[0], request)


def _header(data: bytes, request: dict) -> tuple[dict, list[bytes]]:
    ext, *size = image_header(data, request["max_pixels"])
    return {"ext": ext, "size": size}, []


def _decode(data: bytes, request: dict) -> tuple[dict, list[bytes]]:
    image = decode_image(data, request["max_pixels"])
    found = {name: image.info[name] for name in KEPT_INFO if image.info.get(name)}
    values = [value.encode() if isinstance(value, str) else value for value in found.values()]
    return {"size": image.size, "info": list(found)}, [image.tobytes(), *values]


def _verify(data: bytes, request: dict) -> tuple[dict, list[bytes]]:
    verify_image(data, request["size"])
    return {}, []


ANSWERS = {"header": _header, "decode": _decode, "verify": _verify}

if __name__ == "__main__":
    main()
