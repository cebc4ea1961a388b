package rekindle;

import com.amazonaws.services.lambda.crac.Context;
import com.amazonaws.services.lambda.crac.Resource;
import java.io.DataInputStream;
import java.io.FileInputStream;
import java.io.IOException;
import java.lang.reflect.Constructor;
import java.lang.reflect.Field;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.security.DrbgParameters;
import java.security.InvalidParameterException;
import java.security.NoSuchAlgorithmException;
import java.security.Provider;
import java.security.SecureRandom;
import java.security.SecureRandomParameters;
import java.security.SecureRandomSpi;
import java.security.Security;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.WeakHashMap;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Gives each clone of a snapshot random state of its own.
 *
 * <p>Renewed after every restore, before any hook of the function:
 *
 * <ul>
 *   <li>the generator of {@code Math.random}, and the seeders of {@code Random}, {@code ThreadLocalRandom},
 *       {@code SplittableRandom} and of every other generator of {@code RandomGenerator.of};
 *   <li>the state that {@code ThreadLocalRandom} keeps in every live platform thread;
 *   <li>every {@code DRBG} and {@code SHA1PRNG} made since the start, whoever holds it (their creation is noted down),
 *       and the hidden DRBG that seeds the others;
 *   <li>the bytes that {@code NativePRNG} has read ahead.
 * </ul>
 *
 * <p>Everything is looked up before the snapshot, so that a restore only writes. <b>A failure is thrown, never hidden</b>:
 * before the snapshot it fails the publish, after a restore the environment.
 *
 * <p>Deliberately absent: generators that a function made itself ({@code new Random()}, {@code new SplittableRandom()})
 * and virtual threads that live across the snapshot, which cannot be found; identity hash codes and the order of
 * {@code Set.of}, on which tables are built; and OpenSSL and AWS-LC, which the engine and {@code /dev/sysgenid} see to.
 */
final class Randomness implements Resource {

    private static final String[] SEEDERS = {"java.util.Random", "java.util.SplittableRandom",
        "java.util.concurrent.ThreadLocalRandom", "java.lang.Math$RandomNumberGeneratorHolder"};

    /** Where the further generators are: a module of their own up to some Java, the base module in later ones. */
    private static final String[] PACKAGES = {"jdk.random.", "jdk.internal.random."};

    private static final String[] GENERATORS = {"L128X1024MixRandom", "L128X128MixRandom", "L128X256MixRandom",
        "L32X64MixRandom", "L64X1024MixRandom", "L64X128MixRandom", "L64X128StarStarRandom", "L64X256MixRandom",
        "Xoroshiro128PlusPlus", "Xoshiro256PlusPlus"};

    private static final String[] READ_AHEAD = {"sun.security.provider.NativePRNG",
        "sun.security.provider.NativePRNG$Blocking", "sun.security.provider.NativePRNG$NonBlocking"};

    private static final String[] THREAD_STATE = {"threadLocalRandomSeed", "threadLocalRandomSecondarySeed"};

    private static final String[] TRACKED = {"DRBG", "SHA1PRNG"};

    private static final String[] ATTRIBUTES = {"ThreadSafe", "ImplementedIn"};

    private static final int SEED_BYTES = 48;

    private final Set<SecureRandomSpi> generators = Collections.synchronizedSet(Collections.newSetFromMap(new WeakHashMap<>()));
    private final List<AtomicLong> seeders = new ArrayList<>();
    private final List<Random> shared = new ArrayList<>();
    private final List<Object> readers = new ArrayList<>();
    private final List<Field> threadState = new ArrayList<>();
    private Field readAhead;
    private Object drbgSeeder;
    private Method renewSeeder;
    private Method reseed;
    private Method supplement;

    Randomness() throws ReflectiveOperationException {
        reseed = opened(SecureRandomSpi.class.getDeclaredMethod("engineReseed", SecureRandomParameters.class));
        supplement = opened(SecureRandomSpi.class.getDeclaredMethod("engineSetSeed", byte[].class));
        trackGenerators();
    }

