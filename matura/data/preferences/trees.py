"""Trees of messages as Open Assistant publishes them: every prompt in a tree with the replies it got.

Replies are ranked from 0, the best; here the best is 1. What was deleted or failed its review is left out, with all
that follows it. Rankings of one tree are one group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matura.core.errors import FormatError
from matura.core.preferences import MAX_ANSWERS, Answer, Ranking
from matura.data.conversations.messages import MAX_MESSAGES, Message, text
from matura.data.preferences.candidates import rank

ROLES = {"prompter": "user", "assistant": "assistant"}
_JUDGED = ("rank", "deleted", "review_result", "synthetic", "model_name")
COLUMNS = ("message_tree_id", "prompt", "message_id", "parent_id", "role", "text", "replies", *_JUDGED)


def rankings(row: Mapping[str, Any], place: str) -> Iterator[Ranking]:
    """Of a whole tree: the prompt that each of a person's messages ends, with its replies, if it has any.

    Raises FormatError, with the place in the tree, when anything in it is not as it should be.
    """
    tree = row.get("message_tree_id") or place
    group = text(tree, "message_tree_id")
    yield from _walk(row.get("prompt"), "prompt", group, place)


def from_messages(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[Ranking | tuple[str, str]]:
    """Of the messages of any number of trees, one a row, each (place, values); also the rows that hang in no tree."""
    children: dict[str, list[dict[str, Any]]] = {}
    roots: list[tuple[str, dict[str, Any]]] = []
    places: dict[str, str] = {}
    for place, values in rows:
        name, above = values.get("message_id"), values.get("parent_id")
        if not isinstance(name, str) or not (above is None or isinstance(above, str)):
            yield place, f"message_id and parent_id: expected texts, found {name!r:.60} and {above!r:.60}"
        elif name in places:
            yield place, f"message_id: {name!r:.60} is also that of {places[name]}"
        else:
            places[name] = place
            node = {**values, "replies": children.setdefault(name, [])}
            if above is None:
                roots.append((place, node))
            else:
                children.setdefault(above, []).append(node)
    yield from _alone(children, roots, places)
    for place, node in roots:
        try:
            yield from list(rankings({**node, "prompt": node}, place))
        except FormatError as error:
            yield place, str(error)


def _alone(
    children: Mapping[str, list[dict[str, Any]]],
    roots: Sequence[tuple[str, dict[str, Any]]],
    places: Mapping[str, str],
) -> Iterator[tuple[str, str]]:
    """Messages that no root leads to."""
    reached: set[str] = set()
    waiting = [node["message_id"] for _, node in roots]
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting += [node["message_id"] for node in children.get(name, ())]
    for name, place in places.items():
        if name not in reached:
            yield place, "parent_id: no message without a parent leads here"


def _walk(root: Any, where: str, group: str, place: str) -> Iterator[Ranking]:
    """Depth first, without recursion: how deep a tree is its writer decides."""
    waiting: list[tuple[Any, str, tuple[Message, ...]]] = [(root, where, ())]
    number = 0
    while waiting:
        node, where, before = waiting.pop()
        if not _kept(_node(node, where)):
            continue
        role, name = ROLES[node["role"]], f"{where}.text"
        if role == ("assistant" if len(before) % 2 == 0 else "user"):
            raise FormatError(f"{where}.role: {node['role']} out of turn")
        if len(before) >= MAX_MESSAGES:
            raise FormatError(f"{where}: over {MAX_MESSAGES:,} messages deep")
        path = (*before, {"role": role, "content": text(node.get("text"), name)})
        if not path[-1]["content"].strip():
            raise FormatError(f"{name}: is empty")
        replies = _replies(node, where)
        if role == "user" and (answers := _answers(replies, where)):
            number += 1
            name = text(node.get("message_id") or "", f"{where}.message_id")
            yield Ranking(f"{place}.{number}", path, answers, group, provenance={"message": name})
        waiting += [(one, f"{where}.replies[{i}]", path) for i, one in enumerate(replies)][::-1]


def _node(node: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(node, Mapping):
        raise FormatError(f"{where}: expected a message, found {node!r:.60}")
    if not isinstance(node.get("role"), str) or node["role"] not in ROLES:
        raise FormatError(f"{where}.role: expected prompter or assistant, found {node.get('role')!r:.60}")
    return node


def _kept(node: Mapping[str, Any]) -> bool:
    return node.get("deleted") is not True and node.get("review_result") is not False


def _replies(node: Mapping[str, Any], where: str) -> Sequence[Any]:
    replies = node.get("replies")
    if replies is not None and not isinstance(replies, list | tuple):
        raise FormatError(f"{where}.replies: expected a list of messages, found {replies!r:.60}")
    if replies and len(replies) > MAX_ANSWERS:
        raise FormatError(f"{where}.replies: {len(replies):,} replies, the limit is {MAX_ANSWERS:,}")
    return replies or ()


def _answers(replies: Sequence[Any], where: str) -> tuple[Answer, ...]:
    made = []
    for i, reply in enumerate(replies):
        place = f"{where}.replies[{i}]"
        if _kept(_node(reply, place)):
            writer = reply.get("model_name") or "model" if reply.get("synthetic") else "human"
            source = text(writer, f"{place}.model_name")
            made.append(
                Answer(
                    text(reply.get("text"), f"{place}.text"),
                    rank(reply.get("rank"), f"{place}.rank", best=0),
                    source=source,
                )
            )
    return tuple(made)
