"""What commands share that do not train: a record that is named first, and a run that is looked at."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..guards.blame import attribute_error
from ..guards.process_state import working
from ..records.reading import Recorded, read_record
from ..run import Run


def named_record(arguments: Sequence[str], flags: Sequence[str]) -> tuple[Recorded | None, list[str], dict[str, Any]]:
    """The record whose folder comes first, if one does; the other words; and what it says of these flags."""
    words = list(arguments)
    if not words or words[0].startswith("-"):
        return None, words, {}
    record = read_record(Path(words.pop(0)))
    return record, words, {key: value for key, value in record.tree.items() if key in flags}


@contextmanager
def at_work(run: Run) -> Iterator[None]:
    """With the run's threads; errors are raised under the name of whose they are, and the run is closed."""
    try:
        with working(run.config.threads):
            yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        named = attribute_error(run, error)
        raise named from named.__cause__
    finally:
        run.close()
