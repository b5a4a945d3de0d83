//! Records and sends the step that each line of stdin holds, with the SDK, and prints what the SDK said of it.
use std::io::{self, BufRead, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_otlp::{MetricExporter, Protocol, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use serde_json::Value;

const NEVER: Duration = Duration::from_secs(86400); // a step is sent when it is flushed, not by the clock

/// What the SDK logs: it has no other way to say what went wrong in a request that was answered.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Write for Said {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(text)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn exporter() -> MetricExporter {
    let delta = std::env::var("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE").is_ok_and(|name| name == "delta");
    let temporality = if delta { Temporality::Delta } else { Temporality::Cumulative };
    let protocol = match std::env::var("OTEL_EXPORTER_OTLP_PROTOCOL").as_deref() {
        Ok("http/json") => Some(Protocol::HttpJson),
        Ok("http/protobuf") => Some(Protocol::HttpBinary),
        _ => None,
    };
    // Endpoint, compression, headers and timeout are the standard variables'.
    let builder = MetricExporter::builder().with_temporality(temporality);
    match protocol {
        Some(protocol) => builder.with_http().with_protocol(protocol).build(),
        None => builder.with_tonic().build(),
    }
    .expect("an exporter")
}

fn main() {
    let said = Said::default();
    let writer = said.clone();
    tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(move || writer.clone()).init();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime"); // what gRPC runs on
    let exporter = runtime.block_on(async { tokio::task::spawn_blocking(exporter).await }).expect("an exporter");
    let resource = Resource::builder().build(); // as OTEL_RESOURCE_ATTRIBUTES has it
    let reader = PeriodicReader::builder(exporter).with_interval(NEVER).build();
    let provider = SdkMeterProvider::builder().with_reader(reader).with_resource(resource).build();
    let meter = provider.meter("sdks");
    for line in io::stdin().lock().lines() {
        let step: Value = serde_json::from_str(&line.expect("a line")).expect("a step");
        for each in step.as_array().expect("a list") {
            let name = each["name"].as_str().expect("a name").to_owned();
            let value = each["value"].as_f64().expect("a number");
            let attributes = match each["modality"].as_str() {
                None | Some("") => vec![],
                Some(modality) => vec![KeyValue::new("modality", modality.to_owned())],
            };
            match each["kind"].as_str() {
                Some("gauge") => meter.f64_gauge(name).build().record(value, &attributes),
                Some("counter") => meter.u64_counter(name).build().add(value as u64, &attributes),
                Some("updown") => meter.i64_up_down_counter(name).build().add(value as i64, &attributes),
                _ => meter.f64_histogram(name).build().record(value, &attributes),
            }
        }
        let failure = provider.force_flush().err().map(|error| error.to_string());
        let logged = std::mem::take(&mut *said.0.lock().unwrap());
        let lines: Vec<String> = String::from_utf8_lossy(&logged).lines().map(str::to_owned).chain(failure).collect();
        println!("{}", serde_json::to_string(&lines).expect("a line"));
    }
}
