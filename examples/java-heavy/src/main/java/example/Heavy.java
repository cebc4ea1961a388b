package example;

import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestStreamHandler;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.UUID;
import org.crac.Core;
import org.crac.Resource;
import org.springframework.boot.SpringApplication;
import org.springframework.context.ConfigurableApplicationContext;

/** A function on Spring Boot: the container is built at init, which takes seconds, and is part of the snapshot. */
public class Heavy implements RequestStreamHandler, Resource {

    private static final String SAMPLE = "{\"customer\": \"nobody\", \"lines\": [{\"item\": \"tea\", \"count\": 2, \"price\": 3.5}]}";

    private final long initMillis;
    private final String initId = UUID.randomUUID().toString();
    private final ObjectMapper json;
    private final Orders orders;
    private boolean restored;

    public Heavy() {
        long startedNanos = System.nanoTime();
        ConfigurableApplicationContext container = SpringApplication.run(Application.class);
        json = container.getBean(ObjectMapper.class);
        orders = container.getBean(Orders.class);
        initMillis = (System.nanoTime() - startedNanos) / 1_000_000;
        Core.getGlobalContext().register(this);
    }

    /** Handles one order ahead, so that the first request of a clone finds its classes loaded and its code compiled. */
    @Override
    public void beforeCheckpoint(org.crac.Context<? extends Resource> context) throws Exception {
        handle(new ByteArrayInputStream(SAMPLE.getBytes(StandardCharsets.UTF_8)), new ByteArrayOutputStream());
    }

    @Override
    public void afterRestore(org.crac.Context<? extends Resource> context) {
        restored = true;
    }

    @Override
    public void handleRequest(InputStream input, OutputStream output, Context context) throws IOException {
        handle(input, output);
    }

    private void handle(InputStream input, OutputStream output) throws IOException {
        Order order = json.readValue(input, Order.class);
        List<String> complaints = orders.complaints(order);
        Map<String, Object> answer = new TreeMap<>();
        answer.put("complaints", complaints);
        answer.put("total", complaints.isEmpty() ? orders.total(order) : null);
        answer.put("initId", initId);
        answer.put("initMillis", initMillis);
        answer.put("requestId", UUID.randomUUID().toString());
        answer.put("restored", restored);
        json.writeValue(output, answer);
    }
}
