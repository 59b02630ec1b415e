package fake.vscu;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/** Requests that were accepted and not answered yet, on the disk: the knob `remembers`. */
final class Accepted {
    private int kept;

    /** Stores a request beside the device's data; the caller deletes the file when it has ended. */
    synchronized Path keep(Device device, byte[] request) throws IOException {
        Path folder = Files.createDirectories(folder(device));
        kept++;
        Path file = folder.resolve(String.format("%d-%06d", ProcessHandle.current().pid(), kept));
        Files.write(file, request);
        return file;
    }

    /** Requests that an earlier process had accepted, oldest first. */
    static List<Path> left(Device device) throws IOException {
        List<Path> found = new ArrayList<>();
        if (Files.isDirectory(folder(device))) {
            try (var files = Files.newDirectoryStream(folder(device))) {
                files.forEach(found::add);
            }
        }
        found.sort(null);
        return found;
    }

    private static Path folder(Device device) {
        return device.directory.resolve("accepted");
    }
}
