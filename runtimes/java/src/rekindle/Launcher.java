package rekindle;

import com.amazonaws.services.lambda.crac.Core;
import com.amazonaws.services.lambda.runtime.api.client.AWSLambda;

/**
 * Starts the unmodified AWS client. In an environment that is going to be snapshotted it registers the platform's
 * resource first, so that its after-restore hook runs before those of the function.
 *
 * <p>It registers with the client's own context, the one that {@code org.crac} leads to. Deliberately absent:
 * {@code org.crac} itself, which a function brings along as on AWS (one beside the client would hide the function's own
 * version), and everything the client does itself.
 */
public final class Launcher {

    /** Held here because contexts hold their resources weakly. */
    private static Randomness randomness;

    private Launcher() {}

    public static void main(String[] arguments) throws Throwable {
        if (arguments.length == 2 && arguments[0].equals("--check")) {
            check(arguments[1]);
            return;
        }
        if ("snap-start".equals(System.getenv("AWS_LAMBDA_INITIALIZATION_TYPE"))) {
            randomness = new Randomness();
            Core.getGlobalContext().register(randomness);
        }
        AWSLambda.main(arguments);
    }

    /** Loads the client and its native library, and goes through the hooks once: what an install wants to know. */
    private static void check(String library) throws Exception {
        System.load(library);
        Class.forName(AWSLambda.class.getName());
        new Randomness().beforeCheckpoint(null);
    }
}
