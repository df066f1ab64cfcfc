"""A stage folder in ML Commons' Croissant format 1.1: its shards with digests, and what a pack holds."""

from collections.abc import Mapping, Sequence

from corpus.folder import VERSION, Manifest

_CROISSANT, _SCHEMA, _TERMS = "http://mlcommons.org/croissant/", "https://schema.org/", "http://purl.org/dc/terms/"
_TERMS_OF_IT = (
    "citeAs column dataBiases dataCollection equivalentProperty extract field fileProperty fileObject fileSet format "
    "includes isLiveDataset jsonPath key md5 parentField path personalSensitiveInformation recordSet references regex "
    "repeated replace samplingRate separator source subField transform"
)
CONTEXT = {
    "@language": "en", "@vocab": _SCHEMA, "sc": _SCHEMA, "cr": _CROISSANT, "dct": _TERMS, "rai": f"{_CROISSANT}RAI/",
    "conformsTo": "dct:conformsTo", "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "examples": {"@id": "cr:examples", "@type": "@json"},
    **{name: f"cr:{name}" for name in _TERMS_OF_IT.split()},
}  # fmt: skip


def croissant(
    name: str, record: Mapping, manifests: Sequence[Manifest], licences: Sequence[str], languages: Sequence[str]
) -> dict:
    """Return the JSON-LD of a stage folder: every shard a FileObject, the packs' JSON a FileSet and a RecordSet."""
    shards = [_shard(manifest) for manifest in manifests]
    members = {
        "@type": "cr:FileSet", "@id": "packs", "name": "packs", "encodingFormat": "application/json",
        "includes": "*.json", "containedIn": [{"@id": shard["@id"]} for shard in shards],
        "description": "The JSON of every pack: its task, and per sample key, dataset, start, length and images.",
    }  # fmt: skip
    return {
        "@context": CONTEXT, "@type": "sc:Dataset", "conformsTo": f"{_CROISSANT}1.1", "name": _identifier(name),
        "description": f"{name}: {record['samples']} samples in {record['packs']} packs of at most "
        f"{record['max_tokens']} tokens, with loss masks and images, as WebDataset shards.",
        "license": list(licences), "inLanguage": list(languages), "version": f"{VERSION}+{record['digest'][:12]}",
        "isLiveDataset": False, "distribution": [*shards, members] if shards else [],
        "recordSet": [_packs()] if shards else [],
    }  # fmt: skip


def _shard(manifest: Manifest) -> dict:
    name = f"{manifest.split}.tar"
    about = {"@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": name}
    size = {"contentSize": f"{manifest.sizes['tar']} B"} if manifest.sizes else {}
    return about | size | {"encodingFormat": "application/x-tar", "sha256": manifest.files["tar"]}


def _packs() -> dict:
    def field(name: str, property_: str, says: str) -> dict:
        source = {"fileSet": {"@id": "packs"}, "extract": {"fileProperty": property_}}
        about = {"@type": "cr:Field", "@id": f"pack/{name}", "name": name, "description": says}
        return about | {"dataType": "sc:Text", "source": source}

    fields = [
        field("name", "filename", "The name of the pack's JSON member; its other members begin with the same key."),
        field("json", "content", "The pack's task and samples."),
    ]
    return {"@type": "cr:RecordSet", "@id": "pack", "name": "pack", "description": "Packs.", "field": fields}


def _identifier(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name).strip("-")
