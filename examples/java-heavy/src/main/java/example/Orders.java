package example;

import jakarta.validation.ConstraintViolation;
import jakarta.validation.Validator;
import java.math.BigDecimal;
import java.util.List;
import org.springframework.stereotype.Service;

/** Checks and sums orders. */
@Service
public class Orders {

    private final Validator validator;

    public Orders(Validator validator) {
        this.validator = validator;
    }

    /** What is wrong with the order, in the words of the annotations; nothing if it is in order. */
    public List<String> complaints(Order order) {
        return validator.validate(order).stream().map(Orders::words).sorted().toList();
    }

    public BigDecimal total(Order order) {
        return order.lines().stream()
            .map(line -> line.price().multiply(BigDecimal.valueOf(line.count())))
            .reduce(BigDecimal.ZERO, BigDecimal::add);
    }

    private static String words(ConstraintViolation<Order> violation) {
        return violation.getPropertyPath() + " " + violation.getMessage();
    }
}
