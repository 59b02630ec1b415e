package fake.launcher;

import java.io.ByteArrayInputStream;
import java.io.File;
import java.io.IOException;
import java.io.InputStream;
import java.util.Enumeration;
import java.util.HashMap;
import java.util.Map;
import java.util.jar.JarEntry;
import java.util.jar.JarFile;

/**
 * Main-Class of the executable JAR: loads the application from the classes nested in it and calls the
 * manifest's Start-Class, as Spring Boot's own launcher does. The nested classes cannot be seen by an
 * ordinary class loader over this JAR, so a host that gets the loader wrong fails here as it would there.
 */
public final class JarLauncher {
    private static final String NESTED = "BOOT-INF/classes/";

    private JarLauncher() {
    }

    public static void main(String[] args) throws Exception {
        File jar = new File(
            JarLauncher.class.getProtectionDomain().getCodeSource().getLocation().toURI());
        Map<String, byte[]> entries = new HashMap<>();
        String startClass;
        try (JarFile file = new JarFile(jar)) {
            startClass = file.getManifest().getMainAttributes().getValue("Start-Class");
            for (Enumeration<JarEntry> all = file.entries(); all.hasMoreElements();) {
                JarEntry entry = all.nextElement();
                if (!entry.isDirectory() && entry.getName().startsWith(NESTED)) {
                    try (InputStream in = file.getInputStream(entry)) {
                        entries.put(entry.getName().substring(NESTED.length()), in.readAllBytes());
                    }
                }
            }
        }
        NestedLoader loader = new NestedLoader(entries, JarLauncher.class.getClassLoader());
        Thread.currentThread().setContextClassLoader(loader);
        Class.forName(startClass, true, loader).getMethod("main", String[].class)
            .invoke(null, (Object) args);
    }

    /** Defines classes and serves resources from the entries read above. */
    private static final class NestedLoader extends ClassLoader {
        private final Map<String, byte[]> entries;

        NestedLoader(Map<String, byte[]> entries, ClassLoader parent) {
            super(parent);
            this.entries = entries;
        }

        @Override
        protected Class<?> findClass(String name) throws ClassNotFoundException {
            byte[] code = entries.get(name.replace('.', '/') + ".class");
            if (code == null) {
                throw new ClassNotFoundException(name);
            }
            return defineClass(name, code, 0, code.length);
        }

        @Override
        public InputStream getResourceAsStream(String name) {
            byte[] found = entries.get(name);
            return found == null ? super.getResourceAsStream(name) : new ByteArrayInputStream(found);
        }
    }
}
