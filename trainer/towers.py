"""Vision towers by name: ours, and the plain ViTs of open_clip."""

from trainer.sizes import TOWERS, VisionConfig


def tower_config(name: str) -> VisionConfig:
    """Look up a tower: one of ours, or any plain ViT that open_clip knows by name.

    Raises ValueError for an unknown name, or for a tower that is not open_clip's plain ViT (timm and attention-pool
    towers have other blocks).
    """
    if name in TOWERS:
        return TOWERS[name]
    import open_clip  # seconds to import; most runs use a tower of the table

    found = open_clip.get_model_config(name)
    if found is None:
        known = ", ".join([*TOWERS, *(m for m in open_clip.list_models() if m.startswith("ViT-"))])
        raise ValueError(f"no vision tower {name!r}; known are {known}")
    return _from_open_clip(name, found)


_KNOWN_FIELDS = {"image_size", "layers", "width", "head_width", "mlp_ratio", "patch_size", "no_ln_pre", "output_tokens"}


def _from_open_clip(name: str, found: dict) -> VisionConfig:
    vision = found["vision_cfg"]
    if "width" not in vision or not isinstance(vision.get("layers"), int) or set(vision) - _KNOWN_FIELDS:
        raise ValueError(f"open_clip's {name!r} is not a plain ViT: its vision_cfg is {vision}")
    return VisionConfig(
        name=name,
        width=vision["width"],
        layers=vision["layers"],
        heads=vision["width"] // vision.get("head_width", 64),
        mlp_width=int(vision["width"] * vision.get("mlp_ratio", 4.0)),
        patch=vision["patch_size"],
        image_size=vision["image_size"],
        quick_gelu=bool(found.get("quick_gelu")),
        ln_pre=not vision.get("no_ln_pre", False),
    )
