# SPDX-License-Identifier: GPL-2.0
"""make lint and make fmt: formatting and static checks."""

import filecmp
import os
import re
import shutil
import subprocess
import sys
import tempfile

import products
import results
from drift.judged import judged
from suites import cargo_environment, registers, schemas, uapi

_REPO = products.REPO
# The number of lines that the hook series may add to the kernel, including moved lines.
_SERIES_LIMIT = 800
# The lines of context around each change, as git am expects them.
_CONTEXT = 3
_HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_UNSAFE = re.compile(r"\bunsafe\b")
# Where hand-written unsafe code is allowed.
_UNSAFE_ALLOWED = ("rust/kvm/", "rust/bindings/", "rust/bindings.rs")


def _files(*patterns):
    """The checkout's files that match, unless git ignores them."""
    listed = subprocess.run(["git", "-C", _REPO, "ls-files", "--cached", "--others",
                             "--exclude-standard", "-z", "--", *patterns],
                            stdout=subprocess.PIPE, check=True, text=True).stdout
    return sorted({name for name in listed.split("\0")
                   if name and os.path.exists(os.path.join(_REPO, name))})


def _run(*command, environment=None):
    """Runs a command in the checkout. Returns (exit code, output)."""
    run = subprocess.run(command, cwd=_REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         env={**os.environ, **(environment or {})}, check=False, text=True,
                         errors="replace", stdin=subprocess.DEVNULL)
    return run.returncode, run.stdout


def _judge(name, *command, environment=None):
    """Runs a command as a test. Prints its output if it fails."""
    code, said = _run(*command, environment=environment)
    if code:
        print(said.rstrip())
    return results.test(name, code == 0, f"exit code {code}" if code else "")


def _rustfmt(kernel, *options):
    """The command that formats the module with the kernel's rustfmt settings."""
    return ["/usr/bin/rustfmt", "--config-path", os.path.join(kernel.source, ".rustfmt.toml"),
            *options, *_files("rust/*.rs")]


_CARGO_FMT = ["/usr/bin/cargo", "fmt", "--manifest-path", "tools/Cargo.toml", "--all"]


def fmt(kernel):
    """Formats everything."""
    for command in (_rustfmt(kernel), _CARGO_FMT):
        code, said = _run(*command, environment=cargo_environment())
        print(said, end="")
        if code:
            return code
    return 0


def _checkpatch(kernel, name, *arguments):
    """checkpatch --strict: errors and warnings fail, checks are only counted."""
    tool = os.path.join(kernel.source, "scripts/checkpatch.pl")
    # Without git, because this is not the kernel's repository.
    _, said = _run("perl", tool, "--strict", "--show-types", *arguments,
                   environment={"GIT_DIR": "none"})
    total = re.search(r"^total: (\d+) errors, (\d+) warnings(?:, (\d+) checks)?", said,
                      re.MULTILINE)
    if not total:
        return results.test(name, False, f"checkpatch did not run: {said.strip()[-200:]}")
    errors, warnings, checks = (int(number or 0) for number in total.groups())
    if errors or warnings:
        print(said.rstrip())
    return results.test(name, not errors and not warnings,
                        f"{errors} errors, {warnings} warnings, {checks} checks")


def _hunks(patch):
    """The hunks of a patch: for each its headline, first old line, and old and new lines."""
    with open(patch, encoding="utf-8") as file:
        lines = iter(file.read().splitlines())
    for headline in lines:
        if not (match := _HUNK.match(headline)):
            continue
        first, old, new = (int(number or 1) for number in match.groups())
        body = []
        while old or new:
            body.append(next(lines))
            old -= body[-1][:1] != "+"
            new -= body[-1][:1] != "-"
        yield headline, first, body


