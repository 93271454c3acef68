"""Shared by the commands that do not train: the record as first argument, and a run that is used and closed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..guards.blame import attribute_error
from ..guards.process_state import working
from ..records.reading import Recorded, read_record
from ..run import Run


def take_record(arguments: Sequence[str], flags: Sequence[str]) -> tuple[Recorded | None, list[str], dict[str, Any]]:
    """The record named by the first argument, if any; the other arguments; and the record's settings for `flags`."""
    words = list(arguments)
    if not words or words[0].startswith("-"):
        return None, words, {}
    record = read_record(Path(words.pop(0)))
    return record, words, {key: value for key, value in record.tree.items() if key in flags}


@contextmanager
def closing_run(run: Run) -> Iterator[None]:
    """Use the run's number of threads, attribute errors to parts, and close the run at the end."""
    try:
        with working(run.config.threads):
            yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        attributed = attribute_error(run, error)
        raise attributed from attributed.__cause__
    finally:
        run.close()
