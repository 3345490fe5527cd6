# SPDX-License-Identifier: GPL-2.0
"""make test-kvmsr VENDOR=amd|intel: compares kvmsr and its library on real KVM with plain ioctls and
a plain guest; checks its JSON documents with the schemas, and its man pages with mandoc."""

import argparse
import glob
import json
import os
import subprocess
import tempfile

import boot
import products
import results
from suites import job

try:
    import jsonschema
except ImportError:
    # Debian's package is for Debian's Python only, which may not be first in PATH.
    jsonschema = None

_DATA = os.path.join(products.REPO, "tools", "kvmsr", "tests", "data")
_PAGES = os.path.join(products.REPO, "Documentation", "kvmsr")
_SCHEMAS = os.path.join(_PAGES, "schema")
_SIZE_LIMIT = 10 << 20
_TIMEOUT = {"amd": 600, "intel": 1200}


def _options():
    parser = argparse.ArgumentParser(prog="kvmsr")
    parser.add_argument("--vendor", choices=("amd", "intel"),
                        default=os.environ.get("VENDOR") or "amd")
    parser.add_argument("--suite", default="", help="run only this suite of kvmsr-check")
    return parser.parse_args()


def name():
    """The name of the results file."""
    return f"kvmsr-{_options().vendor}"


def _run(kernel, vendor, arguments, **hardware):
    """Boots once. Returns the tests, the JSON documents and the kernel's log."""
    vm = boot.Vm(kernel, kind={"amd": "qemu", "intel": "bochs"}[vendor],
                 programs=products.programs())
    vm.initramfs.add_file("programs/kvmsr", products.kvmsr())
    vm.initramfs.add_tree("kvmsr", _DATA)
    for page in glob.glob(os.path.join(_PAGES, "*.rst")):
        vm.initramfs.add_file(f"kvmsr/pages/{os.path.basename(page)}", page)
    vm.initramfs.add("kvmsr/arguments", arguments, 0o644)
    log, messages = vm.run(job("kvmsr.sh"), timeout=_TIMEOUT[vendor], show=print, **hardware)
    tests, documents = [], []
    for frame in log.json():
        if "tests" in frame:
            tests += frame["tests"]
        else:
            documents.append(frame)
    if not tests or log.exit_code and not results.count(tests)[1]:
        tests.append(results.test("kvmsr-check", False, f"exit code {log.exit_code}"))
    return tests, documents, messages


def _judge_documents(documents):
    """A test for each kind of document: there is one, and all of them match the schema."""
    if jsonschema is None:
        return [results.test("schemas", False, "this python3 lacks jsonschema: put /usr/bin first "
                             "in PATH, where the package python3-jsonschema installs it")]
    tests = {}
    missing = {name.removesuffix(".json") for name in os.listdir(_SCHEMAS)} - {
        frame["schema"] for frame in documents}
    for kind in sorted(missing):
        title = f"schema: {kind}"
        tests[title] = results.test(title, False, "no test printed such a document")
    for frame in documents:
        kind = frame["schema"]
        title = f"schema: {kind}"
        path = os.path.join(_SCHEMAS, f"{kind}.json")
        try:
            with open(path, encoding="utf-8") as file:
                schema = json.load(file)
            validator = jsonschema.validators.validator_for(schema)
            validator.check_schema(schema)
            error = next(validator(schema).iter_errors(frame["document"]), None)
        except (OSError, ValueError, jsonschema.SchemaError) as problem:
            tests[title] = results.test(title, False, str(problem).splitlines()[0])
            continue
        if error is not None:
            where = "/".join(str(step) for step in error.absolute_path)
            tests[title] = results.test(title, False, f"{where}: {error.message}"[:300])
        tests.setdefault(title, results.test(title, True))
    return list(tests.values())


def _judge_program(program):
    """Tests of the installed program: its size, its man pages, its completions."""
    size = os.path.getsize(program)
    tests = [results.test("program: under 10 MB", size < _SIZE_LIMIT, f"{size} bytes")]
    linked = subprocess.run(["ldd", program], capture_output=True, check=False, text=True)
    tests.append(results.test("program: static", linked.returncode != 0 or
                              "statically linked" in linked.stdout, linked.stdout.strip()[:200]))
    with tempfile.TemporaryDirectory() as pages:
        subprocess.run([program, "generate", "man", pages], check=True)
        names = sorted(os.listdir(pages))
        lint = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", *names], cwd=pages,
                              capture_output=True, check=False, text=True)
        tests.append(results.test("man: mandoc has no warning", bool(names) and not lint.stdout
                                  and not lint.returncode,
                                  lint.stdout.strip()[:300] or f"{len(names)} pages"))
    for shell in ("bash", "zsh", "fish"):
        said = subprocess.run([program, "generate", shell], capture_output=True, check=False)
        tests.append(results.test(f"completions: {shell}", not said.returncode and
                                  b"explain" in said.stdout))
    return tests


def main():
    """Runs kvmsr-check in the machine, and the other tests on the host."""
    options = _options()
    kernel = products.Kernel("base" if os.environ.get("KDIR") else "tracing")
    only = f"--suite {options.suite}" if options.suite else ""
    if options.vendor == "amd":
        # Times are tested in a boot of their own, in which QEMU's clock counts instructions.
        # Bochs's clock always does.
        plan = [("--skip speed", {}), ("--suite speed", {"icount": True})]
    else:
        plan = [("", {})]
    if only:
        plan = [(only, plan[-1][1] if options.suite == "speed" else {})]
    tests, documents = [], []
    for arguments, hardware in plan:
        done, printed, messages = _run(kernel, options.vendor, arguments, **hardware)
        tests += done + [results.kernel_log(messages)]
        documents += printed
    if not only:
        tests += _judge_documents(documents) + _judge_program(products.kvmsr())
    return results.conclude(name(), tests, kernel=kernel.version)
