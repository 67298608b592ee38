package thingsboard.gateway;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.time.Duration;
import java.util.Arrays;
import java.util.HashSet;
import java.util.Iterator;
import java.util.NoSuchElementException;
import java.util.Objects;
import java.util.Set;
import java.util.StringJoiner;
import java.util.concurrent.ThreadLocalRandom;
import java.util.function.Consumer;
import thingsboard.gateway.model.LiveEventBody;
import thingsboard.gateway.model.RpcAnswer;
import thingsboard.gateway.model.RpcAnswer.OutcomeEnum;
import thingsboard.gateway.model.RpcEvent;
import thingsboard.gateway.model.RpcRequest;

/**
 * A gateway and the key to it. Make one and keep it: it holds the connections, and threads may share it.
 *
 * <pre>{@code
 * var gateway = ThingsBoardGateway.connect("http://127.0.0.1:8000", System.getenv("API_KEY"));
 * for (Device device : gateway.devices().all()) {
 *   System.out.println(device.getName());
 * }
 * }</pre>
 *
 * <p>Values of telemetry and attributes are {@code Long}, {@code Double}, {@code String}, {@code Boolean}, {@code Map},
 * {@code List} or null, as they were stored ({@code BigInteger} beyond 64 bits). Calls throw {@link ApiException} when the
 * gateway answers with an error, and {@link UncheckedIOException} when it does not answer.
 */
public final class ThingsBoardGateway {
  private final ApiClient client;

  private ThingsBoardGateway(Builder builder) {
    this.client = new ApiClient(
        builder.address, builder.apiKey, builder.timeout, builder.maxWait, builder.httpClient());
  }

  /**
   * Makes a client that waits up to 60 s for an answer, and as long for a rate limit to let it pass.
   *
   * @param address scheme, host and port of the gateway
   * @param apiKey the key that its operator gave you
   * @return the client; nothing is sent yet
   */
  public static ThingsBoardGateway connect(String address, String apiKey) {
    return builder(address, apiKey).build();
  }

  /**
   * Begins a client with other settings.
   *
   * @param address scheme, host and port of the gateway
   * @param apiKey the key that its operator gave you
   * @return what is to be set and then built
   */
  public static Builder builder(String address, String apiKey) {
    return new Builder(address, apiKey);
  }

  /** Settings of a client. */
  public static final class Builder {
    private final String address;
    private final String apiKey;
    private Duration timeout = Duration.ofSeconds(60);
    private Duration maxWait = Duration.ofSeconds(60);
    private HttpClient http;

    private Builder(String address, String apiKey) {
      this.address = address.replaceAll("/+$", "");
      this.apiKey = Objects.requireNonNull(apiKey, "apiKey");
    }

    /**
     * Sets how long an answer may take; of an export, how long it may take to begin.
     *
     * @param timeout 60 s unless set
     * @return this
     */
    public Builder timeout(Duration timeout) {
      this.timeout = timeout;
      return this;
    }

    /**
     * Sets how long one call may wait in all after answers of status 429.
     *
     * @param maxWait 60 s unless set; zero throws the first 429
     * @return this
     */
    public Builder maxWait(Duration maxWait) {
      this.maxWait = maxWait;
      return this;
    }

    /**
     * Sets what carries the requests, for proxies and certificates of your own.
     *
     * @param http used as it is
     * @return this
     */
    public Builder httpClient(HttpClient http) {
      this.http = http;
      return this;
    }

    /** {@return the client} */
    public ThingsBoardGateway build() {
      return new ThingsBoardGateway(this);
    }

    private HttpClient httpClient() {
      if (http != null) {
        return http;
      }
      // Without TLS Java would ask for HTTP/2 in the headers of the first request, which nobody here speaks.
      boolean isPlain = "http".equals(URI.create(address).getScheme());
      HttpClient.Version version = isPlain ? HttpClient.Version.HTTP_1_1 : HttpClient.Version.HTTP_2;
      return HttpClient.newBuilder().version(version).connectTimeout(timeout).build();
    }
  }

  /** {@return devices and their types} */
  public DevicesApi devices() {
    return new DevicesApi(client);
  }

  /** {@return assets and their types} */
  public AssetsApi assets() {
    return new AssetsApi(client);
  }

  /** {@return time series of devices and assets} */
  public TelemetryApi telemetry() {
    return new TelemetryApi(client);
  }

  /** {@return attributes of devices and assets} */
  public AttributesApi attributes() {
    return new AttributesApi(client);
  }

  /** {@return alarms} */
  public AlarmsApi alarms() {
    return new AlarmsApi(client);
  }

  /** {@return commands to devices; {@link #command} is the shorter way} */
  public RpcApi rpc() {
    return new RpcApi(client);
  }

  /** {@return relations between entities, and the graph they make} */
  public RelationsApi relations() {
    return new RelationsApi(client);
  }

  /** {@return what the key may do} */
  public KeysApi keys() {
    return new KeysApi(client);
  }

  /** {@return the state of the gateway} */
  public HealthApi health() {
    return new HealthApi(client);
  }

