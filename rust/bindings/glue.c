// SPDX-License-Identifier: GPL-2.0
/*
 * Symbols for KVM's inline functions and macros, which Rust can't call, and the
 * module parameter, which Rust's module macro can only make read-only.
 */
#include <linux/debugfs.h>
#include <linux/kvm_host.h>
#include <linux/module.h>

#include "fpu.h"
#include "msrs.h"
#include "trace.h"
#include "x86.h"

#include "glue.h"

bool kvm_msr_glue_enable = true;
module_param_named(enable, kvm_msr_glue_enable, bool, 0644);
MODULE_PARM_DESC(enable, "Serve the VMs that are created from now on (default: Y)");

int kvm_msr_glue_complete_emulated_msr(struct kvm_vcpu *vcpu, int err)
{
	return kvm_x86_call(complete_emulated_msr)(vcpu, err);
}

unsigned long kvm_msr_glue_register_read(struct kvm_vcpu *vcpu, int reg)
{
	return kvm_register_read(vcpu, reg);
}

void kvm_msr_glue_register_write(struct kvm_vcpu *vcpu, int reg, unsigned long val)
{
	kvm_register_write(vcpu, reg, val);
}

void kvm_msr_glue_inject_gp(struct kvm_vcpu *vcpu)
{
	kvm_inject_gp(vcpu, 0);
}

void kvm_msr_glue_load_guest_fpu(struct kvm_vcpu *vcpu)
{
	kvm_load_guest_fpu(vcpu);
}

void kvm_msr_glue_put_guest_fpu(struct kvm_vcpu *vcpu)
{
	kvm_put_guest_fpu(vcpu);
}

bool kvm_msr_glue_has_shstk(struct kvm_vcpu *vcpu)
{
	return guest_cpu_cap_has(vcpu, X86_FEATURE_SHSTK);
}

bool kvm_msr_glue_has_ibt(struct kvm_vcpu *vcpu)
{
	return guest_cpu_cap_has(vcpu, X86_FEATURE_IBT);
}

bool kvm_msr_glue_can_set_feature_msrs(struct kvm_vcpu *vcpu)
{
	return kvm_can_set_cpuid_and_feature_msrs(vcpu);
}

void kvm_msr_glue_trace_read(u32 index, u64 data)
{
	trace_kvm_msr_read(index, data);
}

void kvm_msr_glue_trace_write(u32 index, u64 data)
{
	trace_kvm_msr_write(index, data);
}

void kvm_msr_glue_trace_read_ex(u32 index)
{
	trace_kvm_msr_read_ex(index);
}

void kvm_msr_glue_trace_write_ex(u32 index, u64 data)
{
	trace_kvm_msr_write_ex(index, data);
}

bool kvm_msr_glue_srcu_held(struct kvm *kvm)
{
	return srcu_read_lock_held(&kvm->srcu);
}

void kvm_msr_glue_lock(struct kvm *kvm)
{
	mutex_lock(&kvm->lock);
}

void kvm_msr_glue_unlock(struct kvm *kvm)
{
	mutex_unlock(&kvm->lock);
}

void kvm_msr_glue_recalc_intercepts(struct kvm *kvm)
{
	kvm_make_all_cpus_request(kvm, KVM_REQ_RECALC_INTERCEPTS);
}

unsigned long kvm_msr_glue_nr_vcpus(struct kvm *kvm)
{
	return atomic_read(&kvm->online_vcpus);
}

struct kvm_vcpu *kvm_msr_glue_get_vcpu(struct kvm *kvm, unsigned long i)
{
	return kvm_get_vcpu(kvm, i);
}

void kvm_msr_glue_debugfs_create(struct kvm *kvm, const char *name,
				 const struct file_operations *fops)
{
	debugfs_create_file(name, 0444, kvm->debugfs_dentry, kvm, fops);
}
