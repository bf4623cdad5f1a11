// Follows vm.metrics with nothing of virtflow but its schema files: VmMetrics.java BROKERS SCHEMAS_FOLDER [COUNT].
// Reads both framings; for that of a schema registry set SCHEMA_REGISTRY_URL.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.message.BinaryMessageDecoder;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

public class VmMetrics {
    static final Map<Integer, Schema> REGISTERED = new HashMap<>();

    public static void main(String[] args) throws Exception {
        int count = args.length > 2 ? Integer.parseInt(args[2]) : Integer.MAX_VALUE;
        Schema reader = new Schema.Parser().parse(Path.of(args[1], "avsc", "VmMetrics.avsc").toFile());
        var decoder = new BinaryMessageDecoder<GenericRecord>(GenericData.get(), reader);
        try (var files = Files.walk(Path.of(args[1]))) {
            for (Path file : files.filter(path -> path.endsWith("VmMetrics.avsc")).toList()) {
                decoder.addSchema(new Schema.Parser().parse(file.toFile()));
            }
        }
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", args[0], "group.id", "vm-metrics-java-example", "auto.offset.reset", "earliest");
        try (var consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(List.of("vm.metrics"));
            for (int seen = 0; seen < count; ) {
                for (var message : consumer.poll(Duration.ofSeconds(1))) {
                    byte[] value = message.value();
                    GenericRecord sample = value[0] == 0 ? confluent(value, reader) : decoder.decode(ByteBuffer.wrap(value));
                    System.out.println(sample.get("uuid") + " " + sample.get("name") + " " + sample.get("cpu_seconds_total"));
                    seen++;
                }
            }
        }
    }

    /** A message in Confluent's wire format: 0x00, the registry's id of the schema in four bytes, the record. */
    static GenericRecord confluent(byte[] value, Schema reader) throws Exception {
        int id = ByteBuffer.wrap(value).getInt(1);
        if (!REGISTERED.containsKey(id)) {
            URI uri = URI.create(System.getenv("SCHEMA_REGISTRY_URL") + "/schemas/ids/" + id);
            String answer = HttpClient.newHttpClient().send(HttpRequest.newBuilder(uri).build(), BodyHandlers.ofString()).body();
            String text = new com.fasterxml.jackson.databind.ObjectMapper().readTree(answer).get("schema").asText();
            REGISTERED.put(id, new Schema.Parser().parse(text));
        }
        var body = DecoderFactory.get().binaryDecoder(value, 5, value.length - 5, null);
        return new GenericDatumReader<GenericRecord>(REGISTERED.get(id), reader).read(null, body);
    }
}