def _context(patch):
    """The context of each hunk has three lines, or as many as the file has there.

    A hunk with fewer lines before its change than after it is one at the start of its file. One
    with fewer after it is one at the end: patch -F0 and git apply take it nowhere else, so that
    _applies() would fail.
    """
    wrong = []
    for headline, first, body in _hunks(os.path.join(_REPO, patch)):
        if first == 0:
            # A new file has no context.
            continue
        changes = [number for number, line in enumerate(body) if not line.startswith(" ")]
        before, after = changes[0], len(body) - 1 - changes[-1]
        if before != _CONTEXT and (first != 1 or before > _CONTEXT):
            wrong.append(f"{headline}: {before} lines before the change")
        if after != _CONTEXT and after >= min(before, _CONTEXT):
            wrong.append(f"{headline}: {after} lines after the change")
    print("".join(f"{patch}: {line}\n" for line in wrong), end="")
    return results.test(f"context {os.path.basename(patch)}", not wrong,
                        f"{len(wrong)} places" if wrong else "")


def _applies(kernel, patches):
    """The series applies without fuzz: patch takes it off the source, git puts it on again."""
    name = "hook series applies"
    touched = set()
    for patch in patches:
        with open(os.path.join(_REPO, patch), encoding="utf-8") as file:
            touched |= set(re.findall(r"^\+\+\+ b/(\S+)$", file.read(), re.MULTILINE))
    with tempfile.TemporaryDirectory() as tree:
        for file in touched:
            os.makedirs(os.path.dirname(os.path.join(tree, file)), exist_ok=True)
            shutil.copy(os.path.join(kernel.source, file), os.path.join(tree, file))
        for command, order in ((("patch", "-R", "-p1", "-F0", "-f", "-d", tree, "-i"), patches[::-1]),
                               (("git", "-C", tree, "apply"), patches)):
            for patch in order:
                # Without git's repository: this checkout is not the kernel's.
                code, said = _run(*command, os.path.join(_REPO, patch),
                                  environment={"GIT_CEILING_DIRECTORIES": os.path.dirname(tree)})
                if code:
                    print(said.rstrip())
                    return results.test(name, False, f"{command[0]}: {os.path.basename(patch)}")
        changed = [file for file in touched
                   if not filecmp.cmp(os.path.join(kernel.source, file),
                                      os.path.join(tree, file), shallow=False)]
    return results.test(name, not changed, f"other than the source: {changed}" if changed else "")


def _patches(kernel):
    patches = _files("tools/kernel/patches/*.patch")
    for patch in patches + _files("tools/kernel/patches-debug/*.patch"):
        yield _checkpatch(kernel, f"checkpatch {os.path.basename(patch)}",
                          "--root", kernel.source, os.path.join(_REPO, patch))
    for patch in patches:
        yield _context(patch)
    yield _applies(kernel, patches)
    added = 0
    for patch in patches:
        with open(os.path.join(_REPO, patch), encoding="utf-8") as file:
            added += sum(line.startswith("+") and not line.startswith("+++") for line in file)
    yield results.test("hook series' size", 0 < added < _SERIES_LIMIT,
                       f"{added} lines added of fewer than {_SERIES_LIMIT}")


