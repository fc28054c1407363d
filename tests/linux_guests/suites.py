"""Builds the suites of programs that judge pyemu from inside a Linux guest: the kernel's selftests for x86, valgrind's
tests of instructions, and QEMU's tests of its own guests. They are compiled when a test wants them, and kept.

A suite's programs end with status 0, or print what is expected: what the suite says where it knows, else what they
print on the host's processor. Flags and lists follow each suite's makefiles, except that all is linked statically.
What is left out is said here, with reasons; how the programs end in a guest is judged by
tests/guests_boot/test_programs.py.
"""

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests import judges
from tests.linux_guests import images, sources
from tests.linux_guests.programs import PROGRAM_SECONDS, Program, on_host

JOBS = 2
COMPILE_SECONDS = 300
SLOW = {"test-i386-fprem": 600, "fb_test_amd64": 600}  # seconds: they print millions of lines

# Programs of valgrind's and QEMU's folders that are of no use here.
_LEFT_OUT = {
    "allexec": "runs other programs by their paths: no instructions are tested",
    "bug156404-amd64": "doesn't compile on Linux any more",
    "cpuid_c": "prints what CPUID says, which differs from the host's by intention",
    "yield": "compares the host's speed of two loops",
    "vsyscall": "prints the time, through a page that the kernel has only if asked for",
    "rdtscp": "prints the processor's number and time",
    "test-3dnow": "3DNow! is neither on the host nor announced",
    "hello-i386": "prints a greeting",
}


# ---- the kernel's selftests/x86 ------------------------------------------------------------------------
def kernel(bits: int) -> list[Program]:
    """tools/testing/selftests/x86: they end with status 0 if all is well."""

    def build(target: Path) -> None:
        folder = target.with_name("selftests")  # their makefile writes among the sources
        shutil.copytree(sources.tree("linux"), folder, dirs_exist_ok=True)
        settings = ["CAN_BUILD_I386=1", "CAN_BUILD_X86_64=1", "CAN_BUILD_WITH_NOPIE=1"]
        compiler = " ".join([*_compiler(bits), "-static"])
        _call(
            ["make", "-C", str(folder / "tools/testing/selftests/x86"), f"-j{JOBS}", f"all_{bits}", f"OUTPUT={target}",
             f"CC={compiler}", *settings]
        )  # fmt: skip

    return [Program(path) for path in _built("kernel", bits, build)]


# ---- valgrind's none/tests -----------------------------------------------------------------------------
_VALGRIND = ("-w", "-O0", "-no-pie", "-fno-strict-aliasing", "-mmmx", "-msse", "-mfxsr")
_VALGRIND_32 = ("-mpreferred-stack-boundary=2",)  # valgrind's makefile, so that locals are where the tests put them
_OPTIMIZED = ("amd64locked", "x86locked", "fb_test_amd64")


def valgrind(bits: int) -> list[Program]:
    """Those that are generated from tables (insn_*) know what they print; the others are compared with the host."""
    tree = sources.tree("valgrind")
    folder = tree / "none/tests" / ("amd64" if bits == 64 else "x86")

    def build(target: Path) -> None:
        (target.parent / "config.h").touch()  # what configure found out, of which the tests use nothing
        folders = [f"-I{path}" for path in (target.parent, folder, tree, tree / "include")]
        flags = [*_VALGRIND, *(_VALGRIND_32 if bits == 32 else ()), *folders]
        wanted = {path.stem: path for path in folder.glob("*.c") if path.stem not in _LEFT_OUT}
        for table in folder.glob("insn_*.def"):
            with table.open() as rows:
                text = subprocess.run(
                    ["perl", folder / "gen_insn_test.pl"], stdin=rows, capture_output=True, text=True, check=True
                ).stdout
            wanted[table.stem] = target.parent / f"{table.stem}.c"
            wanted[table.stem].write_text(text)
        _compile(
            bits,
            {
                target / f"{name}_{bits}": [*flags, *(["-O"] if name in _OPTIMIZED else []), str(source), "-lpthread"]
                for name, source in wanted.items()
            },
        )

    def program(path: Path) -> Program:
        name = path.name.removesuffix(f"_{bits}")
        known = folder / f"{name}.stdout.exp"
        if name.startswith("insn_"):
            return Program(path, known.read_bytes() + b"status 0\n")
        return on_host(path, SLOW.get(name, PROGRAM_SECONDS))

    return [program(path) for path in _built("valgrind", bits, build)]


