"""Cross-entropy together with the output projection, a few hundred tokens at a time.

Shapes: Y supervised tokens, D width, V rows of the vocabulary.
"""

import torch
import torch.nn.functional as F
from torch import nn

# Tokens whose logits exist at once: 512 x 151936 take 0.3 GB in float32, and their gradient as much.
CHUNK = 512


def summed_cross_entropy(head: nn.Module, hidden, labels) -> tuple[torch.Tensor, torch.Tensor]:
    """hidden [Y, D], labels [Y] -> the sum of cross-entropies, and each one [Y] without gradient, both float32.

    Gradients are made in the forward pass, chunk by chunk, so that no logits are kept or made twice. (torch's own
    `linear_cross_entropy` rounds the loss to the input's dtype.)
    """
    trained = [p for p in head.parameters() if p.requires_grad]
    return _Summed.apply(head, labels, torch.is_grad_enabled(), hidden, *trained)


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, head, labels, wanted: bool, hidden, *trained):
        grads = [torch.zeros_like(p) if wanted else None for p in trained]
        of_hidden, losses = [hidden[:0]], [hidden[:0, 0].float()]
        for h, y in zip(hidden.split(CHUNK), labels.split(CHUNK), strict=True):
            with torch.set_grad_enabled(wanted):
                h = h.detach().requires_grad_(wanted)
                loss = F.cross_entropy(head(h).float(), y, reduction="none")
                total = loss.sum()
            losses.append(loss.detach())
            if wanted:
                own, *others = torch.autograd.grad(total, [h, *trained])
                of_hidden.append(own)
                for grad, part in zip(grads, others, strict=True):
                    grad += part
        each = torch.cat(losses)
        ctx.mark_non_differentiable(each)
        ctx.save_for_backward(torch.cat(of_hidden) if wanted else None, *grads)
        return each.sum(), each

    @staticmethod
    def backward(ctx, upstream, _):
        return None, None, None, *(grad * upstream.to(grad.dtype) for grad in ctx.saved_tensors)
