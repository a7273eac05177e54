"""What can go wrong with a measurement, each under a name that can be caught."""


class RecordError(ValueError):
    """A record is damaged, incomplete or missing; the message names the file."""


class UnknownExperiment(LookupError):
    """No chapter declares an experiment of this name."""


class WrongResult(AssertionError):
    """A provider computed something wrong, so nothing it does is worth timing."""


class TimingError(RuntimeError):
    """A call could not be timed by the protocol."""
