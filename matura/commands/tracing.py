"""`matura lineage`: what an artifact was made from, and with `--verify` whether all of it is still what it was."""

from matura.core import intact, lineage
from matura.core.artifact import Artifact


def draw(artifact: Artifact) -> bool:
    """Print the tree; True."""
    print(lineage.draw(lineage.tree(artifact)))
    return True


def verify(artifact: Artifact) -> bool:
    """Print a line for each artifact and raw input as it is hashed; whether nothing was changed."""
    damaged = total = 0
    for one in intact.check(artifact):
        total += 1
        damaged += bool(one.wrong)
        print(f"{'DAMAGED' if one.wrong else 'intact':8}{one.kind} {one.name}", flush=True)
        if one.wrong:
            print("\n".join(f"        {line}" for line in one.wrong.splitlines()), flush=True)
    print(f"{total} in all, {damaged or 'none'} damaged.")
    return not damaged
