package example;

import org.springframework.boot.autoconfigure.SpringBootApplication;

/** What Spring finds by itself: the services of this package, Jackson, validation. */
@SpringBootApplication
public class Application {}
