#!/usr/bin/env bash
# Go's OTLP/HTTP metrics exporter (otlpmetrichttp 1.46.0) with retries on tries again what is answered 503, but gives a
# request up at once where the connection is refused: a collector's restart costs the collections of that time, and with
# delta temporality their counts for good. OTLP's specification: "If the client cannot connect to the server, the client
# SHOULD retry the connection using an exponential backoff strategy between retries." otlpmetricgrpc of the same release,
# with the same configuration, does: it delivers once a receiver listens.
#
# Seen: "answers 503, then 200: <nil>", "HTTP, refused: ... connect: connection refused", "gRPC, refused: context deadline
# exceeded" (it tries until its caller's time is over).
# Exits 1 when that changes. Needs Go 1.25 or newer.
set -euo pipefail
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"
cat >main.go <<'GO'
package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

func export(exporter sdk.Exporter, err error) error {
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return exporter.Export(ctx, &metricdata.ResourceMetrics{})
}

func main() {
	ctx := context.Background()
	overHTTP := otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig{
		Enabled: true, InitialInterval: 100 * time.Millisecond, MaxInterval: time.Second, MaxElapsedTime: time.Hour,
	})
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(answer http.ResponseWriter, _ *http.Request) {
		if requests++; requests == 1 {
			answer.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	retried := export(otlpmetrichttp.New(ctx, overHTTP, otlpmetrichttp.WithEndpointURL(server.URL+"/v1/metrics")))
	fmt.Println("answers 503, then 200:", retried)
	server.Close()

	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	free.Close()
	url := "http://" + free.Addr().String()
	refused := export(otlpmetrichttp.New(ctx, overHTTP, otlpmetrichttp.WithEndpointURL(url+"/v1/metrics")))
	fmt.Println("HTTP, refused:", refused)
	waited := export(otlpmetricgrpc.New(ctx, otlpmetricgrpc.WithEndpointURL(url), otlpmetricgrpc.WithRetry(otlpmetricgrpc.RetryConfig{
		Enabled: true, InitialInterval: 100 * time.Millisecond, MaxInterval: time.Second, MaxElapsedTime: time.Hour,
	})))
	fmt.Println("gRPC, refused:", waited)
	ends := func(err error, text string) bool { return err != nil && strings.Contains(err.Error(), text) }
	if retried != nil || requests != 2 || !ends(refused, "connection refused") || ends(refused, "deadline") || !ends(waited, "deadline") {
		os.Exit(1)
	}
}
GO
export GOFLAGS=-mod=mod
module=go.opentelemetry.io/otel/exporters/otlp/otlpmetric
go mod init finding >/dev/null 2>&1
go get "$module/otlpmetrichttp@v1.46.0" "$module/otlpmetricgrpc@v1.46.0" go.opentelemetry.io/otel/sdk/metric@v1.46.0 >/dev/null 2>&1
go run .
