"""How many parameters a model of given settings has, without building it."""

from __future__ import annotations

from matura.model import config as c


def count_parameters(config: c.ModelConfig) -> tuple[int, int]:
    """(all parameters, parameters used in matrix products per token: the blocks and the output layer).

    The second is what FLOP estimates need: a forward pass costs about 2 FLOPs per token for each of them.
    """
    stacks = [stack for stack in (config.encoder, config.decoder) if stack]
    blocks = sum(_stack(stack) for stack in stacks)
    added = sum(_added(stack, config.context) for stack in stacks)
    table, head = config.vocabulary * config.width, _head(config)
    return blocks + added + table + head, blocks + (table if config.tied else 0) + head


def _stack(stack: c.StackConfig) -> int:
    """The blocks, and the norm after the last."""
    attention = stack.attention
    inner, inner_kv = attention.heads * attention.head_width, attention.kv_heads * attention.head_width
    mixer = 2 * stack.width * (inner + inner_kv)
    if attention.bias != "none":
        mixer += inner + 2 * inner_kv + (stack.width if attention.bias == "all" else 0)
    if attention.qk_norm:
        mixer += 2 * _norm(attention.head_width, attention.qk_norm)
    mixers = 2 if stack.cross else 1
    norm = _norm(stack.width, stack.norm)
    norms = (mixers + 1) * (2 if stack.norm_placement == "sandwich" else 1)
    final = 0 if stack.norm_placement == "post" else norm
    return stack.layers * (mixers * mixer + _mlp(stack) + norms * norm) + final


def _mlp(stack: c.StackConfig) -> int:
    mlp = stack.mlp
    if isinstance(mlp, c.SwiGLU | c.GeGLU):
        return 3 * stack.width * mlp.hidden
    return 2 * stack.width * mlp.hidden + (mlp.hidden + stack.width if mlp.bias else 0)


def _norm(width: int, norm: c.Norm) -> int:
    return width * (2 if isinstance(norm, c.LayerNorm) and norm.bias else 1)


def _added(stack: c.StackConfig, context: int) -> int:
    """What is added to embeddings or scores: positions, segments and their norm."""
    total = stack.segments * stack.width
    if isinstance(stack.position, c.Learned):
        total += context * stack.width
    if isinstance(stack.position, c.RelativeBias):
        total += stack.position.buckets * stack.attention.heads
    return total + (_norm(stack.width, stack.embedding_norm) if stack.embedding_norm else 0)


def _head(config: c.ModelConfig) -> int:
    head, width = config.head, config.width
    projection = width * width + width
    match head:
        case c.LanguageHead():
            total = 0 if head.tied else config.vocabulary * width
            total += config.vocabulary if head.bias else 0
            return total + (projection + _norm(width, head.transform) if head.transform else 0)
        case c.Classifier():
            hidden = 0 if head.hidden == "none" else projection
            return hidden + len(head.labels) * (width + (1 if head.bias else 0))
        case c.Pooler():
            return projection
        case _:
            return 0
