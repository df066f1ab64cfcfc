"""The position-aware adapter: a fixed number of learned queries reads the patches by one cross-attention.

Shapes: N images, P patches, V vision width, Q queries, D width of the language model.
"""

import torch
import torch.nn.functional as F
from torch import nn

from trainer.vision import resize_table

EPS = 1e-6


class Adapter(nn.Module):
    """Qwen-VL's resampler (`attn_pool`): [N, P, V] -> [N, Q, D]. One layer, no residual, no MLP.

    Positions are added to queries and keys, never to values. The table is 2-D sin-cos on the grid of the QUERIES;
    the keys take it interpolated to their own grid, not a table made for that grid.
    Raises ValueError unless Q is a square and D a multiple of 4 and of the number of heads.
    """

    def __init__(self, vision_width: int, width: int, queries: int, heads: int):
        super().__init__()
        if round(queries**0.5) ** 2 != queries or width % 4 or width % heads:
            raise ValueError(
                f"an adapter needs a square number of queries and a width divisible by 4 and by its heads; "
                f"got {queries} queries, width {width}, {heads} heads"
            )
        self.query = nn.Parameter(torch.empty(queries, width))
        self.register_buffer("pos_embed", sincos_table(width, round(queries**0.5)))
        self.kv_proj = nn.Linear(vision_width, width, bias=False)
        self.ln_q = nn.LayerNorm(width, eps=EPS)
        self.ln_kv = nn.LayerNorm(width, eps=EPS)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)

    def fill_buffers(self) -> None:
        """Compute the position table where it lies: it is lost when a model is built on the meta device."""
        width = self.query.shape[1]
        self.pos_embed.copy_(sincos_table(width, round(len(self.pos_embed) ** 0.5), device="cpu"))

    def forward(self, patches):
        kv = self.ln_kv(self.kv_proj(patches))
        q = self.ln_q(self.query) + self.pos_embed.to(kv.dtype)
        k = kv + resize_table(self.pos_embed, kv.shape[1]).to(kv.dtype)
        return self._attend(q, k, kv)

    def _attend(self, q, k, v):
        """Multi-head attention of [Q, D] to [N, P, D]. The queries are those of every image: projected once."""
        weights, biases = self.attn.in_proj_weight.chunk(3), self.attn.in_proj_bias.chunk(3)
        q, k, v = (
            F.linear(x, w, b).unflatten(-1, (self.attn.num_heads, -1)).transpose(-2, -3)
            for x, w, b in zip((q, k, v), weights, biases, strict=True)
        )
        out = F.scaled_dot_product_attention(q.expand(len(k), -1, -1, -1), k, v)  # [N, heads, Q, head_dim]
        return self.attn.out_proj(out.transpose(1, 2).flatten(2))


class Tail(nn.Module):
    """Qwen-VL's `ln_post` and `proj` behind the adapter: [N, Q, D] -> [N, Q, D].

    A part of its own, because the paper's words leave open whether it belongs to the ViT or to the adapter.
    """

    def __init__(self, width: int):
        super().__init__()
        self.ln_post = nn.LayerNorm(width, eps=EPS)
        self.proj = nn.Parameter(torch.empty(width, width))

    def forward(self, x):
        return self.ln_post(x) @ self.proj


def sincos_table(width: int, side: int, device=None):
    """2-D sin-cos positions [side * side, width] of masked autoencoders: the first half encodes the column.

    Within each half [sin | cos]; frequencies 10000 ** (-i / (width / 4)). Row r * side + c is patch (r, c).
    """
    frequencies = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64, device=device) / (width / 4))
    angles = torch.arange(side, dtype=torch.float64, device=device)[:, None] * frequencies
    line = torch.cat([angles.sin(), angles.cos()], dim=1)  # [side, width / 2]
    columns = line[None].expand(side, side, -1)
    rows = line[:, None].expand(side, side, -1)
    return torch.cat([columns, rows], dim=-1).flatten(0, 1).float()
