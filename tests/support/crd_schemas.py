"""The schemas of other projects' kinds, as their CustomResourceDefinitions have them, without texts and pod templates.

`python -m tests.support.crd_schemas SOURCE CRD.yaml` makes one of tests/deploy/schemas; SOURCE says where that file was
published. Pod templates are Kubernetes' own, which `kubernetes-validate` knows.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import yaml

FOLDER = Path(__file__).parents[1] / "deploy" / "schemas"


def check(document: dict[str, Any]) -> None:
    """Check an object against the schema of its kind; a field that the schema lacks is an error.

    Raises:
        jsonschema.ValidationError: It does not fit.
    """
    schema = json.loads((FOLDER / f"{document['kind']}.json").read_text())
    assert document["apiVersion"] == schema["apiVersion"]
    jsonschema.validate(document, schema["schema"])


def trimmed(node: Any) -> Any:
    """Return a CRD's schema as JSON Schema, without texts and pod templates, and with no room for unknown fields."""
    if isinstance(node, list):
        return [trimmed(item) for item in node]
    if not isinstance(node, dict):
        return node
    properties = node.get("properties")
    if isinstance(properties, dict) and "containers" in properties.get("spec", {}).get("properties", {}):
        return {"type": "object"}
    if node.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    kept = {
        key: {name: trimmed(part) for name, part in value.items()} if key == "properties" else trimmed(value)
        for key, value in node.items()
        if key not in ("description", "default", "format", "nullable") and not key.startswith("x-kubernetes-")
    }
    pattern = kept.get("pattern")
    if isinstance(pattern, str):  # Go's expressions may set flags later
        kept["pattern"] = pattern.replace("^(?i)", "(?i)^")
    if isinstance(properties, dict) and not node.get("x-kubernetes-preserve-unknown-fields"):
        kept["additionalProperties"] = False
    return kept


def main(source: str, path: str) -> None:
    definition = yaml.safe_load(Path(path).read_text())["spec"]
    (version,) = (version for version in definition["versions"] if version["storage"])
    kind = definition["names"]["kind"]
    schema = trimmed(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    content = {"source": source, "apiVersion": f"{definition['group']}/{version['name']}", "schema": schema}
    (FOLDER / f"{kind}.json").write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
