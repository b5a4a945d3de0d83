module otel_train/retryableauth

go 1.25

require (
	go.opentelemetry.io/collector/component v1.67.0
	go.opentelemetry.io/collector/extension v1.67.0
	go.opentelemetry.io/collector/extension/extensionauth v1.67.0
	google.golang.org/grpc v1.83.2
)