    @Override
    public void beforeCheckpoint(Context<? extends Resource> context) throws Exception {
        for (String name : SEEDERS) {
            collect(Class.forName(name));
        }
        for (String place : PACKAGES) {
            for (String name : GENERATORS) {
                collect(place + name);
            }
        }
        for (String name : READ_AHEAD) {
            collectReader(Class.forName(name));
        }
        collectDrbgSeeder();
        for (String name : THREAD_STATE) {
            Field field = Thread.class.getDeclaredField(name);
            field.setAccessible(true);
            threadState.add(field);
        }
        // Loads and links what a restore will use, which otherwise every clone would do again.
        afterRestore(context);
    }

    @Override
    public void afterRestore(Context<? extends Resource> context) throws Exception {
        try (DataInputStream kernel = new DataInputStream(new FileInputStream("/dev/urandom"))) {
            for (AtomicLong seeder : seeders) {
                seeder.set(kernel.readLong());
            }
            for (Random random : shared) {
                random.setSeed(kernel.readLong());
            }
            for (Object reader : readers) {
                readAhead.setInt(reader, 0);
            }
            renewThreads(kernel);
            byte[] seed = new byte[SEED_BYTES];
            kernel.readFully(seed);
            renewSeeder.invoke(drbgSeeder, seed, null);
            renewGenerators(kernel);
        }
    }

    private void renewThreads(DataInputStream kernel) throws IOException, IllegalAccessException {
        for (Thread thread : liveThreads()) {
            for (Field field : threadState) {
                if (field.getType() == long.class) {
                    field.setLong(thread, kernel.readLong());
                } else {
                    // A secondary seed of zero would mean "not seeded yet".
                    field.setInt(thread, kernel.readInt() | 1);
                }
            }
        }
    }

    private void renewGenerators(DataInputStream kernel) throws IOException, ReflectiveOperationException {
        List<SecureRandomSpi> known;
        synchronized (generators) {
            known = new ArrayList<>(generators);
        }
        for (SecureRandomSpi generator : known) {
            byte[] seed = new byte[SEED_BYTES];
            kernel.readFully(seed);
            if (generator.getClass().getSimpleName().equals("DRBG")) {
                reseed(generator, seed);
            } else {
                supplement.invoke(generator, (Object) seed);
            }
        }
    }

    /** Mixes fresh bytes in, because what a DRBG seeds itself from is by default another DRBG in memory. */
    private void reseed(SecureRandomSpi generator, byte[] seed) throws ReflectiveOperationException {
        try {
            reseed.invoke(generator, DrbgParameters.reseed(false, seed));
        } catch (InvocationTargetException failure) {
            if (failure.getCause() instanceof UnsupportedOperationException) {
                throw new IllegalStateException("a DRBG that cannot be seeded anew would repeat itself in every environment"
                    + " of a snapshot: make it with the capability RESEED_ONLY", failure.getCause());
            }
            throw failure;
        }
    }

    private static List<Thread> liveThreads() {
        ThreadGroup root = Thread.currentThread().getThreadGroup();
        while (root.getParent() != null) {
            root = root.getParent();
        }
        Thread[] threads = new Thread[2 * root.activeCount() + 16];
        int count = root.enumerate(threads, true);
        return List.of(Arrays.copyOf(threads, count));
    }

    /** Notes the static seeders and generators of a class that not every Java has. */
    private void collect(String name) throws IllegalAccessException {
        try {
            collect(Class.forName(name));
        } catch (ClassNotFoundException absentHere) {
            // Java 11 has none of them, and later ones have them in one place only: then there is nothing to renew.
        }
    }

    private void collect(Class<?> type) throws IllegalAccessException {
        for (Field field : type.getDeclaredFields()) {
            if (!Modifier.isStatic(field.getModifiers())) {
                continue;
            }
            if (field.getType() == AtomicLong.class) {
                field.setAccessible(true);
                seeders.add((AtomicLong) field.get(null));
            } else if (field.getType() == Random.class) {
                field.setAccessible(true);
                shared.add((Random) field.get(null));
            }
        }
    }

