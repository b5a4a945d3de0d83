"""Single-line breaks of the source, each with the test that must catch it."""
