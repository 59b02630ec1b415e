"""Hosts KRA's JAR in this process through JPype, or points at one that somebody else runs.

Facts it stands on: the JAR resolves its files against the working directory, so the process changes
to the unit's directory before the JVM starts (every other path is absolute by then); a JVM cannot be
started twice in a process, so restarting the unit is restarting the daemon; `shutdownJVM()` waits
for the JAR's non-daemon threads for ever, so the process ends itself (`end_process`);
`System.exit` in the JAR ends the process, and recovery is that of any crash.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import sys
import threading
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from gateway.clock import Clock
from gateway.errors import UnitNotReady
from gateway.vscu import port as ports
from gateway.vscu.jvm import Java, find_java

log = logging.getLogger(__name__)
jar_log = logging.getLogger("gateway.vscu.jar")
T = TypeVar("T")

# One line of the JAR's output in the log, in bytes; a stack trace comes as many lines.
LINE_MAX_BYTES = 2000
# A port that another program holds is tried again this often, in seconds.
PORT_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True)
class JvmFigures:
    """What the JVM says of itself; bytes and counts."""

    heap_used_bytes: int
    heap_max_bytes: int
    threads: int
    collections: int
    java_version: str


class Unit(Protocol):
    """A control unit that runs somewhere. Nothing above may know where."""

    async def start(self) -> None:
        """Set it going; it may need a while yet until it answers. UnitNotReady when it cannot."""
        ...

    async def figures(self) -> JvmFigures | None: ...

    def failure(self) -> str | None:
        """Why the unit has ended by itself, if it has."""
        ...

    def port_problem(self) -> str | None:
        """Return why no call may go to the unit's port, as last seen: another program holds it. Or None."""
        ...

    def check_port(self) -> str | None:
        """Look at the port now. Called for each new connection, before a byte leaves."""
        ...

    async def keep(self, clock: Clock) -> None:
        """Start the unit once its port is free; runs as long as the daemon lives. UnitNotReady when only a new
        process can start it."""
        ...


class ExternalUnit:
    """`unit.host = "external"`: somebody else starts and watches it."""

    async def start(self) -> None:
        return None

    async def figures(self) -> JvmFigures | None:
        return None

    def failure(self) -> str | None:
        return None

    def port_problem(self) -> str | None:
        return None

    def check_port(self) -> str | None:
        return None

    async def keep(self, clock: Clock) -> None:
        return None


