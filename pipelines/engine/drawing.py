"""What a sample says, and the shapes that are drawn over its picture."""

from collections.abc import Iterator

from corpus.records import Sample


def words(sample: Sample) -> str:
    """Return the text of a sample of any task, for people to read."""
    notes = sample.annotations
    if "question" in notes:
        return f"{notes['question']} — {notes.get('answer', '')}"
    if "turns" in notes:
        return "\n".join(f"{turn['role']}: {turn['text']}" for turn in notes["turns"])
    return sample.text or "\n".join(line["text"] for line in notes.get("lines", []))


def outlines(annotations: dict) -> Iterator[tuple[str, str]]:
    """Yield (SVG polygon points in pixels of the stored image, what it is called) of boxes and quads."""
    for region in annotations.get("regions", []):
        for x0, y0, x1, y1 in region["boxes"]:
            yield f"{x0},{y0} {x1},{y0} {x1},{y1} {x0},{y1}", region.get("text") or ""
    for line in annotations.get("lines", []):
        yield " ".join(f"{x},{y}" for x, y in line["quad"]), line.get("text") or ""
