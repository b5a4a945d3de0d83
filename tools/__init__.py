"""Scripts for who develops otel_train; none is part of a release."""
