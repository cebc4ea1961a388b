package example;

import jakarta.validation.constraints.NotBlank;
import jakarta.validation.constraints.NotEmpty;
import jakarta.validation.constraints.Positive;
import java.math.BigDecimal;
import java.util.List;

/** An order as it arrives: JSON to a record, checked by annotations. */
public record Order(@NotBlank String customer, @NotEmpty List<@jakarta.validation.Valid Line> lines) {

    /** One line of an order. */
    public record Line(@NotBlank String item, @Positive int count, @Positive BigDecimal price) {}
}