# ---- QEMU's tests/tcg ------------------------------------------------------------------------------------
_QEMU = ("-w", "-O0", "-fno-strict-aliasing")
_QEMU_FLAGS = {
    "test-i386": ("-no-pie", "-fno-pie"),
    "test-i386-sse-exceptions": ("-msse4.1", "-mfpmath=sse"),
    "test-i386-pcmpistri": ("-msse4.2",),
    "test-i386-bmi2": ("-O2",),
    "test-i386-ssse3": ("-mssse3",),
    "test-mmx": ("-masm=intel", "-O"),
    "test-avx": ("-mavx", "-masm=intel", "-O"),
    "sha512-sse": ("-msse4.1", "-O3"),
}
_QEMU_64_ONLY = ("test-i386-ssse3", "test-mmx", "test-avx")
_MULTIARCH = ("float_convd", "float_convs", "float_madds", "sha1", "sha512")  # the others test Linux rather than QEMU


def qemu(bits: int) -> list[Program]:
    """All are compared with the host."""
    tests = sources.tree("qemu") / "tests/tcg"
    i386, x86_64, multiarch = tests / "i386", tests / "x86_64", tests / "multiarch"

    def wanted() -> Iterator[tuple[str, list[Path]]]:
        for source in i386.glob("test-*.c"):
            if source.stem not in _LEFT_OUT and source.stem != "test-i386":
                if bits == 64 or source.stem not in _QEMU_64_ONLY:
                    yield source.stem, [source]
        if bits == 64:
            yield "test-x86_64", [i386 / "test-i386.c"]
            yield from ((source.stem, [source]) for source in x86_64.glob("*.c") if source.stem not in _LEFT_OUT)
        else:
            yield "test-i386", [i386 / f"test-i386{end}" for end in (".c", "-code16.S", "-vm86.S")]
        for name in _MULTIARCH:
            helpers = [multiarch / "libs/float_helpers.c"] if name.startswith("float_") else []
            yield name, [multiarch / f"{name}.c", *helpers]
        yield "sha512-sse", [multiarch / "sha512.c"]

    def build(target: Path) -> None:
        table = i386 / "x86.csv"
        for script, header, sets in (
            ("test-mmx.py", "test-mmx.h", ("MMX", "SSE", "SSE2", "SSE3", "SSSE3")),
            ("test-avx.py", "test-avx.h", ()),
        ):
            _call([sys.executable, str(i386 / script), str(table), str(target.parent / header), *sets])
        flags = [*_QEMU, f"-I{target.parent}", f"-I{i386}"]
        _compile(
            bits,
            {
                target / f"{name}_{bits}": [*flags, *_QEMU_FLAGS.get(name, ()), *map(str, files)]
                for name, files in wanted()
            },
        )

    def program(path: Path) -> Program:
        name = path.name.removesuffix(f"_{bits}")
        return on_host(path, SLOW.get(name, PROGRAM_SECONDS))

    return [program(path) for path in _built("qemu", bits, build)]


# ---- compiling -------------------------------------------------------------------------------------------
def _compiler(bits: int) -> list[str]:
    """gcc, and where it finds the 32-bit libraries whether or not they are installed."""
    gcc = judges.require("gcc")
    if bits == 64:
        return [gcc]
    usr = sources.libraries32() / "usr"
    libraries = [next(usr.glob("lib/gcc/x86_64-linux-gnu/*/32")), usr / "lib32"]
    headers = [usr / "include/x86_64-linux-gnu", Path("/usr/include/x86_64-linux-gnu")]
    return [gcc, *(f"-B{path}" for path in libraries), *(f"-isystem{path}" for path in headers)]


def _compile(bits: int, programs: dict[Path, list[str]]) -> None:
    """Compiles each program from its arguments for gcc."""
    compiler = [*_compiler(bits), f"-m{bits}", "-static"]
    with ThreadPoolExecutor(JOBS) as pool:
        commands = ([*compiler, "-o", str(path), *arguments, "-lm"] for path, arguments in sorted(programs.items()))
        list(pool.map(_call, commands))


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=COMPILE_SECONDS)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")


def _built(suite: str, bits: int, build: Callable[[Path], None]) -> list[Path]:
    """The suite's programs, built anew if this file or the compiler is another than the last time."""
    version = subprocess.run([judges.require("gcc"), "--version"], check=True, capture_output=True).stdout
    key = hashlib.sha256(version + Path(__file__).read_bytes()).hexdigest()[:16]
    home = images.directory() / "programs" / f"{suite}-{bits}"
    stamp, target = home / "built", home / "bin"
    if not stamp.exists() or stamp.read_text() != key:
        shutil.rmtree(home, ignore_errors=True)
        target.mkdir(parents=True)
        print(f"building the programs of {suite}, {bits}-bit", file=sys.stderr, flush=True)
        build(target)
        stamp.write_text(key)
    return sorted(path for path in target.iterdir() if path.is_file())
