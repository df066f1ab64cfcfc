"""The confined process of `renderers.pdf_process`: opens one document at a time and renders its pages on request.

Started as `python -m renderers.pdf_worker SOCKET_FD PARENT_PID`; everything else comes as messages.
"""

import os
import socket
import sys
import time

import pymupdf

from corpus.bugs import bug_in
from renderers import confine, frames
from renderers.encoded import OutputSettings, encode_page
from renderers.page import BadDocument
from renderers.pdf import PdfSettings, open_pdf, render_page
from renderers.windows import Budget


def main() -> None:
    """Serve until the other side of the socket closes."""
    descriptor, parent = int(sys.argv[1]), int(sys.argv[2])
    confine.die_with_parent(parent)
    job = socket.socket(fileno=descriptor)
    limits, _ = frames.receive(job)
    confine.drop_network()
    confine.limit_memory(limits["memory"])
    pymupdf.TOOLS.mupdf_display_errors(False)
    pymupdf.TOOLS.mupdf_display_warnings(False)
    try:
        _serve(job, limits["page_seconds"])
    except frames.Closed:
        os._exit(0)  # MuPDF's own cleanup may crash on what a hostile file left behind


def _serve(job: socket.socket, page_seconds: float) -> None:
    document = None
    while True:
        request, blobs = frames.receive(job)
        confine.limit_cpu(page_seconds)
        started = time.process_time()
        try:
            if request["do"] == "open":
                document, drawing, output = None, *_settings(request)
                document = open_pdf(blobs[0])
                reply, blobs = {"pages": document.page_count, "repaired": document.is_repaired}, []
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
        frames.send(job, reply | {"seconds": time.process_time() - started}, blobs)


def _settings(request: dict) -> tuple[PdfSettings, OutputSettings]:
    output = dict(request["output"])
    return PdfSettings(**request["drawing"]), OutputSettings(**output | {"budget": Budget(**output["budget"])})


if __name__ == "__main__":
    main()
