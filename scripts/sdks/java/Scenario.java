import static java.util.Objects.requireNonNull;

import java.io.IOException;
import java.io.InputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import thingsboard.gateway.ApiException;
import thingsboard.gateway.ThingsBoardGateway;
import thingsboard.gateway.ThingsBoardGateway.EventStream;
import thingsboard.gateway.ThingsBoardGateway.LiveEvent;
import thingsboard.gateway.model.BulkAnswer;
import thingsboard.gateway.model.BulkResult;
import thingsboard.gateway.model.Device;
import thingsboard.gateway.model.EntityCreate;
import thingsboard.gateway.model.PersistentRpcRequest;
import thingsboard.gateway.model.Point;
import thingsboard.gateway.model.RpcAnswer;
import thingsboard.gateway.model.RpcEvent;
import thingsboard.gateway.model.RpcRequest;

/** The scenario of {@code docs/sdks.md}, in Java. */
final class Scenario {
  private static final long T0 = 1_767_225_600_000L;
  private static final String ANSWERING = "name:Demo Kitchen";
  private static final String OFFLINE = "name:Demo Garage";
  private static final String NAME = "sdk-java-" + System.currentTimeMillis();
  private static final String DEVICE = "name:" + NAME;
  private static final String MISSING = DEVICE + "-missing";
  private static final int COUNT = 250;
  private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);

  private final ThingsBoardGateway gateway = connection("API_KEY").build();

  private interface Step {
    void run() throws IOException;
  }

  public static void main(String[] arguments) throws IOException {
    new Scenario().run();
  }

  private static ThingsBoardGateway.Builder connection(String key) {
    return ThingsBoardGateway.builder(System.getenv("GATEWAY_URL"), requireNonNull(System.getenv(key), key));
  }

  private void run() throws IOException {
    Map<String, Step> steps = new LinkedHashMap<>();
    steps.put("list devices", this::listDevices);
    steps.put("upload", this::upload);
    steps.put("read back", this::readBack);
    steps.put("history", this::history);
    steps.put("export", this::export);
    steps.put("bulk", this::bulk);
    steps.put("not found", this::notFound);
    steps.put("conflict", this::conflict);
    steps.put("rate limit", this::rateLimit);
    steps.put("command answered", this::commandAnswered);
    steps.put("device offline", this::deviceOffline);
    steps.put("live events", this::liveEvents);
    try {
      for (Map.Entry<String, Step> step : steps.entrySet()) {
        OUT.println("▶ " + step.getKey());
        step.getValue().run();
        OUT.println("✅ " + step.getKey());
      }
    } finally {
      gateway.devices().delete(DEVICE);
    }
  }

  private void listDevices() {
    List<String> names = new ArrayList<>();
    for (Device device : gateway.devices().all(options -> options.pageSize(5L))) {
      names.add(device.getName());
    }
    check((long) names.size(), gateway.devices().list().getPagination().getTotalElements());
    check(new HashSet<>(names).size(), names.size());
    check(names.contains("Demo Kitchen"), true);
  }

  /** What a key is to hold: each has to come back as it went, with its type. */
  private static Map<String, Object> values() {
    Map<String, Object> object = new LinkedHashMap<>();
    object.put("mode", "eco");
    object.put("limits", List.of(18L, 21.5));
    object.put("note", null);
    Map<String, Object> values = new LinkedHashMap<>();
    values.put("integer", 25L);
    values.put("decimal", 25.6);
    values.put("flag", true);
    values.put("word", "true");
    values.put("text", "größer ✓");
    values.put("digits", "12");
    values.put("large", 9_007_199_254_740_993L);
    values.put("object", object);
    return values;
  }

  private void upload() {
    gateway.devices().create(new EntityCreate().name(NAME).type("sdk"));
    Map<String, List<Point>> points = new LinkedHashMap<>();
    values().forEach((key, value) -> points.put(key, List.of(new Point().ts(T0).value(value))));
    var answer = gateway.telemetry().upload(DEVICE, points);
    check(answer.getTotalDataPoints(), (long) points.size());
    // ThingsBoard makes a number of text that looks like one, and the gateway says so.
    check(answer.getWarnings().stream().map(warning -> warning.getKey()).toList(), List.of("digits"));
    check(refusal(() -> uploadCount(T0, Double.NaN)).getCode(), "VALIDATION_ERROR");
  }

  private void readBack() {
    String keys = String.join(",", values().keySet()) + ",missing";
    Map<String, Point> latest = gateway.telemetry().getLatest(DEVICE, options -> options.keys(keys)).getData();
    values().forEach((key, sent) -> {
      check(latest.get(key).getTs(), T0);
      check(latest.get(key).getValue(), key.equals("digits") ? (Object) 12L : sent);
    });
    check(latest.containsKey("missing"), true);
    check(latest.get("missing"), null);
  }

  private void history() {
    List<Point> points = new ArrayList<>();
    for (int number = 0; number < COUNT; number++) {
      points.add(new Point().ts(T0 + 1_000L * number).value((long) number));
    }
    gateway.telemetry().upload(DEVICE, Map.of("count", points));
    check(gateway.telemetry().get(DEVICE, options -> options.keys("count").startTs(T0)).getData().get("count"), points);
  }

  private void export() throws IOException {
    try (InputStream csv =
        gateway.telemetry().export(DEVICE, options -> options.format("csv").keys("count").startTs(T0))) {
      String[] lines = new String(csv.readAllBytes(), StandardCharsets.UTF_8).split("\r\n", -1);
      check(lines[0], "ts,key,value");
      check(lines[1], T0 + ",count,0");
      check(lines.length, COUNT + 2);
    }
  }

  private void bulk() {
    Map<String, List<Point>> one = Map.of("bulk", List.of(new Point().ts(T0).value(1L)));
    BulkAnswer answer = gateway.telemetry().uploadBulk(Map.of(DEVICE, one, MISSING, one));
    check(answer.getStatus(), BulkAnswer.StatusEnum.PARTIAL);
    check(answer.getSummary().getSuccessfulDevices(), 1L);
    check(answer.getSummary().getFailedDevices(), 1L);
    check(answer.getResults().get(DEVICE).getStatus(), BulkResult.StatusEnum.SUCCESS);
    check(answer.getResults().get(MISSING).getErrorCode(), "RESOURCE_NOT_FOUND");
  }

  private void notFound() {
    ApiException error = refusal(() -> gateway.devices().get(MISSING));
    check(error.getStatus(), 404);
    check(error.getCode(), "RESOURCE_NOT_FOUND");
    check(error.getMessage().isBlank(), false);
    check(error.getRequestId().isBlank(), false);
  }

  private void conflict() {
    ApiException error = refusal(() -> gateway.devices().create(new EntityCreate().name(NAME).type("sdk")));
    check(error.getStatus(), 409);
    check(error.getCode(), "CONFLICT");
  }

  private void rateLimit() {
    ThingsBoardGateway hasty = connection("LIMITED_API_KEY").maxWait(Duration.ZERO).build();
    ApiException error = refusal(() -> {
      // Three are enough on a machine that is not busy.
      for (int call = 0; call < 100; call++) {
        hasty.keys().getWhoami();
      }
    });
    check(error.getStatus(), 429);
    check(error.getCode(), "RATE_LIMIT_EXCEEDED");
    check(error.getDetails().get("limited_by"), "gateway");
    check(error.getRetryAfter().orElseThrow().toSeconds() >= 1, true);
    check(connection("LIMITED_API_KEY").build().keys().getWhoami().getName(), "limited");
  }

  private void commandAnswered() {
    RpcRequest command = new RpcRequest().method("setLight").params(Map.of("on", true));
    RpcAnswer answer = gateway.command(ANSWERING, command);
    check(answer.getOutcome(), RpcAnswer.OutcomeEnum.ANSWERED);
    check(answer.getResponse(), Map.of("on", true));

    PersistentRpcRequest stored = new PersistentRpcRequest().method("setLight").params(Map.of("on", false));
    String id = gateway.rpc().sendPersistent(ANSWERING, stored).getRpcId();
    RpcEvent last = null;
    try (EventStream<RpcEvent> states = gateway.streamRpc(id)) {
      for (RpcEvent state : states) {
        last = state;
      }
    }
    check(requireNonNull(last).getOutcome(), RpcEvent.OutcomeEnum.ANSWERED);
    check(last.getResponse(), Map.of("on", false));
  }

  private void deviceOffline() {
    RpcRequest command = new RpcRequest().method("setLight").params(Map.of("on", true)).failFast(true);
    ApiException error = refusal(() -> gateway.rpc().sendTwoway(OFFLINE, command));
    check(error.getStatus(), 409);
    check(error.getCode(), "DEVICE_OFFLINE");
    check(error.getDetails().get("outcome"), "offline");
    check(gateway.command(OFFLINE, command).getOutcome(), RpcAnswer.OutcomeEnum.OFFLINE);
  }

  private void liveEvents() {
    LiveEvent live;
    try (EventStream<LiveEvent> events = gateway.stream(options -> options.keys("count"), DEVICE)) {
      LiveEvent first = nextPoint(events);
      check(first.body().getFirst(), true);
      check(first.body().getValue(), COUNT - 1L);
      uploadCount(T0 + 1_000_000, "live ✓");
      live = nextPoint(events);
      check(live.body().getKey(), "count");
      check(live.body().getTs(), T0 + 1_000_000);
      check(live.body().getValue(), "live ✓");
    }
    uploadCount(T0 + 1_001_000, "missed");
    try (EventStream<LiveEvent> resumed =
        gateway.stream(options -> options.keys("count").lastEventId(live.id()), DEVICE)) {
      check(nextPoint(resumed).body().getValue(), "missed");
    }
  }

  private void uploadCount(long ts, Object value) {
    gateway.telemetry().upload(DEVICE, Map.of("count", List.of(new Point().ts(ts).value(value))));
  }

  private static LiveEvent nextPoint(EventStream<LiveEvent> events) {
    for (LiveEvent event : events) {
      if (event.kind() == LiveEvent.Kind.TELEMETRY) {
        return event;
      }
    }
    throw new AssertionError("the stream has ended");
  }

  private static void check(Object found, Object wanted) {
    if (!Objects.equals(found, wanted)) {
      throw new AssertionError(told(found) + " is not " + told(wanted));
    }
  }

  private static String told(Object value) {
    return value + (value == null ? "" : " (" + value.getClass().getSimpleName() + ")");
  }

  private static ApiException refusal(Runnable call) {
    try {
      call.run();
    } catch (ApiException error) {
      return error;
    }
    throw new AssertionError("the call should have been refused");
  }
}
