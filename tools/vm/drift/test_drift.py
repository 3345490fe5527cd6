# SPDX-License-Identifier: GPL-2.0
"""Tests of make drift, on copies of the reviewed source. make host-test runs them."""

import contextlib
import os
import tempfile
import unittest

import results
from drift import changed, compare, definitions, hunks, record, trees
from drift.definitions import Tree
from suites import drift

_C = """\
/* static int not_one(void) { */
#define LIMIT 16
#define SUM(a, b) \\
	((a) + \\
	 (b))

static const u32 table[] = {
	LIMIT, /* the limit */
};

static struct ops ops __initdata = { .one = 1 };

struct pair {
	int one;
};

static inline bool yes(void) { return true; }

static __printf(1, 2) void
say(const char *format,
    ...)
{
	puts("// no comment");
}

#ifdef CONFIG_A
int twice(void)
{
	return 1;
}
#else
int twice(void) {
	return 2;
}
#endif

long ioctl(int request)
{
	switch (request) {
	case ONE: {
		if (f()) {
			g();
		}
		break;
	}
	case TWO:
	case THREE:
		h();
		break;
	default:
		break;
	}
	return 0;
}
"""


class Finder(unittest.TestCase):
    """Definitions are found by name, with all of their lines."""

    def setUp(self):
        self.found = definitions.of_text("a.c", _C)

    def test_all_are_found(self):
        self.assertEqual(set(self.found), {"#define LIMIT", "#define SUM", "table", "ops",
                                           "struct pair", "yes", "say", "twice", "ioctl"})

    def test_lines(self):
        self.assertEqual((self.found["say"].line, len(self.found["say"].text.splitlines())), (19, 6))
        self.assertEqual(self.found["#define SUM"].text.splitlines()[-1], "\t (b))")
        self.assertEqual(self.found["table"].text.splitlines()[-1], "};")

    def test_both_configurations_count(self):
        self.assertIn("return 1", self.found["twice"].text)
        self.assertIn("return 2", self.found["twice"].text)

    def test_cases(self):
        one, two, three, default = (definitions.case_of(self.found["ioctl"], label)
                                    for label in ("ONE", "TWO", "THREE", "NONE"))
        self.assertEqual(one.text.splitlines()[-2:], ["\t\tbreak;", "\t}"])
        self.assertEqual([two.line, three.line], [46, 47])
        self.assertEqual(two.text.splitlines()[-2:], ["\t\th();", "\t\tbreak;"])
        self.assertIsNone(default)

    def test_only_code_counts(self):
        code = self.found["say"].hash
        for same in (_C.replace("\tputs(", "\t/* say it */\n\t\tputs("),
                     _C.replace("static __printf", "__printf")):
            self.assertEqual(definitions.of_text("a.c", same)["say"].hash, code)
        other = _C.replace("// no comment", "// none")
        self.assertNotEqual(definitions.of_text("a.c", other)["say"].hash, code)

    def test_enclosing(self):
        self.assertEqual([definitions.enclosing(_C, line) for line in (1, 8, 21, 45)],
                         [None, "table", "say", "ioctl"])