  /**
   * Sends a command and waits for the reply. A device that is offline or silent is an outcome here, no exception.
   *
   * @param deviceId UUID of the device, or {@code name:} and its exact name
   * @param command what the device is to do
   * @return the outcome; the reply if there was one
   * @throws ApiException for every other error
   */
  public RpcAnswer command(String deviceId, RpcRequest command) {
    try {
      return rpc().sendTwoway(deviceId, command);
    } catch (ApiException error) {
      OutcomeEnum outcome = OutcomeEnum.fromValue(String.valueOf(error.getDetails().get("outcome")));
      if (outcome != OutcomeEnum.OFFLINE && outcome != OutcomeEnum.TIMEOUT) {
        throw error;
      }
      return new RpcAnswer()
          .deviceId(deviceId)
          .outcome(outcome)
          .elapsedMs((Long) error.getDetails().getOrDefault("elapsed_ms", 0L))
          .timestamp(System.currentTimeMillis());
    }
  }

  /**
   * Follows telemetry, attributes and presence of devices. The stream begins with what is the case; a broken
   * connection is made again, and what was missed comes then.
   *
   * @param options keys and the like
   * @param deviceIds UUIDs, or {@code name:} and exact names
   * @return events, until it is closed or all the devices are gone
   */
  public EventStream<LiveEvent> stream(Consumer<StreamOptions> options, String... deviceIds) {
    StreamOptions chosen = new StreamOptions();
    options.accept(chosen);
    ApiClient.Call call;
    if (deviceIds.length == 1) {
      call = client.call("GET", "/api/v1/tb/devices/{device_id}/telemetry/stream").path("device_id", deviceIds[0]);
    } else {
      call = client.call("GET", "/api/v1/tb/telemetry/stream").query("device_ids", String.join(",", deviceIds));
    }
    call.query("keys", chosen.keys).query("attributes", chosen.attributes).query("first_values", chosen.firstValues);
    Set<String> gone = new HashSet<>();
    return new EventStream<>(call, chosen.lastEventId, message -> {
      LiveEvent.Kind kind = LiveEvent.Kind.of(message.event);
      if (kind == null) {
        return null;
      }
      LiveEventBody body = ApiClient.JSON.readValue(message.data, LiveEventBody.class);
      boolean isLast = kind == LiveEvent.Kind.GONE && gone.add(body.getDeviceId()) && gone.size() == deviceIds.length;
      return new Item<>(new LiveEvent(kind, message.id, body), isLast);
    });
  }

  /**
   * Follows all that happens to devices.
   *
   * @param deviceIds UUIDs, or {@code name:} and exact names
   * @return events, until it is closed or all the devices are gone
   */
  public EventStream<LiveEvent> stream(String... deviceIds) {
    return stream(options -> {}, deviceIds);
  }

  /**
   * Follows a stored command.
   *
   * @param rpcId as {@link RpcAnswer#getRpcId} says
   * @return its states, until the final one or until it is deleted
   */
  public EventStream<RpcEvent> streamRpc(String rpcId) {
    ApiClient.Call call = client.call("GET", "/api/v1/tb/rpc/{rpc_id}/events").path("rpc_id", rpcId);
    return new EventStream<>(call, null, message -> {
      if (message.event.equals("gone")) {
        return new Item<>(null, true);
      }
      if (!message.event.equals("state")) {
        return null;
      }
      RpcEvent state = ApiClient.JSON.readValue(message.data, RpcEvent.class);
      return new Item<>(state, state.getIsFinal());
    });
  }

  /** What {@link #stream stream} may be told. */
  public static final class StreamOptions {
    private String keys;
    private Boolean attributes;
    private Boolean firstValues;
    private String lastEventId;

    private StreamOptions() {}

    /**
     * Narrows it to some keys.
     *
     * @param keys of telemetry; all unless given
     * @return this
     */
    public StreamOptions keys(String... keys) {
      this.keys = String.join(",", keys);
      return this;
    }

    /**
     * Asks for attributes, too, for which the key needs the scope {@code attributes:read}.
     *
     * @param attributes false unless set
     * @return this
     */
    public StreamOptions attributes(boolean attributes) {
      this.attributes = attributes;
      return this;
    }

    /**
     * Says whether to begin with what is the case.
     *
     * @param firstValues true unless set
     * @return this
     */
    public StreamOptions firstValues(boolean firstValues) {
      this.firstValues = firstValues;
      return this;
    }

    /**
     * Goes on where an earlier stream ended, perhaps in another process.
     *
     * @param id of the last event that was read
     * @return this
     */
    public StreamOptions lastEventId(String id) {
      this.lastEventId = id;
      return this;
    }
  }

  /**
   * Something that happened to a device.
   *
   * @param kind what; it decides which members the body has
   * @param id what to give as {@link StreamOptions#lastEventId} to go on after it
   * @param body the members
   */
  public record LiveEvent(Kind kind, String id, LiveEventBody body) {
    /** What may happen. */
    public enum Kind {
      /** A point: {@code deviceId key ts value}. */
      TELEMETRY,
      /** An attribute: {@code deviceId scope key ts value}. */
      ATTRIBUTE,
      /** The device went online or offline: {@code deviceId active ts}. */
      STATUS,
      /** Points up to {@code ts} may be missing: {@code deviceId key ts reason}. */
      GAP,
      /** Nothing more comes of this device: {@code deviceId reason}. */
      GONE;

