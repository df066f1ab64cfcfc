"""A hostile program in place of the image decoder: it does to the header of an "image" what `hostile_parser` does."""

import os

from corpus.records import BadImage
from renderers import image_worker
from renderers.page import BadDocument
from tests import hostile_parser


def header(data: bytes, request: dict):
    """Do what the JSON in `data` asks for, and answer with the outcomes."""
    try:
        hostile_parser.open_pdf(data)
    except BadDocument as error:
        raise BadImage(error.kind, str(error)) from None


if __name__ == "__main__":
    import sys

    hostile_parser.ANSWERS, hostile_parser.LEFT_OPEN = int(sys.argv[1]), os.open(__file__, os.O_RDONLY)
    image_worker.ANSWERS["header"] = header
    image_worker.main()