def _unsafe():
    """Tests that the module's Rust has unsafe code only where it is allowed."""
    found = []
    for name in _files("rust/*.rs"):
        if name.startswith(_UNSAFE_ALLOWED):
            continue
        with open(os.path.join(_REPO, name), encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                code = re.sub(r'"(\\.|[^"\\])*"', '""', line.split("//")[0])
                if _UNSAFE.search(code) and "unsafe_code" not in code:
                    found.append(f"{name}:{number}: {line.strip()}")
    print("\n".join(found) + "\n" if found else "", end="")
    return results.test("no unsafe outside rust/kvm/ and the bindings", not found,
                        f"{len(found)} places" if found else "")


def _generated():
    """Tests that the files of `make registers` are current."""
    for file in registers.FILES:
        name = f"{os.path.basename(file)} is current"
        try:
            current = registers.is_current(file)
        except products.BuildError as error:
            yield results.test(name, False, str(error))
            continue
        yield results.test(name, current,
                           "" if current else f"{file} is not current: run `make registers`")


def _uapi():
    """Tests that kvmsr's structures of /dev/kvm-msr are current."""
    name = f"{os.path.basename(uapi.FILE)} is current"
    try:
        current = uapi.is_current()
    except products.BuildError as error:
        return results.test(name, False, str(error))
    return results.test(name, current,
                        "" if current else f"{uapi.FILE} is not current: run `make uapi`")


def _schemas():
    """Tests that the schemas of kvmsr's output are current."""
    name = "schemas of kvmsr"
    try:
        stale = schemas.stale()
    except (products.BuildError, OSError) as error:
        return results.test(name, False, str(error))
    return results.test(name, not stale, f"run `make schemas`: not current are {', '.join(stale)}"
                        if stale else "")


def _headers():
    """Tests that each Rust file names the licence of its package."""
    gpl = ("rust/", "tools/engine-host/")
    # kvmsr prints code without a licence: it belongs to the user.
    printed = "tools/kvmsr/tests/generated/"
    wrong = []
    for name in _files("*.rs"):
        if name.startswith(printed):
            continue
        with open(os.path.join(_REPO, name), encoding="utf-8") as file:
            line = file.readline().rstrip()
        licence = "GPL-2.0" if name.startswith(gpl) else "Apache-2.0 OR MIT"
        if line != f"// SPDX-License-Identifier: {licence}":
            wrong.append(f"{name}: {line!r}, its package has {licence}")
    print("\n".join(wrong) + "\n" if wrong else "", end="")
    return results.test("licences of the files", not wrong,
                        f"{len(wrong)} files" if wrong else "")


def _licences():
    """Tests that each program's licences are compatible; see the deny.toml files."""
    for title, manifest, *options in (("the tools", "tools/Cargo.toml", "--workspace"),
                                      ("engine-host", "tools/engine-host/Cargo.toml")):
        name = f"licences of {title}"
        config = os.path.join(os.path.dirname(manifest), "deny.toml")
        try:
            deny = products.script("deny.sh")
        except products.BuildError as error:
            yield results.test(name, False, str(error))
            continue
        yield _judge(name, deny, "--manifest-path", manifest, "--config", config, "--offline",
                     *options, "check", "--hide-inclusion-graph", "licenses",
                     environment=cargo_environment())


def _tests(kernel):
    cargo = cargo_environment()
    yield _judge("rustfmt of the module", *_rustfmt(kernel, "--check"))
    yield _judge("cargo fmt of the tools", *_CARGO_FMT, "--check", environment=cargo)
    try:
        kernel.engine("clippy")
        yield results.test("Clippy of the module", True)
    except products.BuildError as error:
        yield results.test("Clippy of the module", False, str(error))
    yield _judge("Clippy of the tools", "/usr/bin/cargo", "clippy", "--quiet", "--locked",
                 "--manifest-path", "tools/Cargo.toml", "--workspace", "--all-targets", "--",
                 "-D", "warnings", environment=cargo)
    yield from _generated()
    yield _uapi()
    yield _schemas()
    yield from judged(kernel.source, kernel.directory)
    yield _headers()
    yield from _licences()
    yield from _patches(kernel)
    for name in _files("*.c", "*.h"):
        yield _checkpatch(kernel, f"checkpatch {name}", "--no-tree", "-f", name)
    scripts = [name for name in _files("*.sh", ".ci/run", "tools/vm/init")]
    yield _judge("shellcheck", "shellcheck", "-x", "-P", "SCRIPTDIR", *scripts)
    yield _judge("python", sys.executable, "-W", "error", "-m", "py_compile",
                 *_files("tools/*.py"), environment={"PYTHONPYCACHEPREFIX": os.path.join(
                     products.CACHE, "pycache")})
    yield _unsafe()


def main():
    """Runs all checks; with `--fix`, only formats."""
    kernel = products.Kernel()
    if "--fix" in sys.argv[1:]:
        return fmt(kernel)
    tests = []
    for test in _tests(kernel):
        print(f"{'ok  ' if test['result'] == 'pass' else 'FAIL'} {test['name']:56} "
              f"{test.get('message', '')}".rstrip(), flush=True)
        tests.append(test)
    return results.conclude("lint", tests)