    private void collectReader(Class<?> type) throws ReflectiveOperationException {
        Field instance = type.getDeclaredField("INSTANCE");
        instance.setAccessible(true);
        Object reader = instance.get(null);
        if (reader != null) {
            readAhead = reader.getClass().getDeclaredField("buffered");
            readAhead.setAccessible(true);
            readers.add(reader);
        }
    }

    /** Finds the DRBG that seeds the others: it is captured by the function that stands for it. */
    private void collectDrbgSeeder() throws ReflectiveOperationException, NoSuchAlgorithmException {
        // It comes to life when the first DRBG is used, and only then can it be seeded anew.
        SecureRandom.getInstance("DRBG").nextInt();
        Field holder = Class.forName("sun.security.provider.AbstractDrbg$SeederHolder").getDeclaredField("seeder");
        holder.setAccessible(true);
        Object seeder = holder.get(null);
        Class<?> drbg = Class.forName("sun.security.provider.AbstractDrbg");
        for (Field captured : seeder.getClass().getDeclaredFields()) {
            if (drbg.isAssignableFrom(captured.getType())) {
                captured.setAccessible(true);
                drbgSeeder = captured.get(seeder);
            }
        }
        if (drbgSeeder == null) {
            throw new NoSuchFieldException("the generator that seeds every DRBG is not where this Java was expected to keep it");
        }
        // It was made without the capability of being seeded anew; what that capability guards is this method.
        renewSeeder = opened(drbg.getDeclaredMethod("reseedAlgorithm", byte[].class, byte[].class));
    }

    /** Puts services that note down what they make in the place of the provider's own. */
    private void trackGenerators() throws ReflectiveOperationException {
        Method put = opened(Provider.class.getDeclaredMethod("putService", Provider.Service.class));
        Provider provider = Security.getProvider("SUN");
        for (String algorithm : TRACKED) {
            Provider.Service service = provider == null ? null : provider.getService("SecureRandom", algorithm);
            if (service != null) {
                put.invoke(provider, new Tracking(service));
            }
        }
    }

    private static Method opened(Method method) {
        method.setAccessible(true);
        return method;
    }

    /** A service that makes what the provider's own makes, and notes it down. */
    private final class Tracking extends Provider.Service {

        private final Constructor<?> constructor;
        private final boolean takesParameter;

        Tracking(Provider.Service original) throws ReflectiveOperationException {
            super(original.getProvider(), original.getType(), original.getAlgorithm(), original.getClassName(), null,
                attributes(original));
            constructor = constructor(Class.forName(original.getClassName()));
            takesParameter = constructor.getParameterCount() == 1;
            constructor.setAccessible(true);
        }

        @Override
        public Object newInstance(Object parameter) throws NoSuchAlgorithmException {
            if (parameter != null && !(takesParameter && parameter instanceof SecureRandomParameters)) {
                throw new InvalidParameterException(getAlgorithm() + " takes no " + parameter.getClass().getName());
            }
            try {
                Object made = takesParameter ? constructor.newInstance(parameter) : constructor.newInstance();
                generators.add((SecureRandomSpi) made);
                return made;
            } catch (ReflectiveOperationException failure) {
                throw new NoSuchAlgorithmException("make a " + getAlgorithm(), failure.getCause());
            }
        }
    }

    private static Constructor<?> constructor(Class<?> type) throws NoSuchMethodException {
        try {
            return type.getDeclaredConstructor(SecureRandomParameters.class);
        } catch (NoSuchMethodException none) {
            return type.getDeclaredConstructor();
        }
    }

    /** Without these, {@code SecureRandom} would take turns where it need not. */
    private static Map<String, String> attributes(Provider.Service original) {
        Map<String, String> attributes = new HashMap<>();
        for (String name : ATTRIBUTES) {
            String value = original.getAttribute(name);
            if (value != null) {
                attributes.put(name, value);
            }
        }
        return attributes;
    }
}
