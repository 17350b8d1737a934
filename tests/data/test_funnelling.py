"""From what the phases counted to the numbers of the report."""

from pathlib import Path

from matura.data import funnelling, tally
from matura.data.pipeline import Chosen, Phase, Repeated


def test_the_search_for_duplicates_is_time_of_its_step() -> None:
    steps = [{**tally.empty(name), "seconds": 0.5} for name in ("length", "duplicates")]
    phase = Phase((), ({"documents": 0, "steps": steps},))
    repeated = Repeated(Path("listed"), Path("pairs"), {2: 7}, 1.25)
    told = funnelling.gather([phase], Chosen([], [], []), repeated, {})
    assert [step["seconds"] for step in told["steps"]] == [0.5, 1.75]
    assert told["clusters"] == {"2": 7}
    alone = funnelling.gather([phase], Chosen([], [], []), None, {})
    assert [step["seconds"] for step in alone["steps"]] == [0.5, 0.5]
