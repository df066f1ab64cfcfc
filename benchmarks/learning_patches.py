"""The learning proof with something changed that no flag should change: deliberate bugs, and windowed attention.

python -m benchmarks.learning_patches PATCH MODULE ARGUMENTS... runs a module of this project with the patch in place.
"""

import runpy
import sys

import numpy as np
import torch
import torch.nn.functional as F

WINDOW = 4  # patches a side


def mask_off_by_one() -> None:
    """Supervise from the second token of an answer to the one behind its end."""
    from trainer import attention

    right = attention.targets
    attention.targets = lambda tokens, supervised, segments: right(tokens, np.roll(supervised, 1), segments)


def boxes_swapped() -> None:
    """Write (y, x) for (x, y) into the training data."""
    from corpus import formats

    box, quad = formats.normalise_box, formats.normalise_quad

    def swapped_box(*args):
        found = box(*args)
        return found and (found[1], found[0], found[3], found[2])

    def swapped_quad(*args):
        found = quad(*args)
        return found and [(y, x) for x, y in found]

    formats.normalise_box, formats.normalise_quad = swapped_box, swapped_quad


def no_positions() -> None:
    """Take the positions out of the adapter: its queries no longer know what lies where."""
    from trainer import adapter

    right = adapter.sincos_table
    adapter.sincos_table = lambda *args, **more: torch.zeros_like(right(*args, **more))


def windows() -> None:
    """Let patches attend within windows of 4 x 4 patches only, in every block (the paper's ablation, E.3)."""
    from trainer import vision

    def forward(self, x):
        n, patches, width = x.shape
        side = round(patches**0.5)
        cut = (n, side // WINDOW, WINDOW, side // WINDOW, WINDOW, width)
        cells = x.view(cut).transpose(2, 3).reshape(-1, WINDOW * WINDOW, width)
        qkv = self.in_proj(cells).unflatten(-1, (-1, 3, self.head_dim))
        q, k, v = qkv.permute(3, 0, 2, 1, 4).unbind(0)
        out = self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        back = (n, side // WINDOW, side // WINDOW, WINDOW, WINDOW, width)
        return out.view(back).transpose(2, 3).reshape(n, patches, width)

    vision.Attention.forward = forward


PATCHES = {patch.__name__: patch for patch in (mask_off_by_one, boxes_swapped, no_positions, windows)}

if __name__ == "__main__":
    patch, module, *arguments = sys.argv[1:]
    PATCHES[patch]()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
