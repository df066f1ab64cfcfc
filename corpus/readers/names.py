"""What the names of published files say."""

import re

_SPLITS = {
    "test": "test", "testa": "test", "testb": "test", "testdev": "test", "challenge": "test",
    "val": "val", "validation": "val", "dev": "val", "minival": "val",
}  # fmt: skip


def split_of(path: str) -> str:
    """Tell the split by the words of a file's name, or by its folder, as the owners mark them; without a mark: train.

    Words, not letters: `retrieval_train.jsonl` is no validation set, `latest_train.jsonl` no test set.
    """
    folder, _, name = path.lower().rpartition("/")
    words = set(re.split(r"[^a-z]+", name)) | {folder.rpartition("/")[2]}
    return next((split for word, split in _SPLITS.items() if word in words), "train")
