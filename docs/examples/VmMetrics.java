// Follows vm.metrics with nothing of virtflow but its schema files: VmMetrics.java BROKERS SCHEMAS_FOLDER [COUNT].
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.message.BinaryMessageDecoder;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

public class VmMetrics {
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
                    GenericRecord sample = decoder.decode(ByteBuffer.wrap(message.value()));
                    System.out.println(sample.get("uuid") + " " + sample.get("name") + " " + sample.get("cpu_seconds_total"));
                    seen++;
                }
            }
        }
    }
}
