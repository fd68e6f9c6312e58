"""What the checks have in common: telling what came out, waiting for a condition, the simulated hardware, a multusd to try.

A check prints "passed: NAME", "FAILED: NAME: why" or "skipped: NAME: why"; the host counts. Times are those of an emulator, so
nothing here claims that something was quick: every wait is for a condition, and only a failure waits until the end.
"""

import contextlib
import glob
import json
import os
import pathlib
import subprocess
import sys
import time
import traceback

PATIENCE = 60.0
_failed = False


@contextlib.contextmanager
def check(name):
    """One check: passed, unless what is inside raises."""
    global _failed
    try:
        yield
    except Exception as error:
        _failed = True
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == sys.argv[0]]
        where = place[-1] if place else where
        told = " ".join(str(error).split()) or where.line
        print(f"FAILED: {name}: {type(error).__name__}: {told} (line {where.lineno}: {where.line})")
    else:
        print(f"passed: {name}")


def skip(name, reason):
    print(f"skipped: {name}: {reason}")


def end():
    """The exit code of a program of checks."""
    sys.exit(1 if _failed else 0)


def until(what, condition, patience=PATIENCE):
    """Waits until `condition` returns something true, and returns it. It may fail meanwhile."""
    last = None
    limit = time.monotonic() + patience
    while time.monotonic() < limit:
        try:
            if result := condition():
                return result
            last = None
        except (OSError, ValueError, KeyError, AssertionError) as error:
            last = error
        time.sleep(0.02)
    raise AssertionError(f"waited {patience:.0f} s in vain: {what}{f' ({last})' if last else ''}")


def same(found, expected):
    assert found == expected, f"{found!r} instead of {expected!r}"


def run(*command, code=0):
    """Output of a program that ends with `code`."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE)
    assert done.returncode == code, f"{' '.join(command)}: exit code {done.returncode}: {done.stdout}"
    return done.stdout


def write(path, text):
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def read(path):
    return pathlib.Path(path).read_text().strip()


def load(module, *parameters):
    """A module of the lab, or of the kernel."""
    own = f"/host/modules/{module}.ko"
    run(*(["insmod", own] if os.path.exists(own) else ["modprobe", module]), *parameters)


def pids(program):
    """Processes that run a program."""
    return [int(pid) for pid in subprocess.run(["pidof", program], stdout=subprocess.PIPE, text=True).stdout.split()]


class GpioSim:
    """The kernel's simulated GPIO chip, from the side of the world."""

    LABEL = "pinctrl-bcm2835"

    def __init__(self, lines=54):
        if not os.path.ismount("/sys/kernel/config"):
            run("modprobe", "configfs")
            subprocess.run(["mount", "-t", "configfs", "none", "/sys/kernel/config"], check=False)
        load("gpio-sim")
        device = pathlib.Path("/sys/kernel/config/gpio-sim/lab")
        bank = device / "bank"
        bank.mkdir(parents=True)
        write(bank / "num_lines", str(lines))
        write(bank / "label", self.LABEL)
        write(device / "live", "1")
        self.chip = read(bank / "chip_name")
        self.dir = pathlib.Path("/sys/devices/platform") / read(device / "dev_name") / self.chip

    def pull(self, line, up):
        """What the world does to an input."""
        write(self.dir / f"sim_gpio{line}/pull", "pull-up" if up else "pull-down")

    def pulled(self, line):
        return {"pull-up": True, "pull-down": False}[read(self.dir / f"sim_gpio{line}/pull")]

    def level(self, line):
        """The level of the wire."""
        return read(self.dir / f"sim_gpio{line}/value") == "1"

    def user(self, line):
        """Who has a line, as every program can see: None, or a name; and "input" or "output"."""
        for text in run("gpioinfo", self.chip).splitlines():
            words = text.split()
            if words[:2] == ["line", f"{line}:"]:
                return (None if words[3] == "unused" else words[3].strip('"')), words[4]
        raise AssertionError(f"{self.chip} has no line {line}")


class I2cBus:
    """/dev/i2c-1 with two PCF8574 (0x38, 0x39) and two LM75 (0x48, 0x49)."""

    def __init__(self):
        run("modprobe", "i2c-dev")
        load("lab-i2c", "bus=1")
        until("/dev/i2c-1", lambda: os.path.exists("/dev/i2c-1"))

    def set(self, parameter, value):
        write(f"/sys/module/lab_i2c/parameters/{parameter}", str(value))

    def numbers(self, parameter):
        return [int(number) for number in read(f"/sys/module/lab_i2c/parameters/{parameter}").split(",")]


class SpiBus:
    """/dev/spidev0.0 with an MCP3208 and /dev/spidev0.1 with an MCP4922."""

    def __init__(self):
        load("lab-spi", "bus=0")
        for device in ["spi0.0", "spi0.1"]:
            write(f"/sys/bus/spi/devices/{device}/driver_override", "spidev")
            write("/sys/bus/spi/drivers/spidev/bind", device)
            until(device, lambda: os.path.exists(f"/dev/{device.replace('spi', 'spidev')}"))

    def set(self, parameter, value):
        write(f"/sys/module/lab_spi/parameters/{parameter}", str(value))

    def numbers(self, parameter):
        return [int(number) for number in read(f"/sys/module/lab_spi/parameters/{parameter}").split(",")]


class Box:
    """A multusd with directories of its own, and its command line."""

    def __init__(self, place, files, state=None):
        self.dir = pathlib.Path(place)
        self.dirs = {name: self.dir / name for name in ["config", "runtime", "log", "state"]}
        if state:
            self.dirs["state"] = pathlib.Path(state)
        for path in self.dirs.values():
            path.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write(self.dirs["config"] / name, text)
        self.flags = [part for name, path in self.dirs.items() for part in (f"--{name}-dir", str(path))]
        self.daemon = None

    def start(self):
        with open(self.dir / "multusd.out", "a") as out:
            self.daemon = subprocess.Popen(["multusd", *self.flags], stdout=out, stderr=out)
        until("multusd answers", self.status)

    def ctl(self, *arguments, code=0):
        return run("multusctl", *self.flags, *arguments, code=code)

    def status(self):
        return json.loads(self.ctl("status", "--json"))

    def child(self, name):
        return next(child for child in self.status()["children"] if child["name"] == name)

    def until_running(self, name, other_than=None):
        """Waits for a process that is ready; its process id."""

        def running():
            child = self.child(name)
            return child["state"] == "running" and child["pid"] != other_than and child["pid"]

        try:
            return until(f"{name} runs", running)
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.log(name)[-600:]}") from None

    def log(self, name):
        """All that a child has printed."""
        files = sorted(glob.glob(str(self.dirs["log"] / f"{name}.log*")), reverse=True)
        return "".join(pathlib.Path(file).read_text() for file in files)

    def stop(self):
        """An orderly end; the exit code."""
        self.daemon.terminate()
        code = self.daemon.wait(PATIENCE)
        self.daemon = None
        return code

    def has(self, *command):
        """Whether this multusctl knows a command."""
        done = subprocess.run(["multusctl", *command, "--help"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return done.returncode == 0
