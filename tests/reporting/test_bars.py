"""The progress bar: when it is drawn, and that the last state is."""

import sys

import pytest

from framework.reporting.progress_bar import Bar


@pytest.mark.parametrize(("patience", "shown"), [(1e9, False), (0.0, True)])
def test_a_bar_is_shown_to_who_waits_at_a_terminal(monkeypatch, capsys, patience, shown):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    bar = Bar("episode", 30, patience=patience)
    for count in (10, 20, 30):
        bar.show(count)
    bar.stop()
    assert ("30/30" in capsys.readouterr().err) == shown


def test_it_is_drawn_now_and_then_and_at_the_end(monkeypatch, capsys):
    """Of three that come at once the first and the last, of whatever many; with no time between, all."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    for every, seen in ((1e9, False), (0, True)):
        bar = Bar("episode", 30, "return {task.fields[mean]}", every=every)
        for count in (10, 20, 40):
            bar.show(count, mean=-count)
        bar.stop()
        drawn = capsys.readouterr().err
        assert all(said in drawn for said in ("10/30", "30/30", "return -40"))
        assert ("20/30" in drawn) == seen


def test_elsewhere_nothing_is_drawn(capsys):
    bar = Bar("episode", 30)
    bar.show(30)
    bar.stop()
    assert capsys.readouterr().err == ""
