// SPDX-License-Identifier: GPL-2.0
/*
 * Makes KVM offer guests features that no emulator's CPU has: control-flow
 * enforcement, a PMU, Intel PT, XFD, MSRs against speculation and others.  So
 * make coverage reaches KVM's code for their MSRs.
 *
 * This works in QEMU, whose RDMSR of an MSR that it does not know reads 0, and
 * whose WRMSR ignores it.  What KVM emulates itself behaves as on a CPU with
 * the feature; what KVM leaves to the CPU does not keep its value.
 *
 * Only for tests: load it after the vendor module, and before kvm-msr.ko.  The
 * parameter `lists` is the address of kvm_init_msr_lists(), from /proc/kallsyms:
 * KVM makes its lists of MSRs once more.
 */

#include <linux/kvm_host.h>
#include <linux/module.h>

#include "cpuid.h"
#include "msrs.h"
#include "pmu.h"
#include "x86.h"

#define SOME_GP_COUNTERS	6
/* Full-width writes, and an LBR format. */
#define SOME_PERF_CAP		(BIT(13) | 5)

static unsigned long lists;
module_param(lists, ulong, 0);

#define REMOVE(caps, feature) \
	((caps)[__feature_leaf(X86_FEATURE_##feature)] &= ~feature_bit(feature))

static void add_features(u32 *caps)
{
#define ADD(feature) \
	(caps[__feature_leaf(X86_FEATURE_##feature)] |= feature_bit(feature))
	ADD(SHSTK);
	ADD(IBT);
	ADD(INTEL_PT);
	ADD(XFD);
	ADD(XSAVES);
	ADD(WAITPKG);
	ADD(RDTSCP);
	ADD(RDPID);
	ADD(FLUSH_L1D);
	ADD(SPEC_CTRL);
	ADD(AMD_IBPB);
	ADD(SBPB);
	ADD(PDCM);
	ADD(ARCH_CAPABILITIES);
	ADD(AUTOIBRS);
	ADD(FXSR_OPT);
	ADD(GP_ON_USER_CPUID);
	ADD(PERFCTR_CORE);
	ADD(PERFMON_V2);
	ADD(TSC_ADJUST);
	ADD(OSVW);
	ADD(LM);
	ADD(RTM);
	ADD(HLE);
#undef ADD

	/* What KVM asks the CPU for, rather than its own list. */
	set_cpu_cap(&boot_cpu_data, X86_FEATURE_FLUSH_L1D);
	set_cpu_cap(&boot_cpu_data, X86_FEATURE_IBPB);
	set_cpu_cap(&boot_cpu_data, X86_FEATURE_SBPB);
	set_cpu_cap(&boot_cpu_data, X86_FEATURE_RTM);
}

static void add_more(struct kvm_caps *caps, struct kvm_host_values *host,
		     struct x86_pmu_capability *pmu)
{
	caps->supported_efer_bits |= EFER_AUTOIBRS | EFER_FFXSR;
	caps->supported_xcr0 |= XFEATURE_MASK_BNDREGS | XFEATURE_MASK_BNDCSR;
	caps->supported_xss |= XFEATURE_MASK_CET_USER | XFEATURE_MASK_CET_KERNEL;
	caps->supported_perf_cap = SOME_PERF_CAP;
	host->arch_capabilities |= ARCH_CAP_TSX_CTRL_MSR;

	pmu->version = 2;
	pmu->num_counters_gp = SOME_GP_COUNTERS;
	pmu->num_counters_fixed = KVM_MAX_NR_FIXED_COUNTERS - 1;
	pmu->bit_width_gp = 48;
	pmu->bit_width_fixed = 48;
}

static int __init features_init(void)
{
	void (*make_lists)(void) = (void *)lists;
	struct x86_pmu_capability *pmu_cap;
	struct kvm_host_values *host;
	struct kvm_caps *more;
	bool *pmu;
	u32 *caps;

	/*
	 * KVM exports them to its own modules only, so they are not linked.
	 * The references stay: KVM must not be unloaded with these values.
	 */
	caps = __symbol_get("kvm_cpu_caps");
	more = __symbol_get("kvm_caps");
	host = __symbol_get("kvm_host");
	pmu_cap = __symbol_get("kvm_pmu_cap");
	pmu = __symbol_get("enable_pmu");
	if (!lists || !caps || !more || !host || !pmu_cap || !pmu)
		return -EINVAL;

	/*
	 * The last lists that KVM makes count.  Those before are of a CPU that has
	 * one of two features that a list asks for, and no 64-bit mode.
	 */
	add_features(caps);
	add_more(more, host, pmu_cap);
	*pmu = true;
	REMOVE(caps, RDTSCP);
	REMOVE(caps, SHSTK);
	REMOVE(caps, PERFMON_V2);
	make_lists();
	REMOVE(caps, RDPID);
	REMOVE(caps, LM);
	make_lists();
	add_features(caps);
	make_lists();
	return 0;
}
module_init(features_init);

MODULE_DESCRIPTION("Makes KVM offer guests features that the CPU does not have, for tests");
MODULE_LICENSE("GPL");
