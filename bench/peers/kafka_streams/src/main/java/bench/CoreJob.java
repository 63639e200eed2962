package bench;

import com.fasterxml.jackson.annotation.JsonInclude;
import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;
import org.apache.kafka.streams.state.WindowStore;
import org.apache.kafka.streams.state.WindowStoreIterator;

/**
 * The core job in Kafka Streams: the Processor API over a cached, persistent key-value store, exactly once.
 *
 * <p>Settings are JSON in BENCH_JOB: bootstrap, application, input, segment_changes, profile_changes, rules, state_dir;
 * with `recognises_duplicates`, a message id that was received within a day of another is passed over: it is kept in a
 * window store, as the deduplication of Confluent's tutorials does.
 */
public final class CoreJob {
  static final String STORE = "profiles";
  static final String SEEN = "seen";
  static final long DAY_MS = 86_400_000L;
  static final ObjectMapper JSON =
      new ObjectMapper()
          .configure(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES, false)
          .setSerializationInclusion(JsonInclude.Include.NON_NULL);

  /** An event; what the job does not use is not read. */
  public static final class Event {
    public String message_id;
    public String event;
    public List<String> identifiers;
    public long time;
    public long received;
    public Map<String, Object> properties;
    public Map<String, Object> traits;
  }

  public static final class Trait {
    public long time;
    public Object value;
  }

  /** What is kept of a person. `totals`: event to count, first, last; `days`: measure to day to value. */
  public static final class Profile {
    public Map<String, Trait> traits = new HashMap<>();
    public Map<String, long[]> totals = new HashMap<>();
    public Map<String, Map<Long, Long>> days = new HashMap<>();
    public Set<String> members = new LinkedHashSet<>();
    public long clock;
  }

  public static final class Rule {
    public String name;
    public String event;
    public long days;
    public long least;
    public String of;
    public String category;
    public boolean negated;
    String measure;
  }

  public static final class ProfileChange {
    public String person;
    public long at;
    public String message_id;
    public Map<String, long[]> totals;
    public Map<String, Object> traits;
    public Map<String, String> segments;
  }

  public static final class SegmentChange {
    public String person;
    public String segment;
    public String change;
    public long at;
    public String message_id;
  }

  static final class Fold implements Processor<byte[], Event, byte[], Object> {
    private final List<Rule> rules;
    private final Map<String, List<Rule>> byEvent = new HashMap<>();
    private final Map<String, List<Rule>> measures = new HashMap<>();
    private ProcessorContext<byte[], Object> context;
    private KeyValueStore<byte[], Profile> store;
    private final boolean recognisesDuplicates;
    private WindowStore<String, Long> seen;

    Fold(List<Rule> rules, boolean recognisesDuplicates) {
      this.rules = rules;
      this.recognisesDuplicates = recognisesDuplicates;
      for (Rule rule : rules) {
        rule.measure = rule.event + "|" + rule.of + "|" + rule.category;
        byEvent.computeIfAbsent(rule.event, name -> new ArrayList<>()).add(rule);
        List<Rule> ofEvent = measures.computeIfAbsent(rule.event, name -> new ArrayList<>());
        // Rules over the same events and values share their buckets.
        if (ofEvent.stream().noneMatch(other -> other.measure.equals(rule.measure))) {
          ofEvent.add(rule);
        }
      }
    }

    @Override
    public void init(ProcessorContext<byte[], Object> context) {
      this.context = context;
      this.store = context.getStateStore(STORE);
      if (recognisesDuplicates) {
        this.seen = context.getStateStore(SEEN);
      }
    }

    private boolean isDuplicate(Event event) {
      try (WindowStoreIterator<Long> found =
          seen.fetch(event.message_id, event.received - DAY_MS, event.received + DAY_MS)) {
        if (found.hasNext()) {
          return true;
        }
      }
      seen.put(event.message_id, event.received, event.received);
      return false;
    }

