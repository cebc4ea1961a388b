package bench;

import com.fasterxml.jackson.databind.ObjectMapper;
import jakarta.validation.Validator;
import jakarta.validation.constraints.NotBlank;
import jakarta.validation.constraints.Positive;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.context.ConfigurableApplicationContext;

/** The line protocol of the engine's benchmark on Spring; see guest.py. */
@SpringBootApplication
public class Guest {

    private static final int WARM_UPS = 2;
    private static final int PLATFORM_PORT = 9001;
    private static final String ORDER =
        "{\"customer\": \"nobody\", \"lines\": [{\"item\": \"tea\", \"count\": 2}, {\"item\": \"\", \"count\": 0}]}";

    /** An order as it arrives. */
    public record Order(@NotBlank String customer, List<@jakarta.validation.Valid Line> lines) {

        /** One line of an order. */
        public record Line(@NotBlank String item, @Positive int count) {}
    }

    public static void main(String[] arguments) throws IOException {
        ConfigurableApplicationContext container = SpringApplication.run(Guest.class);
        ObjectMapper json = container.getBean(ObjectMapper.class);
        Validator validator = container.getBean(Validator.class);
        for (int index = 0; index < WARM_UPS; index++) {
            answer("trivial", json, validator);
            answer("real", json, validator);
        }
        String port = System.getenv("BENCH_LISTEN");
        InetAddress loopback = InetAddress.getByName("127.0.0.1");
        if (port == null) {
            answerLines(new Socket(loopback, PLATFORM_PORT), json, validator);
            return;
        }
        ServerSocket listener = new ServerSocket(Integer.parseInt(port), 1, loopback);
        while (true) {
            try (Socket connection = listener.accept()) {
                answerLines(connection, json, validator);
            }
        }
    }

    private static void answerLines(Socket connection, ObjectMapper json, Validator validator) throws IOException {
        connection.setTcpNoDelay(true);
        BufferedReader lines =
            new BufferedReader(new InputStreamReader(connection.getInputStream(), StandardCharsets.UTF_8));
        write(connection, "ready");
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            write(connection, answer(line, json, validator));
        }
    }

    private static void write(Socket connection, String line) throws IOException {
        connection.getOutputStream().write((line + "\n").getBytes(StandardCharsets.UTF_8));
    }

    private static String answer(String kind, ObjectMapper json, Validator validator) throws IOException {
        if (kind.equals("trivial")) {
            return "pong";
        }
        Order order = json.readValue(ORDER, Order.class);
        Map<String, Object> answer = new TreeMap<>();
        answer.put("order", order);
        answer.put("complaints", validator.validate(order).stream().map(Object::toString).sorted().toList());
        return json.writeValueAsString(answer);
    }
}
