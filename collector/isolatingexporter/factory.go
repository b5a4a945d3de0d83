// Package isolatingexporter sends metrics over OTLP/HTTP to a receiver that refuses a whole request for one bad point,
// as Prometheus does, so that a bad point costs itself only.
//
// A refused request is halved, by resource, then by metric, then by point, until what is bad stands alone. That is
// counted, named in the log with the receiver's own text, and given up, but only once the receiver has taken a point
// of the exporter's own: one that refuses everything is waited for. Who was refused lately is sent apart from the
// others, so that a persistent offender costs a few small requests and not a search each time.
package isolatingexporter

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/collector/component"
	"go.opentelemetry.io/collector/config/configcompression"
	"go.opentelemetry.io/collector/config/confighttp"
	"go.opentelemetry.io/collector/config/configoptional"
	"go.opentelemetry.io/collector/config/configretry"
	"go.opentelemetry.io/collector/consumer"
	"go.opentelemetry.io/collector/exporter"
	"go.opentelemetry.io/collector/exporter/exporterhelper"
)

// Config is that of the stock otlp_http exporter, without what only concerns traces and logs.
type Config struct {
	ClientConfig confighttp.ClientConfig                                  `mapstructure:",squash"`
	QueueConfig  configoptional.Optional[exporterhelper.QueueBatchConfig] `mapstructure:"sending_queue"`
	RetryConfig  configretry.BackOffConfig                                `mapstructure:"retry_on_failure"`
}

// Validate refuses a configuration without an endpoint.
func (c *Config) Validate() error {
	if c.ClientConfig.Endpoint == "" {
		return errors.New("endpoint must be the URL before /v1/metrics, such as http://prometheus:9090/api/v1/otlp")
	}
	return nil
}

// NewFactory returns the factory of the exporter isolating_otlp_http.
func NewFactory() exporter.Factory {
	return exporter.NewFactory(
		component.MustNewType("isolating_otlp_http"),
		func() component.Config {
			client := confighttp.NewDefaultClientConfig()
			client.Timeout = 30 * time.Second
			client.Compression = configcompression.TypeGzip
			return &Config{
				ClientConfig: client,
				QueueConfig:  configoptional.Some(exporterhelper.NewDefaultQueueConfig()),
				RetryConfig:  configretry.NewDefaultBackOffConfig(),
			}
		},
		exporter.WithMetrics(create, component.StabilityLevelBeta),
	)
}

func create(ctx context.Context, set exporter.Settings, config component.Config) (exporter.Metrics, error) {
	own := config.(*Config)
	refusals, err := newRefusals(set)
	if err != nil {
		return nil, err
	}
	made := &isolating{client: newClient(own, set), refusals: refusals, offenders: offenders{}, mayRepeat: true}
	return exporterhelper.NewMetrics(ctx, set, config,
		made.push,
		exporterhelper.WithStart(made.client.start),
		exporterhelper.WithCapabilities(consumer.Capabilities{MutatesData: true}),
		// The client has its own.
		exporterhelper.WithTimeout(exporterhelper.TimeoutConfig{Timeout: 0}),
		exporterhelper.WithRetry(own.RetryConfig),
		exporterhelper.WithQueue(own.QueueConfig),
	)
}