class InProcessUnit:
    """KRA's JAR on a thread of this process's JVM."""

    def __init__(
        self,
        *,
        jar: Path,
        directory: Path,
        port: int,
        java_home: Path | None,
        heap_mb: int,
        jvm_options: tuple[str, ...] = (),
        arguments: tuple[str, ...] = (),
    ) -> None:
        self._jar = jar
        self._directory = directory
        self._port = port
        self._java_home = java_home
        self._heap_mb = heap_mb
        self._jvm_options = jvm_options
        self._arguments = arguments
        # Calls into Java block; they get a thread of their own, never the loop's default executor.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="jvm")
        self._failure: str | None = None
        # Whether the JVM was started, which a process can do once.
        self._started = False
        # Why it is not started yet.
        self._taken: str | None = None
        self._beans: tuple[Any, Any, Any, str] | None = None

    async def start(self) -> None:
        java = find_java(self._java_home)
        if java is None:
            raise UnitNotReady("No Java 16 or newer was found. Install one, or set unit.java_home.")
        main_class = main_class_of(self._jar)
        self._taken = await self._call(self._bind_test)
        if self._taken is not None:
            log.error("unit.port_taken reason=%s", self._taken)
            return
        # From here on the port is the JAR's: a further test could be in its way.
        self._started = True
        await self._call(lambda: self._start(java, main_class))

    async def keep(self, clock: Clock) -> None:
        while not self._started:
            await clock.sleep(PORT_PAUSE_S)
            await self.start()
        while True:
            await clock.sleep(PORT_PAUSE_S)
            # The port may be taken between the test and the JAR's own bind. A JAR is started once in a process.
            if self._failure is not None and self._taken is not None and not self.check_port():
                raise UnitNotReady(
                    f"port {self._port} is free again; a new process starts the unit"
                )

    def port_problem(self) -> str | None:
        return self._taken

    def check_port(self) -> str | None:
        """Look whose socket a connection would reach now; return what `port_problem` returns from here on."""
        if self._started:
            taken = ports.foreign(ports.LOOPBACK, self._port) is not None
            self._taken = self._say_taken() if taken else None
        return self._taken

    def _bind_test(self) -> str | None:
        """Return why the JVM must not start; None when the port is free."""
        error = ports.bind_error(ports.LOOPBACK, self._port)
        if error is None:
            return None
        if error.errno != errno.EADDRINUSE:
            return f"port {self._port} (unit.port) cannot be used: {error.strerror}"
        return self._say_taken()

    def _say_taken(self) -> str:
        who = ports.holder(ports.reached(ports.LOOPBACK, self._port))
        return f"port {self._port} (unit.port), which the control unit needs, is taken by {who}"

    async def figures(self) -> JvmFigures | None:
        return await self._call(self._figures)

    def failure(self) -> str | None:
        return self._failure

    async def _call(self, fn: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, fn)

    def _start(self, java: Java, main_class: str) -> None:
        import jpype

        self._directory.mkdir(parents=True, exist_ok=True)
        os.chdir(self._directory)
        jpype.startJVM(
            str(java.libjvm),
            f"-Xmx{self._heap_mb}m",
            # A small nursery: requests die young, and the resident memory is measured (make bench).
            f"-Xmn{max(2, self._heap_mb // 16)}m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-Xss256k",
            # Signals stay asyncio's.
            "-Xrs",
            # Nobody loads code into a running signer; and its socket would stay in /tmp for ever.
            "-XX:+DisableAttachMechanism",
            "-Xshare:auto",
            "-Djava.awt.headless=true",
            "-Dfile.encoding=UTF-8",
            *self._jvm_options,
            classpath=[str(self._jar)],
            interrupt=False,
            convertStrings=False,
        )
        log.info("jvm.started java=%s from=%s home=%s", java.version, java.source, java.home)
        self._redirect(jpype)
        management = jpype.JClass("java.lang.management.ManagementFactory")
        self._beans = (
            management.getMemoryMXBean(),
            management.getThreadMXBean(),
            management.getGarbageCollectorMXBeans(),
            str(jpype.java.lang.System.getProperty("java.version")),
        )
        ready = threading.Event()
        runner = threading.Thread(
            target=self._main, args=(jpype, main_class, ready), name="unit-main", daemon=True
        )
        runner.start()
        ready.wait()

    def _main(self, jpype: Any, main_class: str, ready: threading.Event) -> None:
        try:
            thread = jpype.java.lang.Thread.currentThread()
            loader = jpype.JClass("java.lang.ClassLoader").getSystemClassLoader()
            thread.setContextClassLoader(loader)
            main = jpype.JClass(main_class)
            args = jpype.JArray(jpype.JString)(
                [f"--server.port={self._port}", "--server.address=127.0.0.1", *self._arguments]
            )
            ready.set()
            main.main(args)
        except Exception as error:  # whatever Java throws is the unit's failure, not the daemon's
            self._failure = _cause(error)
            log.error("unit.failed reason=%s", self._failure)
        finally:
            ready.set()

    def _redirect(self, jpype: Any) -> None:
        """Java's stdout and stderr, line by line, into the log."""
        for name, level in (("Out", logging.INFO), ("Err", logging.WARNING)):
            reader, writer = os.pipe()
            stream = jpype.JClass("java.io.PrintStream")(
                jpype.JClass("java.io.FileOutputStream")(f"/proc/self/fd/{writer}"), True
            )
            getattr(jpype.java.lang.System, f"set{name}")(stream)
            os.close(writer)  # Java has its own descriptor now
            threading.Thread(
                target=_pump, args=(reader, level), name=f"java-{name.lower()}", daemon=True
            ).start()

    def _figures(self) -> JvmFigures | None:
        if self._beans is None:
            return None
        memory, threads, collectors, version = self._beans
        usage = memory.getHeapMemoryUsage()
        return JvmFigures(
            heap_used_bytes=int(usage.getUsed()),
            heap_max_bytes=int(usage.getMax()),
            threads=int(threads.getThreadCount()),
            collections=sum(int(item.getCollectionCount()) for item in collectors),
            java_version=version,
        )


def main_class_of(jar: Path) -> str:
    """Main-Class of an executable JAR. UnitNotReady when it is none."""
    try:
        with zipfile.ZipFile(jar) as archive:
            text = archive.read("META-INF/MANIFEST.MF").decode("utf-8")
    except (OSError, KeyError, zipfile.BadZipFile, UnicodeDecodeError) as error:
        raise UnitNotReady(f"{jar} is not an executable JAR: {error}") from error
    # A manifest's long values go on in the next line after one space.
    for line in text.replace("\r\n", "\n").replace("\n ", "").splitlines():
        name, _, value = line.partition(":")
        if name == "Main-Class":
            return value.strip()
    raise UnitNotReady(f"{jar} is not an executable JAR: it names no Main-Class")


def end_process(code: int) -> None:
    """End now, after the daemon's own orderly stop: the JVM's threads would keep the process."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _pump(reader: int, level: int) -> None:
    with os.fdopen(reader, "rb", buffering=8192) as lines:
        while True:
            line = lines.readline(LINE_MAX_BYTES)
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip()
            if text:
                jar_log.log(level, "%s", text)


def _cause(error: BaseException) -> str:
    """The innermost Java cause, in one line."""
    current: Any = error
    for _ in range(10):
        inner = current.getCause() if hasattr(current, "getCause") else None
        if inner is None:
            break
        current = inner
    return str(current).splitlines()[0][:500] if str(current) else type(current).__name__
