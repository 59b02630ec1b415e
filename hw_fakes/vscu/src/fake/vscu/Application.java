package fake.vscu;

import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.InputStream;
import java.net.BindException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;

/**
 * Start-Class of the fake control unit. Reads config/application.properties and keeps its data relative
 * to the working directory, as the real JAR does; --name=value arguments win over the file.
 */
public final class Application {
    /** One sale may be late while reads go on; more threads than that would hide a client's leak. */
    private static final int THREADS = 12;
    private static final long RETRANSMIT_MS = 1000;

    private Application() {
    }

    public static void main(String[] args) throws IOException {
        long started = System.nanoTime();
        // Read by the server's class when it loads: without it every answer waits 40 ms.
        System.setProperty("sun.net.httpserver.nodelay", "true");
        Map<String, String> config = config(args);
        Knobs knobs = new Knobs();
        for (Map.Entry<String, String> entry : config.entrySet()) {
            if (entry.getKey().startsWith("fake.") && !entry.getKey().equals("fake.devices")) {
                String wrong = knobs.set(entry.getKey().substring(5), entry.getValue());
                if (wrong != null) {
                    System.err.println(wrong);
                    System.exit(1);
                }
            }
        }
        int port = Integer.parseInt(config.getOrDefault("server.port", "8088"));
        String host = config.getOrDefault("server.address", "0.0.0.0");
        HttpServer server;
        try {
            server = HttpServer.create(
                new InetSocketAddress(InetAddress.getByName(host), port), 200);
        } catch (BindException e) {
            System.err.println("Web server failed to start. Port " + port + " was already in use.");
            System.exit(1);
            return;
        }
        Unit unit = new Unit(Path.of(""), knobs, config);
        ThreadPoolExecutor pool = new ThreadPoolExecutor(THREADS, THREADS, 30, TimeUnit.SECONDS,
            new ArrayBlockingQueue<>(1000), new ThreadPoolExecutor.CallerRunsPolicy());
        pool.allowCoreThreadTimeOut(true);
        server.setExecutor(pool);
        server.createContext("/", new Handler(unit));
        server.start();
        System.out.println("fake.vscu.Application : Started Application on " + host + ":"
            + server.getAddress().getPort() + " (api "
            + config.getOrDefault("api.external.domain", "none") + ") in "
            + (System.nanoTime() - started) / 1_000_000 + " ms");
        Thread sender = new Thread(() -> {
            unit.codes.load();
            unit.signAccepted();
            while (true) {
                sleep(RETRANSMIT_MS);
                unit.retransmit();
            }
        }, "retransmission");
        sender.setDaemon(true);
        sender.start();
    }

    private static Map<String, String> config(String[] args) throws IOException {
        Properties file = new Properties();
        Path path = Path.of("config", "application.properties");
        if (Files.exists(path)) {
            try (InputStream in = Files.newInputStream(path)) {
                file.load(in);
            }
        }
        Map<String, String> config = new LinkedHashMap<>();
        for (String name : file.stringPropertyNames()) {
            config.put(name, file.getProperty(name).trim());
        }
        for (String arg : args) {
            int equals = arg.indexOf('=');
            if (arg.startsWith("--") && equals > 0) {
                config.put(arg.substring(2, equals), arg.substring(equals + 1));
            }
        }
        return config;
    }

    static void sleep(long ms) {
        if (ms <= 0) {
            return;
        }
        try {
            Thread.sleep(ms);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }
}