    @Override
    public void process(Record<byte[], Event> record) {
      Event event = record.value();
      if (recognisesDuplicates && isDuplicate(event)) {
        return;
      }
      String person = event.identifiers.get(0);
      Profile profile = store.get(record.key());
      boolean fresh = profile == null;
      if (fresh) {
        profile = new Profile();
      }
      ProfileChange change = new ProfileChange();
      change.person = person;
      change.at = event.time;
      change.message_id = event.message_id;
      long[] total = profile.totals.get(event.event);
      if (total == null) {
        total = new long[] {1, event.time, event.time};
        profile.totals.put(event.event, total);
      } else {
        total[0]++;
        total[1] = Math.min(total[1], event.time);
        total[2] = Math.max(total[2], event.time);
      }
      change.totals = Map.of(event.event, total);
      if (event.traits != null) {
        for (Map.Entry<String, Object> written : event.traits.entrySet()) {
          Trait there = profile.traits.get(written.getKey());
          if (there == null || there.time <= event.time) {
            if (there == null || !there.value.equals(written.getValue())) {
              if (change.traits == null) {
                change.traits = new LinkedHashMap<>();
              }
              change.traits.put(written.getKey(), written.getValue());
            }
            Trait trait = new Trait();
            trait.time = event.time;
            trait.value = written.getValue();
            profile.traits.put(written.getKey(), trait);
          }
        }
      }
      long day = event.time / DAY_MS;
      for (Rule measured : measures.getOrDefault(event.event, List.of())) {
        if (measured.category.isEmpty() || measured.category.equals(event.properties.get("category"))) {
          long value = measured.of.isEmpty() ? 1 : ((Number) event.properties.get(measured.of)).longValue();
          profile.days.computeIfAbsent(measured.measure, name -> new HashMap<>()).merge(day, value, Long::sum);
        }
      }
      profile.clock = Math.max(profile.clock, event.received);
      List<SegmentChange> changes = new ArrayList<>();
      for (Rule rule : fresh ? rules : byEvent.getOrDefault(event.event, List.of())) {
        long since = (profile.clock - rule.days * DAY_MS) / DAY_MS;
        long value = 0;
        for (Map.Entry<Long, Long> bucket : profile.days.getOrDefault(rule.measure, Map.of()).entrySet()) {
          if (bucket.getKey() > since) {
            value += bucket.getValue();
          }
        }
        boolean member = (value >= rule.least) != rule.negated;
        if (member != profile.members.contains(rule.name)) {
          if (member) {
            profile.members.add(rule.name);
          } else {
            profile.members.remove(rule.name);
          }
          SegmentChange flip = new SegmentChange();
          flip.person = person;
          flip.segment = rule.name;
          flip.change = member ? "entered" : "exited";
          flip.at = event.time;
          flip.message_id = event.message_id;
          changes.add(flip);
          if (change.segments == null) {
            change.segments = new LinkedHashMap<>();
          }
          change.segments.put(flip.segment, flip.change);
        }
      }
      store.put(record.key(), profile);
      context.forward(record.withValue((Object) change), "profile-changes");
      for (SegmentChange flip : changes) {
        context.forward(record.withValue((Object) flip), "segment-changes");
      }
    }
  }

  static <T> Serializer<T> writing() {
    ObjectWriter writer = JSON.writer();
    return (topic, value) -> {
      try {
        return value == null ? null : writer.writeValueAsBytes(value);
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
    };
  }

  static <T> Deserializer<T> reading(Class<T> kind) {
    ObjectReader reader = JSON.readerFor(kind);
    return (topic, data) -> {
      try {
        return data == null ? null : reader.readValue(data);
      } catch (IOException error) {
        throw new UncheckedIOException(error);
      }
    };
  }

  public static void main(String[] arguments) throws Exception {
    JsonNode job = JSON.readTree(System.getenv("BENCH_JOB"));
    List<Rule> rules = JSON.readValue(new File(job.get("rules").asText()), new TypeReference<>() {});
    Serde<Profile> profiles = Serdes.serdeFrom(writing(), reading(Profile.class));
    boolean recognisesDuplicates = job.get("recognises_duplicates").asBoolean();
    Topology topology = new Topology();
    topology
        .addSource("events", Serdes.ByteArray().deserializer(), reading(Event.class), job.get("input").asText())
        .addProcessor("fold", () -> new Fold(copies(rules), recognisesDuplicates), "events")
        .addStateStore(
            Stores.keyValueStoreBuilder(
                    Stores.persistentKeyValueStore(STORE), Serdes.ByteArray(), profiles)
                .withCachingEnabled()
                .withLoggingEnabled(Map.of()),
            "fold")
        .addSink(
            "profile-changes",
            job.get("profile_changes").asText(),
            Serdes.ByteArray().serializer(),
            CoreJob.<Object>writing(),
            "fold")
        .addSink(
            "segment-changes",
            job.get("segment_changes").asText(),
            Serdes.ByteArray().serializer(),
            CoreJob.<Object>writing(),
            "fold");
    if (recognisesDuplicates) {
      topology.addStateStore(
          Stores.windowStoreBuilder(
                  Stores.persistentWindowStore(
                      SEEN, Duration.ofMillis(2 * DAY_MS), Duration.ofMillis(DAY_MS), false),
                  Serdes.String(),
                  Serdes.Long())
              .withCachingEnabled()
              .withLoggingEnabled(Map.of()),
          "fold");
    }

    Properties properties = new Properties();
    properties.put(StreamsConfig.APPLICATION_ID_CONFIG, job.get("application").asText());
    properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, job.get("bootstrap").asText());
    properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
    properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
    properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 1000);
    properties.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 100L * 1024 * 1024);
    properties.put(StreamsConfig.STATE_DIR_CONFIG, job.get("state_dir").asText());
    properties.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
    properties.put("auto.offset.reset", "earliest");
    KafkaStreams streams = new KafkaStreams(topology, properties);
    CountDownLatch over = new CountDownLatch(1);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> {
      streams.close(java.time.Duration.ofSeconds(10));
      over.countDown();
    }));
    streams.start();
    over.await();
  }

  /** Each task marks its rules itself. */
  private static List<Rule> copies(List<Rule> rules) {
    return JSON.convertValue(rules, new TypeReference<>() {});
  }
}
