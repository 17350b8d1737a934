"""First weights that keep the size of activations and of updates independent of the width.

So one learning rate, scaled by width^(-1/2) (`shape.rate_factor`), serves from 1M to 1B parameters (arXiv:2203.03466,
arXiv:2310.17813): matrices start with variance 1 / inputs; what writes into the residual stream, and the output
layer, start at zero.
"""

from __future__ import annotations

import torch

from matura.model.transformer import Transformer


@torch.no_grad()
def initialize(model: Transformer, seed: int) -> Transformer:
    """Fill every weight; the same seed gives the same weights. Norms start at one, biases at zero, embeddings with a
    standard deviation of 0.02, matrices with 1 / sqrt(inputs), and the output layer and what writes into the
    residual stream (`o`, `down`) at zero: every block begins as the identity."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        elif name.endswith(("o.weight", "down.weight")) or name == "head.weight":
            parameter.zero_()
        elif ".blocks." in name or name.startswith("head."):
            parameter.normal_(0.0, parameter.shape[1] ** -0.5, generator=generator)
        else:
            parameter.normal_(0.0, 0.02, generator=generator)
    return model
