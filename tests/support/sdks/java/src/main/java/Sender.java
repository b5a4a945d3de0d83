import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.opentelemetry.api.common.AttributeKey;
import io.opentelemetry.api.common.Attributes;
import io.opentelemetry.api.metrics.Meter;
import io.opentelemetry.sdk.OpenTelemetrySdk;
import io.opentelemetry.sdk.autoconfigure.AutoConfiguredOpenTelemetrySdk;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.logging.Handler;
import java.util.logging.LogManager;
import java.util.logging.LogRecord;
import java.util.logging.Logger;

/** Records and sends the step that each line of stdin holds, with the SDK, and prints what the SDK said of it. */
public final class Sender {
  /** What the SDK logs: it has no other way to say what went wrong. */
  private static final List<String> SAID = Collections.synchronizedList(new ArrayList<>());

  public static void main(String[] arguments) throws Exception {
    LogManager.getLogManager().reset();
    Logger.getLogger("io.opentelemetry").addHandler(new Handler() {
      @Override public void publish(LogRecord record) { SAID.add(record.getLevel() + " " + record.getMessage()); }
      @Override public void flush() {}
      @Override public void close() {}
    });
    // Endpoint, protocol, compression, headers, timeout, temporality and resource are the standard variables'; a step is
    // sent when it is flushed, not by the clock.
    OpenTelemetrySdk sdk = AutoConfiguredOpenTelemetrySdk.builder()
        .addPropertiesSupplier(() -> java.util.Map.of(
            "otel.traces.exporter", "none", "otel.logs.exporter", "none", "otel.metric.export.interval", "86400000"))
        .build().getOpenTelemetrySdk();
    Meter meter = sdk.getMeter("sdks");
    ObjectMapper mapper = new ObjectMapper();
    BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
    for (String line = lines.readLine(); line != null; line = lines.readLine()) {
      for (JsonNode each : mapper.readTree(line)) {
        record(meter, each);
      }
      if (!sdk.getSdkMeterProvider().forceFlush().join(1, TimeUnit.HOURS).isSuccess()) {
        SAID.add("the flush failed");
      }
      System.out.println(mapper.writeValueAsString(SAID));
      SAID.clear();
    }
  }

  private static void record(Meter meter, JsonNode each) {
    String name = each.get("name").asText();
    double value = each.get("value").asDouble();
    String modality = each.get("modality").asText();
    Attributes attributes =
        modality.isEmpty() ? Attributes.empty() : Attributes.of(AttributeKey.stringKey("modality"), modality);
    switch (each.get("kind").asText()) {
      case "gauge" -> meter.gaugeBuilder(name).build().set(value, attributes);
      case "counter" -> meter.counterBuilder(name).build().add((long) value, attributes);
      case "updown" -> meter.upDownCounterBuilder(name).build().add((long) value, attributes);
      default -> meter.histogramBuilder(name).build().record(value, attributes);
    }
  }
}
