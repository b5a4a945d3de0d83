#!/usr/bin/env bash
# Prometheus 3.16.0 (its TSDB and PromQL, github.com/prometheus/prometheus v0.316.0): increase() of a counter that has counted
# 100 in its life gives 0 in a window that holds all of it, and 133.33 where a sample of 0 stands at its start time, as
# --enable-feature=created-timestamp-zero-ingestion adds it, for OTLP too. The flag is there to make the first value count.
#
# increase() extrapolates from the last sample towards the end of the window, by half of the mean time between two samples at
# most, once the end is further away. The 0 stands long before the first sample (a job that starts up): the mean grows, and
# with it what is added. In a window that holds all of a counter that begins with 0, its last value is what it has counted.
#
# Seen: without 0: increase 0, last 100
#       with 0: increase 133.33, last 100
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
	"os"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/tsdb"
)

const begin = int64(1_800_000_000_000)

func main() {
	db, err := tsdb.Open(os.Args[1], nil, nil, tsdb.DefaultOptions(), nil)
	if err != nil {
		log.Fatal(err)
	}
	engine := promql.NewEngine(promql.EngineOpts{
		MaxSamples: 1000, Timeout: time.Minute, LookbackDelta: 5 * time.Minute, Parser: parser.NewParser(parser.Options{}),
	})
	ask := func(expression string) float64 {
		query, err := engine.NewInstantQuery(context.Background(), db, nil, expression, time.UnixMilli(begin+120_000))
		if err != nil {
			log.Fatal(err)
		}
		vector, err := query.Exec(context.Background()).Vector()
		if err != nil || len(vector) != 1 {
			log.Fatal(err, vector)
		}
		return vector[0].F
	}
	for _, zero := range []bool{false, true} {
		name := map[bool]string{false: "without", true: "with"}[zero]
		samples := map[int64]float64{70: 100, 80: 100, 90: 100}
		if zero {
			samples[0] = 0
		}
		appender := db.Appender(context.Background())
		for _, at := range []int64{0, 70, 80, 90} {
			if value, there := samples[at]; there {
				series := labels.FromStrings("__name__", name)
				if _, err := appender.Append(0, series, begin+at*1000, value); err != nil {
					log.Fatal(err)
				}
			}
		}
		if err := appender.Commit(); err != nil {
			log.Fatal(err)
		}
		increase := ask("increase(" + name + "[10m])")
		fmt.Printf("%s 0: increase %.5g, last %.5g\n", name, increase, ask("last_over_time("+name+"[10m])"))
	}
}
GO
export GOFLAGS=-mod=mod CGO_ENABLED=0
go get github.com/prometheus/prometheus@v0.316.0 >"$work/log" 2>&1 || { cat "$work/log"; exit 2; }
go build -o finding . >"$work/log" 2>&1 || { cat "$work/log"; exit 2; }
seen=$(./finding "$work/data" 2>/dev/null)
echo "$seen"
expected='without 0: increase 0, last 100
with 0: increase 133.33, last 100'
[ "$seen" = "$expected" ]
