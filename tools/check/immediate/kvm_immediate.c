// SPDX-License-Identifier: GPL-2.0
/*
 * A guest's RDMSR and WRMSR take KVM's path for the immediate forms of these
 * instructions, with the index in ECX as the immediate.  No emulator has the
 * immediate forms, and KVM does not ask whether a CPU has them, so this is how
 * make check reaches KVM's code for them.
 *
 * Kprobes at the entry of KVM's functions for the usual forms continue in
 * functions of this module.  The register of the immediate forms is RAX.
 * Guests of 32 bits read and write 32 bits of it, so values have no more.
 *
 * Only for tests: load it after kvm.ko, and unload it before kvm.ko.
 */

#include <linux/kprobes.h>
#include <linux/kvm_host.h>
#include <linux/module.h>

#include "msrs.h"

static typeof(kvm_emulate_rdmsr_imm) *rdmsr_imm;
static typeof(kvm_emulate_wrmsr_imm) *wrmsr_imm;
static typeof(handle_fastpath_wrmsr_imm) *fastpath_wrmsr_imm;

static u32 index_of(struct kvm_vcpu *vcpu)
{
	return vcpu->arch.regs[VCPU_REGS_RCX];
}

static noinline int emulate_rdmsr(struct kvm_vcpu *vcpu)
{
	return rdmsr_imm(vcpu, index_of(vcpu), VCPU_REGS_RAX);
}

static noinline int emulate_wrmsr(struct kvm_vcpu *vcpu)
{
	return wrmsr_imm(vcpu, index_of(vcpu), VCPU_REGS_RAX);
}

static noinline fastpath_t fastpath_wrmsr(struct kvm_vcpu *vcpu)
{
	return fastpath_wrmsr_imm(vcpu, index_of(vcpu), VCPU_REGS_RAX);
}

static int continue_in_emulate_rdmsr(struct kprobe *probe, struct pt_regs *regs)
{
	instruction_pointer_set(regs, (unsigned long)emulate_rdmsr);
	return 1;
}

static int continue_in_emulate_wrmsr(struct kprobe *probe, struct pt_regs *regs)
{
	instruction_pointer_set(regs, (unsigned long)emulate_wrmsr);
	return 1;
}

static int continue_in_fastpath_wrmsr(struct kprobe *probe, struct pt_regs *regs)
{
	instruction_pointer_set(regs, (unsigned long)fastpath_wrmsr);
	return 1;
}

static struct kprobe probes[] = {
	{ .symbol_name = "kvm_emulate_rdmsr", .pre_handler = continue_in_emulate_rdmsr },
	{ .symbol_name = "kvm_emulate_wrmsr", .pre_handler = continue_in_emulate_wrmsr },
	{ .symbol_name = "handle_fastpath_wrmsr", .pre_handler = continue_in_fastpath_wrmsr },
};

static struct kprobe *list[] = { &probes[0], &probes[1], &probes[2] };

static void put_symbols(void)
{
	/* KVM exports them to its own modules only, so they are not linked. */
	if (rdmsr_imm)
		__symbol_put("kvm_emulate_rdmsr_imm");
	if (wrmsr_imm)
		__symbol_put("kvm_emulate_wrmsr_imm");
	if (fastpath_wrmsr_imm)
		__symbol_put("handle_fastpath_wrmsr_imm");
}

static int __init immediate_init(void)
{
	int r = -ENOENT;

	rdmsr_imm = __symbol_get("kvm_emulate_rdmsr_imm");
	wrmsr_imm = __symbol_get("kvm_emulate_wrmsr_imm");
	fastpath_wrmsr_imm = __symbol_get("handle_fastpath_wrmsr_imm");
	if (rdmsr_imm && wrmsr_imm && fastpath_wrmsr_imm)
		r = register_kprobes(list, ARRAY_SIZE(list));
	if (r)
		put_symbols();
	return r;
}
module_init(immediate_init);

static void __exit immediate_exit(void)
{
	unregister_kprobes(list, ARRAY_SIZE(list));
	put_symbols();
}
module_exit(immediate_exit);

MODULE_DESCRIPTION("Runs RDMSR and WRMSR of guests as their immediate forms, for tests");
MODULE_LICENSE("GPL");
