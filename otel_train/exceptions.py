"""The errors that otel_train raises, each also an instance of the apt built-in."""

from __future__ import annotations


class OtelTrainError(Exception):
    """Base of every error that otel_train raises on purpose.

    Examples:
        >>> import otel_train
        >>> try:
        ...     otel_train.init(log_every=0)
        ... except otel_train.OtelTrainError as error:
        ...     print(error)
        log_every must be positive and a whole number, got 0
    """


class ConfigurationError(OtelTrainError, ValueError):
    """A value that the user gave breaks a rule; the message names field, rule, value and what to do.

    Examples:
        >>> import otel_train
        >>> try:
        ...     otel_train.Scalar("train/tokens", "average")
        ... except otel_train.ConfigurationError as error:
        ...     print(error)
        metric 'train/tokens': reduction must be one of mean, sum, max, min, norm, got 'average'
    """


class SchemaMismatchError(OtelTrainError, ValueError):
    """The ranks do not measure the same things; the message names the key and the rank."""


class StateMismatchError(OtelTrainError, ValueError):
    """Saved state does not fit the object that is asked to load it."""


class ShapeMismatchError(OtelTrainError, ValueError):
    """A tensor's shape, dtype or device is not the one that was agreed; the message names both."""


class SessionCopyError(OtelTrainError, TypeError):
    """A session can't be pickled or copied; the message says what to do."""


class RingError(OtelTrainError, OSError):
    """A ring file can't be created, or what it holds is not a ring."""


class JobError(OtelTrainError, RuntimeError):
    """A job that a command started did not end as it must; the message says what to look at."""