      private static Kind of(String event) {
        return Arrays.stream(values()).filter(kind -> kind.name().equalsIgnoreCase(event)).findFirst().orElse(null);
      }
    }
  }

  private record Message(String event, String id, String data) {}

  private record Item<T>(T value, boolean isLast) {}

  private interface Reader<T> {
    /** Returns null for events that are none of the caller's business. */
    Item<T> read(Message message) throws IOException;
  }

  /**
   * Events as they come: {@code hasNext} waits for the next one. For one thread; any other may close it.
   *
   * @param <T> what an event is
   */
  public static final class EventStream<T> implements Iterable<T>, Iterator<T>, AutoCloseable {
    /** The gateway sends a comment every 15 s: three are missing. */
    private static final Duration LONGEST_SILENCE = Duration.ofSeconds(45);
    private static final Duration FIRST_PAUSE = Duration.ofMillis(500);
    private static final Duration LONGEST_PAUSE = Duration.ofSeconds(30);

    private final ApiClient.Call call;
    private final Reader<T> reader;
    private String lastEventId;
    private Duration pause = FIRST_PAUSE;
    private ApiClient.Lines lines;
    private boolean hasBegun;
    private T next;
    private boolean isOver;
    private volatile boolean isClosed;

    private EventStream(ApiClient.Call call, String lastEventId, Reader<T> reader) {
      this.call = call;
      this.lastEventId = lastEventId;
      this.reader = reader;
    }

    @Override
    public Iterator<T> iterator() {
      return this;
    }

    /**
     * Waits for an event; makes a connection that broke again.
     *
     * @return false when no more can come
     * @throws ApiException when the gateway refuses the stream, at first or when it is made again
     * @throws UncheckedIOException when the first connection cannot be made
     */
    @Override
    public boolean hasNext() {
      while (next == null && !isOver && !isClosed) {
        try {
          take(readMessage(connect()));
        } catch (IOException broken) {
          if (!hasBegun && !isClosed) {
            close();
            throw new UncheckedIOException(broken);
          }
          recover(pause);
        } catch (ApiException error) {
          boolean mayPass = error.getStatus() == 429 || error.getStatus() >= 500;
          if (!hasBegun || !mayPass) {
            close();
            throw error;
          }
          recover(error.getRetryAfter().orElse(pause));
        }
      }
      return next != null;
    }

    @Override
    public T next() {
      if (!hasNext()) {
        throw new NoSuchElementException();
      }
      T event = next;
      next = null;
      if (isOver) {
        close();
      }
      return event;
    }

    /** Ends it, also for a thread that waits in {@code hasNext}. */
    @Override
    public synchronized void close() {
      isClosed = true;
      disconnect();
      notifyAll();
    }

    private synchronized ApiClient.Lines connect() throws IOException {
      if (isClosed) {
        throw new IOException("closed");
      }
      if (lines == null) {
        lines = call.follow(lastEventId);
      }
      return lines;
    }

    private synchronized void disconnect() {
      if (lines != null) {
        lines.close();
        lines = null;
      }
    }

    private static Message readMessage(ApiClient.Lines lines) throws IOException {
      String event = "message";
      String id = null;
      StringJoiner data = new StringJoiner("\n").setEmptyValue("");
      for (String line = lines.next(LONGEST_SILENCE); !line.isEmpty(); line = lines.next(LONGEST_SILENCE)) {
        // A line that begins with a colon is a comment: its name is empty.
        String name = line.replaceFirst(":.*", "");
        String value = line.substring(name.length()).replaceFirst("^: ?", "");
        switch (name) {
          case "event" -> event = value;
          case "id" -> id = value;
          case "data" -> data.add(value);
          default -> {}
        }
      }
      return new Message(event, id, data.toString());
    }

    private void take(Message message) throws IOException {
      if (message.event.equals("error")) {
        throw ApiException.ofEvent(message.data);
      }
      hasBegun = true;
      pause = FIRST_PAUSE;
      Item<T> item = message.data.isEmpty() ? null : reader.read(message);
      lastEventId = message.id != null ? message.id : lastEventId;
      if (item != null) {
        next = item.value;
        isOver = item.isLast;
      }
    }

    private synchronized void recover(Duration wait) {
      disconnect();
      if (isClosed) {
        return;
      }
      try {
        wait(wait.toMillis() + ThreadLocalRandom.current().nextLong(FIRST_PAUSE.toMillis()));
      } catch (InterruptedException error) {
        throw ApiClient.interrupted();
      }
      Duration doubled = pause.multipliedBy(2);
      pause = doubled.compareTo(LONGEST_PAUSE) < 0 ? doubled : LONGEST_PAUSE;
    }
  }
}
