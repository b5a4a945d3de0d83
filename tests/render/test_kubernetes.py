"""The chart's templates, which are made of the manifests for kustomize."""

from __future__ import annotations

import pytest

from otel_train.render.kubernetes import chart_template


@pytest.mark.parametrize(
    ("line", "template"),
    [
        ("replicas: 1 # {{ .Values.n }}", "replicas: {{ .Values.n }}"),
        ("  - name: a # {{ .Values.a }}", "  - name: {{ .Values.a }}"),
        ("  - --listen=0.0.0.0:1 # {{ .Values.a }}", "  - {{ .Values.a }}"),
        ('value: "a: b#c" # {{ .Values.a | quote }}', "value: {{ .Values.a | quote }}"),
        ("image: a:1 # {{ .Values.a }}", "image: {{ .Values.a }}"),
        ("  # {{- if .Values.a }}", "  {{- if .Values.a }}"),
        ("  #+ key: value", "  key: value"),
        ("#+   key: {{ .Values.a }}", "  key: {{ .Values.a }}"),
        ("#+", ""),
        ("key: value # a comment", "key: value # a comment"),
        ("# a comment", "# a comment"),
        ("key: {{ .Values.a }}", "key: {{ .Values.a }}"),
    ],
)
def test_comment_makes_the_template(line: str, template: str) -> None:
    """A comment with braces stands instead of the value before it; other lines stay."""
    assert chart_template(line) == template + "\n"


def test_block_below_a_key_goes() -> None:
    """A template behind a key without a value stands instead of all that is below the key."""
    lines = ["a:", "  b: # {{- toYaml .Values.b }}", "    c:", "      - 1", "    d: 2", "  e: 3", "  f:", "    g: 4"]
    assert chart_template("\n".join(lines)).splitlines() == [
        "a:",
        "  b: {{- toYaml .Values.b }}",
        "  e: 3",
        "  f:",
        "    g: 4",
    ]
