"""What has to be there before anything is measured: tools, our own release build, the jars."""

import pathlib
import re
import shutil
import subprocess

from trouble import Trouble, Unusable

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = pathlib.Path(__file__).resolve().parent
CACHE = ROOT / "target" / "compare"
COLOUR = re.compile("\x1b\\[[0-9;]*m")
# Natives for systems this program does not run on only slow the class path down.
FOREIGN = ("*-osx-*.jar", "*-windows-*.jar", "*-riscv64.jar")


def need(tool, package):
    if shutil.which(tool) is None:
        raise Unusable(f"`{tool}` is not installed: install {package} and repeat")


def tools():
    """Refuses to start without what every run needs."""
    need("cargo", "Rust with rustup")
    need("taskset", "util-linux")
    need("java", "a JDK 17, as openjdk-17-jdk-headless")
    need("mvn", "maven")


def orbitmq(say):
    """Builds the release binary and returns its path."""
    say("building OrbitMQ (cargo build --release)")
    done = subprocess.run(
        ["cargo", "build", "--release", "--locked", "--quiet"], cwd=ROOT, check=False
    )
    binary = ROOT / "target" / "release" / "orbitmq"
    if done.returncode != 0 or not binary.exists():
        raise Unusable("cargo build --release failed: its errors are above; mend them first")
    return binary


def first_error(text):
    """What Maven says first is the cause; the rest is how to ask it for more."""
    lines = COLOUR.sub("", text).splitlines()
    errors = [line for line in lines if line.startswith("[ERROR] ")]
    return (errors or lines[-1:] or ["it said nothing"])[0]


def jars(name, say):
    """The folder with the jars of `rocketmq` or `kafka`, from Maven once per pom."""
    pom = HERE / name / "pom.xml"
    folder = CACHE / name
    if (folder / "pom.xml").exists() and (folder / "pom.xml").read_bytes() == pom.read_bytes():
        return folder / "lib"
    say(f"fetching the jars of {name} with Maven, once")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    command = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies"]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={folder / 'lib'}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not any((folder / "lib").glob("*.jar")):
        shutil.rmtree(folder, ignore_errors=True)
        raise Trouble(
            f"Maven could not fetch the jars of {name}; check the network and Maven's settings "
            f"(`mvn -f {pom.relative_to(ROOT)} dependency:resolve` shows more), then repeat:\n"
            f"    {first_error(done.stdout + done.stderr)}"
        )
    for pattern in FOREIGN:
        for jar in (folder / "lib").glob(pattern):
            jar.unlink()
    # Last, so that an interrupted fetch is not taken for a whole one.
    shutil.copy(pom, folder / "pom.xml")
    return folder / "lib"
