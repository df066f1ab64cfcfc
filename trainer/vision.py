"""The vision tower: open_clip's ViT without class token, ln_post and projection, as Qwen-VL uses it.

Shapes: N images, C = 3 channels, S pixels per side, G = S / patch patches per side, P = G * G patches, D width.

The tensors are laid out and named as in Qwen-VL's checkpoints: `attn.in_proj` holds, per head, that head's rows of
q, then k, then v. open_clip stores all of q, then k, then v; `convert.py` permutes. The interleaved layout is also
the one that tensor parallelism can cut by heads.
"""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from trainer.sizes import VisionConfig

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class QuickGELU(nn.Module):
    """OpenAI's approximation of GELU, in the towers open_clip names `-quickgelu`."""

    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Attention(nn.Module):
    """Multi-head self-attention over all patches of an image; in_proj is interleaved per head."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.head_dim = width // heads
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x):  # [N, P, D]
        # -1 heads: under tensor parallelism each rank holds only some of them.
        qkv = self.in_proj(x).unflatten(-1, (-1, 3, self.head_dim))
        q, k, v = qkv.permute(3, 0, 2, 1, 4).unbind(0)  # each [N, heads, P, head_dim]
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class MLP(nn.Module):
    def __init__(self, config: VisionConfig):
        super().__init__()
        self.c_fc = nn.Linear(config.width, config.mlp_width)
        self.gelu = QuickGELU() if config.quick_gelu else nn.GELU()
        self.c_proj = nn.Linear(config.mlp_width, config.width)

    def forward(self, x):
        return self.c_proj(self.gelu(self.c_fc(x)))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.attn = Attention(config.width, config.heads)
        self.ln_2 = nn.LayerNorm(config.width, eps=config.layer_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Blocks(nn.Module):
    def __init__(self, config: VisionConfig):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(config) for _ in range(config.layers))


class VisionTower(nn.Module):
    """Images -> patch features, both at any resolution that is a multiple of the patch size."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.config = config
        self.activation_checkpointing = False
        self.conv1 = nn.Conv2d(3, config.width, config.patch, stride=config.patch, bias=False)
        self.positional_embedding = nn.Parameter(torch.empty(config.grid**2, config.width))
        self.ln_pre = nn.LayerNorm(config.width, eps=config.layer_norm_eps) if config.ln_pre else nn.Identity()
        self.transformer = Blocks(config)

    def forward(self, pixels):
        """[N, 3, S, S], normalised -> [N, P, D]."""
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        x = self.ln_pre(x + resize_table(self.positional_embedding, x.shape[1]).to(x.dtype))
        for block in self.transformer.resblocks:
            if self.activation_checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x


def normalise(pixels):
    """[N, 3, S, S] uint8 -> float32 with CLIP's mean and standard deviation."""
    mean, std = (_per_channel(values, pixels.device) for values in (CLIP_MEAN, CLIP_STD))
    return (pixels.float() / 255 - mean) / std


def _per_channel(values, device):
    """[3, 1, 1] filled on the device: torch.tensor would copy from the host, and wait for it."""
    return torch.cat([torch.full((1, 1, 1), value, device=device) for value in values])


def resize_table(table, positions: int):
    """Interpolate a square position table [G * G, D] to [positions, D]: bicubic in float32, without antialiasing.

    This is Qwen-VL's `get_abs_pos`; open_clip resizes with antialiasing and gets other numbers. The identity when
    the sizes agree. Raises ValueError when either is not a square.
    """
    if positions == len(table):
        return table
    source, target = round(len(table) ** 0.5), round(positions**0.5)
    if source**2 != len(table) or target**2 != positions:
        raise ValueError(f"cannot resize a position table from {len(table)} to {positions}: both must be squares")
    # Two products with a fixed matrix: the gradient of F.interpolate has no deterministic kernel on CUDA.
    matrix = bicubic_matrix(source, target, table.device)
    rows = matrix @ table.float().view(source, -1)  # [target, source * D]
    grid = matrix @ rows.view(target, source, -1)
    return grid.flatten(0, 1).to(table.dtype)


def bicubic_matrix(source: int, target: int, device=None):
    """Weights [target, source] of bicubic interpolation (a = -0.75): half-pixel centres, edges repeated."""
    where = (torch.arange(target, device=device, dtype=torch.float64) + 0.5) * (source / target) - 0.5
    first = where.floor() - 1
    taps = first[:, None] + torch.arange(4, device=device)
    places = taps.clamp(0, source - 1)[..., None] == torch.arange(source, device=device)  # [target, 4, source]
    return (_cubic(where[:, None] - taps)[..., None] * places).sum(1).float()


def _cubic(x, a=-0.75):
    x = x.abs()
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * (x**3 - 5 * x**2 + 8 * x - 4)
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0.0))
