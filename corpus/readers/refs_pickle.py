"""RefCOCO's `refs(unc).p`: a pickle, that is, a program. This reader runs only what plain data needs."""

import pickle

from corpus.bugs import raise_ours
from corpus.readers.rows import BadFile
from corpus.readers.slices import open_file
from corpus.values import valid

MAX_BYTES = 512 << 20


class _PlainData(pickle.Unpickler):
    """Lists, dicts, strings and numbers are built by opcodes; anything looked up by name is refused."""

    def find_class(self, module: str, name: str):
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid):
        raise pickle.UnpicklingError("it refers to objects outside the file")


def load_refs(path: str) -> list[dict]:
    """Load a refs file written by Python 2 (lichengunc/refer). Raises BadFile for a pickle that would run code."""
    with open_file(path) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise BadFile(f"{path}: over {MAX_BYTES >> 20} MiB; RefCOCO's files have a tenth of that")
    try:
        # Python 2 wrote str as bytes; Latin-1 turns them into text without loss.
        refs = valid(_PlainData(_Bytes(data), encoding="latin-1").load())
    except pickle.UnpicklingError as error:
        raise BadFile(
            f"{path}: refused, {error}. A refs file is plain data; this one is not what its owners publish"
        ) from None
    except Exception as error:  # a damaged pickle raises EOFError, ValueError, IndexError, AttributeError, ...
        raise_ours(error)
        raise BadFile(f"{path}: damaged pickle ({type(error).__name__}: {error}); fetch the file again") from None
    if not isinstance(refs, list) or not all(
        isinstance(r, dict) and {"ann_id", "image_id", "sentences"} <= r.keys() for r in refs
    ):
        raise BadFile(f"{path}: no list of refs with ann_id, image_id and sentences")
    return refs


class _Bytes:
    """Bytes as a file whose reads never allocate more than there is, whatever length an opcode claims."""

    def __init__(self, data: bytes):
        self._data, self._at = data, 0

    def read(self, size: int = -1) -> bytes:
        end = len(self._data) if size < 0 else min(self._at + size, len(self._data))
        chunk, self._at = self._data[self._at : end], end
        return chunk

    def readline(self) -> bytes:
        end = self._data.find(b"\n", self._at) + 1 or len(self._data)
        chunk, self._at = self._data[self._at : end], end
        return chunk
