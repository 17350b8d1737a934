"""`matura lineage --verify`: whether an artifact and all that it was made from are still what they were."""

from matura.core import intact
from matura.core.artifact import Artifact


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
