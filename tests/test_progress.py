from __future__ import annotations

import io

import pytest
from rich.console import Console

from stac_cloudmask.pipeline.result import Result
from stac_cloudmask.progress import notebook, terminal

RESULTS = [Result(item_id="a", status="done"), Result(item_id="b", status="failed", error="no band"),
           Result(item_id="c", status="done")]  # fmt: skip


def test_bars_in_a_terminal_show_stages_and_counts():
    text = io.StringIO()
    with terminal(Console(file=text, force_terminal=True, width=100)) as board:
        board.expect(3)
        board.stage("infer", 1, 4)
        assert list(board.count(iter(RESULTS))) == RESULTS
    assert board.counts == {"done": 2, "failed": 1}
    assert "2 done, 1 failed" in text.getvalue()


@pytest.mark.parametrize("options", [{"quiet": True}, {"quiet": False}])
def test_bars_without_a_terminal_or_when_quiet_show_nothing(options):
    text = io.StringIO()
    with terminal(Console(file=text, force_terminal=options["quiet"]), **options) as board:
        list(board.count(RESULTS))
    assert text.getvalue() == ""


class Display:
    """What IPython's display gives, and what it was given."""

    def __init__(self):
        self.shown = []

    def __call__(self, data, *, raw, display_id):
        assert display_id
        self.update(data, raw=raw)
        return self

    def update(self, data, *, raw):
        assert raw
        self.shown.append(data["text/html"])


def test_a_bar_in_a_notebook_is_html_that_is_updated():
    display = Display()
    bar = notebook(display)
    bar.expect(4)
    bar.stage("infer", 1, 2)
    assert 'value="0.125"' in display.shown[-1]
    assert "infer" in display.shown[-1]
    list(bar.count(RESULTS))
    assert display.shown[-1] == '<progress value="0.750"></progress> 2 done, 1 failed of 4 '
