"""The confined process of `renderers.pdf_process`: opens one document at a time and renders its pages on request.

Started as `python -m renderers.pdf_worker SOCKET_FD PARENT_PID`; everything else comes as messages.
"""

import gc
import os
import socket
import sys

import pymupdf
from PIL import Image

from corpus.bugs import bug_in
from renderers import confine, frames
from renderers.confined import settle
from renderers.encoded import OutputSettings, encode_page
from renderers.page import BadDocument
from renderers.pdf import PdfSettings, open_pdf, render_page
from renderers.rules import PDF_RULES
from renderers.windows import Budget


def main() -> None:
    """Serve until the other side of the socket closes."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    job = socket.socket(fileno=descriptor)
    try:
        limits = settle(job, descriptor, parent, _rehearse)
        _serve(job, limits["page_seconds"])
    except frames.Closed:
        os._exit(0)  # MuPDF's own cleanup may crash on what a hostile file left behind


def _rehearse() -> None:
    """Render a page of our own: libraries import what they need at its first use, and later no file opens any more."""
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    Image.preinit()
    document = pymupdf.open()
    page = document.new_page(width=300, height=200)
    page.insert_text((20, 40), ["A page of ours,", "two lines of words \u00c3\u00a9 and \ufffd."])
    page.insert_text((20, 120), "\u4e2d\u6587\u5b57", fontname="china-s")
    everything = OutputSettings(rules=PDF_RULES)
    encode_page(render_page(open_pdf(document.tobytes()), 0, PdfSettings()), everything)


def _serve(job: socket.socket, page_seconds: float) -> None:
    document = None
    gc.freeze()
    gc.disable()  # thousands of characters at once look like a leak to it; collecting between requests costs nothing
    while True:
        request, blobs = frames.receive(job)
        confine.limit_cpu(page_seconds)
        try:
            if request["do"] == "open":
                document, drawing, output = None, *_settings(request)
                document = open_pdf(blobs[0])
                reply, blobs = {"pages": document.page_count}, []
            else:
                reply, blobs = encode_page(render_page(document, request["page"], drawing), output)
        except BadDocument as error:
            reply, blobs = {"failed": error.kind, "detail": str(error)}, []
        except MemoryError:
            reply, blobs = {"failed": "memory", "detail": "out of memory while measuring or encoding the page"}, []
        except Exception as error:
            if (bug := bug_in(error)) is None:
                raise
            reply, blobs = {"bug": str(bug)}, []
        frames.send(job, reply, blobs)
        gc.collect()


def _settings(request: dict) -> tuple[PdfSettings, OutputSettings]:
    output = dict(request["output"])
    return PdfSettings(**request["drawing"]), OutputSettings(**output | {"budget": Budget(**output["budget"])})


if __name__ == "__main__":
    main()
