"""Runs that fail, and reports that do."""

from attrs import frozen

from framework import hookimpl

REPORT = '''
"""A report that raises."""

from attrs import frozen
from framework import hookimpl


class Panic(BaseException):
    """As a library in Rust raises it."""


@frozen
class Breaks:
    where: str = "run_started"
    error: str = "OSError(5, 'Input/output error')"

    def build(self, run):
        return Broken(self)


class Broken:
    def __init__(self, settings):
        self.settings = settings

    def trip(self, where):
        if where == self.settings.where:
            raise eval(self.settings.error)

    @hookimpl
    def run_started(self):
        self.trip("run_started")

    @hookimpl
    def measure(self):
        self.trip("measure")

    @hookimpl
    def iteration_finished(self, run):
        self.trip("iteration_finished")
        assert (run.directory / "metrics.csv").read_text().count("\\n") == run.iteration + 2  # the record came first

    @hookimpl
    def should_stop(self):
        self.trip("should_stop")

    @hookimpl
    def run_finished(self, run):
        assert (run.directory / "policy.safetensors").is_file()
        self.trip("run_finished")

    @hookimpl
    def run_failed(self, run):
        assert (run.directory / "error.txt").is_file()
        self.trip("run_failed")


@hookimpl
def extensions():
    return {"breaks": Breaks}
'''
PLUGINS = ["--plugins", "line_world,reinforce,reports,./broken.py"]


FAILING = """

@frozen
class Fails:
    def build(self, run):
        return self

    @hookimpl
    def measure(self, run):
        if run.iteration == 3:
            raise ValueError("on purpose")


@hookimpl
def extensions():
    return {"breaks": Breaks, "fails": Fails}
"""


# Signals


def at(iteration, act):
    """An extension that does something after so many iterations."""

    @frozen
    class Acts:
        "Of this test."

        def build(self, run):
            return self

        @hookimpl
        def iteration_finished(self, run):
            if run.iteration == iteration:
                act(run)

    return Acts()


# Parts that fail


def failing(error=None, iteration=3):
    def fail(run):
        fail.state = {name: tensor.clone() for name, tensor in run.policy.state_dict().items()}
        raise error or ValueError("on purpose")

    return fail, at(iteration, fail)
