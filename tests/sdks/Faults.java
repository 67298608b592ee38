import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.concurrent.CountDownLatch;
import thingsboard.gateway.ApiException;
import thingsboard.gateway.ThingsBoardGateway;
import thingsboard.gateway.ThingsBoardGateway.EventStream;
import thingsboard.gateway.ThingsBoardGateway.LiveEvent;

/** Calls the faulty server of {@code test_java.py} and tells what comes of it, a line a call. */
final class Faults {
  public static void main(String[] arguments) throws Exception {
    String address = arguments[0];
    var gateway = ThingsBoardGateway.connect(address, "key");
    var hasty = ThingsBoardGateway.builder(address, "key").timeout(Duration.ofSeconds(1)).build();

    tell("proxy", () -> gateway.devices().get("proxy"));
    tell("garbled", () -> gateway.devices().get("garbled"));
    tell("silent", () -> hasty.devices().get("silent"));
    tell("patient", () -> gateway.devices().get("patient").getData().getName());
    tell("export", () -> {
      try (InputStream csv = gateway.telemetry().export("cut")) {
        return csv.readAllBytes().length;
      }
    });
    tell("stream", () -> {
      StringBuilder told = new StringBuilder();
      try (EventStream<LiveEvent> events = gateway.stream("breaking")) {
        for (LiveEvent event : events) {
          told.append(event.kind()).append(' ').append(event.body().getValue()).append(' ').append(event.id()).append("; ");
        }
      }
      return told;
    });
    tell("burst", () -> {
      int points = 0;
      try (EventStream<LiveEvent> events = gateway.stream("burst")) {
        while (events.next().kind() == LiveEvent.Kind.TELEMETRY) {
          points++;
        }
      }
      return points;
    });
    tell("refused", () -> gateway.stream("refused").hasNext());
    tell("nobody", () -> ThingsBoardGateway.connect("http://127.0.0.1:1", "key").stream("any").hasNext());
    tell("closed", () -> closedByAnother(gateway));
    tell("interrupted", () -> {
      Thread.currentThread().interrupt();
      try {
        return gateway.devices().get("silent");
      } finally {
        System.out.print(Thread.interrupted() ? "still " : "not ");
      }
    });
  }

  private interface Call {
    Object run() throws IOException;
  }

  private static void tell(String name, Call call) {
    Object told;
    try {
      told = call.run();
    } catch (ApiException error) {
      told = "ApiException " + error.getStatus() + " " + error.getCode();
    } catch (UncheckedIOException error) {
      told = "UncheckedIOException " + error.getCause().getClass().getSimpleName();
    } catch (IOException error) {
      told = error.getClass().getSimpleName();
    }
    System.out.println(name + ": " + told);
  }

  private static boolean closedByAnother(ThingsBoardGateway gateway) {
    EventStream<LiveEvent> events = gateway.stream("quiet");
    CountDownLatch begun = new CountDownLatch(1);
    Thread other = new Thread(() -> {
      try {
        begun.await();
      } catch (InterruptedException error) {
        return;
      }
      events.close();
    });
    other.start();
    events.next();
    begun.countDown();
    return events.hasNext();
  }
}
