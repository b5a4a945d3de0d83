#!/usr/bin/env bash
# grain 0.2.18: a rank's slice of a weighted mix has another mix. `MapDataset.mix` interleaves in a fixed order, of a short
# period for round weights, and `dataset[rank::ranks]`, the usual way to shard one, falls into step with it.
# Of weights 1 and 3 two ranks get 0.50 and 0.00 of the first source, and four get 1, 0, 0, 0: each rank trains on one
# source, and no sum over the ranks shows it. Slice the sources before they are mixed.
#
# Seen: all 0.25, by 2 [0.5, 0.0], by 4 [1.0, 0.0, 0.0, 0.0]
# Exits 1 when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check grain==0.2.18
cat >"$work/try.py" <<'PYTHON'
import grain

code, prose = (grain.MapDataset.source([name] * 400) for name in ("code", "prose"))
mix = grain.MapDataset.mix([code, prose], weights=[1, 3])[:512]


def share(part):
    return round(sum(row == "code" for row in part) / len(part), 2)


by_ranks = {ranks: [share(mix[rank::ranks]) for rank in range(ranks)] for ranks in (2, 4)}
print(f"all {share(mix)}, by 2 {by_ranks[2]}, by 4 {by_ranks[4]}")
PYTHON
output=$("$work/venv/bin/python" "$work/try.py" 2>"$work/errors") || { cat "$work/errors"; exit 1; }
echo "$output"
[ "$output" = "all 0.25, by 2 [0.5, 0.0], by 4 [1.0, 0.0, 0.0, 0.0]" ]