class Trees(unittest.TestCase):
    """Changes in a copy of the reviewed source are found, and no others."""

    @classmethod
    def setUpClass(cls):
        cls._stack = contextlib.ExitStack()
        cls.record = record.read()
        cls.plain, cls.hooked = cls._stack.enter_context(trees.reviewed(cls.record.version))

    @classmethod
    def tearDownClass(cls):
        cls._stack.close()

    def setUp(self):
        self.directory = self.enterContext(tempfile.TemporaryDirectory(prefix="kvm-msr-drift-"))

    def _compared(self, source):
        findings, tried = drift.compared(self.record, self.plain, self.hooked, source)
        return {finding.key: finding for finding in findings}, tried

    def _check_five(self, findings):
        """The findings on five_things(), but for the hunks."""
        self.assertEqual({key: finding.status for key, finding in findings.items()
                          if finding.status != compare.SAME},
                         {"emulated_msrs_all": compare.CHANGED,
                          "__kvm_valid_efer": compare.CHANGED,
                          "kvm_translate_kvm_reg": compare.RENAMED,
                          # It calls what was renamed.
                          "kvm_get_set_one_reg": compare.CHANGED,
                          "kvm_write_wall_clock": compare.MOVED})
        self.assertEqual(findings["emulated_msrs_all"].lines(), (1, 1))
        self.assertIn("+\tMSR_IA32_MPERF,", findings["emulated_msrs_all"].diff())
        self.assertEqual(findings["emulated_msrs_all"].ours, ["rust/engine/registers/table.rs"])
        self.assertEqual(findings["__kvm_valid_efer"].lines(), (1, 1))
        self.assertEqual(findings["__kvm_valid_efer"].ours, ["rust/engine/access/efer.rs"])
        self.assertEqual(findings["kvm_translate_kvm_reg"].there.key, "kvm_msr_of_reg")
        self.assertEqual(findings["kvm_write_wall_clock"].there.file, changed.X86)

    def test_reviewed_sources_do_not_differ(self):
        for source in (self.plain, self.hooked):
            findings, tried = self._compared(source)
            self.assertEqual({finding.status for finding in findings.values()}, {compare.SAME})
            self.assertTrue(tried is None or {hunk.verdict for hunk in tried} == {hunks.APPLIES})

    def test_five_changes(self):
        changed.five_things(self.plain, self.directory)
        findings, tried = self._compared(self.directory)
        self._check_five(findings)
        self.assertEqual([(hunk.patch[:4], hunk.file, hunk.function, hunk.verdict)
                          for hunk in tried if hunk.verdict != hunks.APPLIES],
                         [("0002", changed.X86, "kvm_arch_destroy_vm", hunks.FAILS)])
        tests = drift.tests_of(findings.values(), tried)
        self.assertEqual([test["result"] for test in tests], ["fail", "pass", "pass", "fail"])

    def test_five_changes_with_the_hook_series(self):
        changed.five_things(self.hooked, self.directory)
        findings, tried = self._compared(self.directory)
        self._check_five(findings)
        self.assertIsNone(tried)

    def test_a_build_names_what_differs(self):
        for source, has_hooks in ((self.plain, False), (self.hooked, True)):
            self.assertEqual(compare.differing(self.record, Tree(source), has_hooks), [])
        changed.five_things(self.plain, self.directory)
        self.assertEqual(set(compare.differing(self.record, Tree(self.directory), False)),
                         {"emulated_msrs_all", "__kvm_valid_efer", "kvm_translate_kvm_reg",
                          "kvm_get_set_one_reg", "kvm_msr_of_reg"})

    def test_an_ioctl_a_value_and_the_vendor_module(self):
        copy = changed.Copy(self.plain, self.directory)
        copy.replace(changed.X86, "kvm_vm_ioctl_enable_cap", "~KVM_MSR_EXIT_REASON_VALID_MASK",
                     "~KVM_MSR_EXIT_REASON_INVAL")
        copy.replace("arch/x86/include/uapi/asm/kvm.h", "#define KVM_MSR_FILTER_MAX_BITMAP_SIZE",
                     "0x600", "0x800")
        copy.replace("arch/x86/kvm/svm/svm.c", "svm_get_msr", "case MSR_STAR:",
                     "case MSR_STAR:\n\tcase MSR_IA32_PERF_CTL:")
        findings, _ = self._compared(self.directory)
        self.assertEqual({key: (finding.role, finding.lines()) for key, finding in findings.items()
                          if finding.matters},
                         {"kvm_vm_ioctl_enable_cap/KVM_CAP_X86_USER_SPACE_MSR": (record.REPLACED, (1, 1)),
                          "#define KVM_MSR_FILTER_MAX_BITMAP_SIZE": (record.VALUE, (1, 1)),
                          "svm_get_msr": (record.VENDOR, (0, 1))})

    def test_new_functions(self):
        copy = changed.Copy(self.plain, self.directory)
        copy.write(changed.MSRS, copy.read(changed.MSRS) +
                   "\n#define EFER_ODD 1\n\nint kvm_new_msr_ioctl(void)\n{\n\treturn 0;\n}\n")
        copy.write(changed.X86, copy.read(changed.X86) +
                   "\nbool kvm_efer_is_odd(u64 efer)\n{\n\treturn efer & 1;\n}\n")
        copy.replace(changed.MSRS, "__kvm_valid_efer", "\treturn true;",
                     "\treturn kvm_efer_is_odd(efer) != EFER_ODD;")
        findings, _ = self._compared(self.directory)
        new = {key: finding for key, finding in findings.items() if finding.status == compare.NEW}
        self.assertEqual({key: finding.users for key, finding in new.items()},
                         {"kvm_new_msr_ioctl": [], "kvm_efer_is_odd": ["__kvm_valid_efer"],
                          "#define EFER_ODD": ["__kvm_valid_efer"]})

    def test_inlined_function(self):
        copy = changed.Copy(self.plain, self.directory)
        text = copy.read(changed.MSRS)
        body = definitions.of_text(changed.MSRS, text)["set_msr_mce"].text
        copy.write(changed.MSRS, text.replace(body + "\n", "").replace(
            "\t\treturn set_msr_mce(vcpu, msr_info);\n", body.partition("{\n")[2].rpartition("}")[0]))
        findings, _ = self._compared(self.directory)
        self.assertEqual(findings["set_msr_mce"].status, compare.GONE)
        self.assertEqual(findings["set_msr_mce"].inside.key, "kvm_set_msr_common")

    def test_moved_out_of_kvm(self):
        copy = changed.Copy(self.plain, self.directory)
        file = "arch/x86/lib/reason.c"
        os.makedirs(os.path.join(self.directory, os.path.dirname(file)))
        copy.write(file, "")
        copy.move("kvm_msr_reason", changed.MSRS, file)
        findings, _ = self._compared(self.directory)
        self.assertEqual((findings["kvm_msr_reason"].status, findings["kvm_msr_reason"].there.file),
                         (compare.MOVED, file))

    def test_another_function_of_that_name(self):
        copy = changed.Copy(self.plain, self.directory)
        copy.move("kvm_msr_reason", changed.MSRS, changed.X86)
        other = "arch/x86/kvm/regs.c"
        copy.write(other, copy.read(other) + "\nstatic u64 kvm_msr_reason(int r)\n{\n\treturn r;\n}\n")
        findings, _ = self._compared(self.directory)
        finding = findings["kvm_msr_reason"]
        self.assertEqual((finding.status, finding.there.file), (compare.MOVED, changed.X86))
        self.assertEqual([place.partition(":")[0] for place in finding.also], [other])

    def test_hunk_in_another_function(self):
        changed.Copy(self.plain, self.directory).rename(changed.X86, "kvm_arch_init_vm",
                                                        "kvm_arch_vm_init")
        tried = hunks.tried(self.plain, self.directory)
        bad = [hunk for hunk in tried if hunk.verdict != hunks.APPLIES]
        self.assertEqual({(hunk.function, hunk.there, hunk.verdict) for hunk in bad},
                         {("kvm_arch_init_vm", "kvm_arch_vm_init", hunks.MISPLACED)})


class _Result(unittest.TestResult):
    """Collects the tests in the form of the project's results."""

    def __init__(self):
        super().__init__()
        self.entries = []

    def _add(self, test, error=None):
        name = f"drift: {test.id().removeprefix(__name__ + '.')}"
        message = "" if error is None else str(error[1]).strip().replace("\n", " | ")
        self.entries.append(results.test(name, error is None, message))
        print(f"{name} ... {'ok' if error is None else 'FAILED: ' + message}", flush=True)

    def addSuccess(self, test):
        self._add(test)

    def addFailure(self, test, err):
        self._add(test, err)

    def addError(self, test, err):
        self._add(test, err)


def run():
    """Runs the tests. Returns their results."""
    result = _Result()
    unittest.defaultTestLoader.loadTestsFromName(__name__).run(result)
    return result.entries
