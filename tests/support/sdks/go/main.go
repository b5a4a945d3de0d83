// Records and sends the step that each line of stdin holds, with the SDK, and prints what the SDK said of it.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"log"
	"os"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/metric"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
)

// A step is sent when it is flushed, not by the clock, and a flush may last as long as the exporter tries.
const never = 24 * time.Hour

type measurement struct {
	Kind, Name, Modality string
	Value                float64
}

func main() {
	ctx := context.Background()
	said := []string{}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { said = append(said, err.Error()) }))
	exporter, err := newExporter(ctx)
	must(err)
	reader := sdk.NewPeriodicReader(exporter, sdk.WithInterval(never), sdk.WithTimeout(never))
	provider := sdk.NewMeterProvider(sdk.WithReader(reader), sdk.WithResource(resource.NewSchemaless(
		attribute.String("train.run.id", "run"), attribute.Int("train.attempt", 1), attribute.Int("train.rank", 0),
	)))
	meter := provider.Meter("sdks")
	lines := bufio.NewScanner(os.Stdin)
	answers := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var step []measurement
		must(json.Unmarshal(lines.Bytes(), &step))
		for _, each := range step {
			must(record(ctx, meter, each))
		}
		if err := provider.ForceFlush(ctx); err != nil {
			said = append(said, err.Error())
		}
		must(answers.Encode(said))
		said = []string{}
	}
	must(lines.Err())
}

// Endpoint, compression, headers, timeout and temporality are the standard variables'.
func newExporter(ctx context.Context) (sdk.Exporter, error) {
	if os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL") == "http/protobuf" {
		return otlpmetrichttp.New(ctx, otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig{
			Enabled: true, InitialInterval: 100 * time.Millisecond, MaxInterval: time.Second, MaxElapsedTime: never,
		}))
	}
	return otlpmetricgrpc.New(ctx, otlpmetricgrpc.WithRetry(otlpmetricgrpc.RetryConfig{
		Enabled: true, InitialInterval: 100 * time.Millisecond, MaxInterval: time.Second, MaxElapsedTime: never,
	}))
}

func record(ctx context.Context, meter metric.Meter, each measurement) error {
	attributes := attribute.NewSet()
	if each.Modality != "" {
		attributes = attribute.NewSet(attribute.String("modality", each.Modality))
	}
	option := metric.WithAttributeSet(attributes)
	switch each.Kind {
	case "gauge":
		instrument, err := meter.Float64Gauge(each.Name)
		instrument.Record(ctx, each.Value, option)
		return err
	case "counter":
		instrument, err := meter.Int64Counter(each.Name)
		instrument.Add(ctx, int64(each.Value), option)
		return err
	case "updown":
		instrument, err := meter.Int64UpDownCounter(each.Name)
		instrument.Add(ctx, int64(each.Value), option)
		return err
	default:
		instrument, err := meter.Float64Histogram(each.Name)
		instrument.Record(ctx, each.Value, option)
		return err
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
