package example;

import com.amazonaws.services.lambda.runtime.Context;
import com.amazonaws.services.lambda.runtime.RequestHandler;
import java.util.Map;
import java.util.TreeMap;
import java.util.UUID;
import org.crac.Core;
import org.crac.Resource;

/** The smallest Java function with CRaC hooks: what is made at init, and what happens around a snapshot. */
public class Hello implements RequestHandler<Map<String, Object>, Map<String, Object>>, Resource {

    /** Made once, at init; with SnapStart it is part of the snapshot. */
    private final String initId = UUID.randomUUID().toString();

    private int invocations;
    private long restoredAtMillis;

    public Hello() {
        Core.getGlobalContext().register(this);
    }

    @Override
    public void beforeCheckpoint(org.crac.Context<? extends Resource> context) {
        System.out.println("before the snapshot: one request ahead, so that its code is loaded and compiled");
        answer(Map.of("name", "nobody"));
        invocations = 0;
    }

    @Override
    public void afterRestore(org.crac.Context<? extends Resource> context) {
        restoredAtMillis = System.currentTimeMillis();
    }

    @Override
    public Map<String, Object> handleRequest(Map<String, Object> event, Context context) {
        return answer(event);
    }

    private Map<String, Object> answer(Map<String, Object> event) {
        invocations += 1;
        Map<String, Object> answer = new TreeMap<>();
        answer.put("message", "hello " + event.getOrDefault("name", "world"));
        answer.put("initId", initId);
        answer.put("requestId", UUID.randomUUID().toString());
        answer.put("invocations", invocations);
        answer.put("restoredAtMillis", restoredAtMillis);
        answer.put("java", Runtime.version().toString());
        return answer;
    }
}
