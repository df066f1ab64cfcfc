"""The confined process of `renderers.pdf_process`: opens one document at a time and renders its pages on request.

Started as `python -m renderers.pdf_worker SOCKET_FD PARENT_PID`; everything else comes as messages.
"""

import pymupdf
from PIL import Image

from renderers.confined import serve
from renderers.encoded import OutputSettings, encode_page
from renderers.page import BadDocument
from renderers.pdf import PdfSettings, open_pdf, render_page
from renderers.rules import PDF_RULES
from renderers.windows import Budget


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


class Reader:
    """Answers with the document that it was given last."""

    def answer(self, request: dict, blobs: list[bytes]) -> tuple[dict, list[bytes]]:
        """Open a document, or render a page of it."""
        try:
            if request["do"] == "open":
                return self._opened(request, blobs[0]), []
            return encode_page(render_page(self._document, request["page"], self._drawing), self._output)
        except MemoryError:
            raise BadDocument("memory", "out of memory while measuring or encoding the page") from None

    def _opened(self, request: dict, data: bytes) -> dict:
        self._document, self._drawing, self._output = None, *_settings(request)
        self._document = open_pdf(data)
        return {"pages": self._document.page_count}


def main() -> None:
    """Serve until the other side of the socket closes."""
    serve(_rehearse, Reader().answer)


def _settings(request: dict) -> tuple[PdfSettings, OutputSettings]:
    output = dict(request["output"])
    return PdfSettings(**request["drawing"]), OutputSettings(**output | {"budget": Budget(**output["budget"])})


if __name__ == "__main__":
    main()
