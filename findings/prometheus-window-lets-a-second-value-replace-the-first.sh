#!/usr/bin/env bash
# Prometheus 3.16.0 (its TSDB, github.com/prometheus/prometheus v0.316.0): with an out_of_order_time_window a second value
# for a time that is stored already is taken without an error, and is what queries show from then on, unless that time is
# the series' newest. At the newest time it is refused ("duplicate sample for timestamp ...; overrides not allowed"), without
# a window as "out of order sample", and the first value stays.
#
# Who sends a time again with another value, such as a sender that builds a request anew after a lost acknowledgement,
# changes history and is told that all is well. Remote write and OTLP answer 200 or 204.
#
# Seen: newest time: duplicate sample for timestamp 1800000001000; overrides not allowed: existing 9, new value 3
#       older time: <nil>
#       stored: 2 9
# Exits 1 when that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"
cat >go.mod <<'GO'
module finding

go 1.25
GO
cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"log"
	"math"
	"os"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
)

const begin = int64(1_800_000_000_000)

func main() {
	options := tsdb.DefaultOptions()
	options.OutOfOrderTimeWindow = (24 * time.Hour).Milliseconds()
	db, err := tsdb.Open(os.Args[1], nil, nil, options, nil)
	if err != nil {
		log.Fatal(err)
	}
	series := labels.FromStrings("__name__", "metric")
	write := func(at int64, value float64) error {
		appender := db.Appender(context.Background())
		if _, err := appender.Append(0, series, at, value); err != nil {
			_ = appender.Rollback()
			return err
		}
		return appender.Commit()
	}
	for at, value := range []float64{1, 9} {
		if err := write(begin+int64(at)*1000, value); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("newest time:", write(begin+1000, 3))
	fmt.Println("older time:", write(begin, 2))
	querier, err := db.Querier(math.MinInt64, math.MaxInt64)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print("stored:")
	found := querier.Select(context.Background(), false, nil, labels.MustNewMatcher(labels.MatchEqual, "__name__", "metric"))
	for found.Next() {
		samples := found.At().Iterator(nil)
		for samples.Next() == chunkenc.ValFloat {
			_, value := samples.At()
			fmt.Print(" ", value)
		}
	}
	fmt.Println()
}
GO
export GOFLAGS=-mod=mod CGO_ENABLED=0
go get github.com/prometheus/prometheus@v0.316.0 >"$work/log" 2>&1 || { cat "$work/log"; exit 2; }
go build -o finding . >"$work/log" 2>&1 || { cat "$work/log"; exit 2; }
seen=$(./finding "$work/data" 2>/dev/null)
echo "$seen"
expected='newest time: duplicate sample for timestamp 1800000001000; overrides not allowed: existing 9, new value 3
older time: <nil>
stored: 2 9'
[ "$seen" = "$expected" ]
