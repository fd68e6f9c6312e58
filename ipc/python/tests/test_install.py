import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import multus
from tests.page import FOLDER, clean_environment, skip

CRATES = os.path.join(os.path.dirname(os.path.dirname(FOLDER)), "Cargo.toml")


class Install(unittest.TestCase):
    def test_the_version_is_that_of_the_crates(self):
        with open(CRATES, encoding="utf-8") as file:
            version = re.search(r'^version = "(.*)"', file.read(), re.MULTILINE)
        self.assertEqual(multus.__version__, version[1])

    def test_pip_installs_it_from_the_tree(self):
        title = "pip install of the Python package"
        if importlib.util.find_spec("pip") is None:
            skip(title, "this Python has no pip")
        with tempfile.TemporaryDirectory() as work:
            tree, target = os.path.join(work, "tree"), os.path.join(work, "target")
            # A copy: setuptools leaves its traces where it builds.
            shutil.copytree(FOLDER, tree, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info", "build"))
            environment = {**clean_environment(), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
            del environment["PYTHONPATH"]

            def pip(*options):
                install = ["install", "--quiet", "--no-deps", "--target", target, *options, tree]
                return python("-m", "pip", *install, env=environment, cwd=work)

            if can_build():
                result = pip("--no-index", "--no-build-isolation")
            else:
                result = pip("--retries=0", "--timeout=10")
                if result.returncode and re.search("connection|No matching distribution", result.stderr, re.IGNORECASE):
                    skip(title, "setuptools >= 61 with wheel is neither installed nor to be had")
            self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
            self.assertIn(f"multus-{multus.__version__}.dist-info", os.listdir(target))
            self.assertTrue(os.path.exists(os.path.join(target, "multus", "py.typed")))
            self.assertEqual(sorted(os.listdir(target)), ["multus", f"multus-{multus.__version__}.dist-info"])
            program = "import multus, multus.aio, multus.logging; multus.Heartbeat.from_env(); print(multus.__file__)"
            used = python("-c", program, env={**environment, "PYTHONPATH": target}, cwd=work)
            self.assertEqual((used.stdout, used.stderr), (os.path.join(target, "multus", "__init__.py") + "\n", ""))


def python(*arguments, **options):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=300, **options)


def can_build():
    """Whether this Python can build a wheel with what it has."""
    try:
        setuptools = importlib.metadata.version("setuptools")
    except importlib.metadata.PackageNotFoundError:
        return False
    version = tuple(int(number) for number in setuptools.split(".")[:2])
    return version >= (70, 1) or (version >= (61, 0) and importlib.util.find_spec("wheel") is not None)


if __name__ == "__main__":
    unittest.main()
