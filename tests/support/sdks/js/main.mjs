// Records and sends the step that each line of stdin holds, with the SDK, and prints what the SDK said of it.
import { createInterface } from 'node:readline';

import { diag, DiagLogLevel, ValueType } from '@opentelemetry/api';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { MeterProvider, PeriodicExportingMetricReader } from '@opentelemetry/sdk-metrics';

const NEVER = 2 ** 31 - 1; // a step is sent when it is flushed, not by the clock

const packages = { 'http/json': 'http', 'http/protobuf': 'proto' };
const protocol = packages[process.env.OTEL_EXPORTER_OTLP_PROTOCOL] ?? 'grpc';
const { OTLPMetricExporter } = await import(`@opentelemetry/exporter-metrics-otlp-${protocol}`);

let said = [];
const hear = (...texts) => said.push(texts.join(' '));
diag.setLogger({ error: hear, warn: hear, info() {}, debug() {}, verbose() {} }, DiagLogLevel.WARN);

const provider = new MeterProvider({
  resource: resourceFromAttributes({ 'train.run.id': 'run', 'train.attempt': 1, 'train.rank': 0 }),
  // Endpoint, compression, headers, timeout and temporality are the standard variables'.
  readers: [new PeriodicExportingMetricReader({ exporter: new OTLPMetricExporter(), exportIntervalMillis: NEVER })],
});
const meter = provider.getMeter('sdks');
const whole = { valueType: ValueType.INT };
const record = {
  gauge: (name, value, attributes) => meter.createGauge(name).record(value, attributes),
  counter: (name, value, attributes) => meter.createCounter(name, whole).add(value, attributes),
  updown: (name, value, attributes) => meter.createUpDownCounter(name, whole).add(value, attributes),
  histogram: (name, value, attributes) => meter.createHistogram(name).record(value, attributes),
};

for await (const line of createInterface({ input: process.stdin })) {
  for (const { kind, name, value, modality } of JSON.parse(line)) {
    record[kind](name, value, modality ? { modality } : {});
  }
  await provider.forceFlush();
  console.log(JSON.stringify(said));
  said = [];
}
