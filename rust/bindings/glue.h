/* SPDX-License-Identifier: GPL-2.0 */
/* KVM's inline functions and macros, for bindgen and as symbols. */
#ifndef KVM_MSR_GLUE_H
#define KVM_MSR_GLUE_H

#include <linux/kvm_host.h>

extern bool kvm_msr_glue_enable;

int kvm_msr_glue_complete_emulated_msr(struct kvm_vcpu *vcpu, int err);
unsigned long kvm_msr_glue_register_read(struct kvm_vcpu *vcpu, int reg);
void kvm_msr_glue_register_write(struct kvm_vcpu *vcpu, int reg, unsigned long val);
void kvm_msr_glue_inject_gp(struct kvm_vcpu *vcpu);
void kvm_msr_glue_load_guest_fpu(struct kvm_vcpu *vcpu);
void kvm_msr_glue_put_guest_fpu(struct kvm_vcpu *vcpu);
bool kvm_msr_glue_has_shstk(struct kvm_vcpu *vcpu);
bool kvm_msr_glue_has_ibt(struct kvm_vcpu *vcpu);
bool kvm_msr_glue_can_set_feature_msrs(struct kvm_vcpu *vcpu);

void kvm_msr_glue_trace_read(u32 index, u64 data);
void kvm_msr_glue_trace_write(u32 index, u64 data);
void kvm_msr_glue_trace_read_ex(u32 index);
void kvm_msr_glue_trace_write_ex(u32 index, u64 data);

bool kvm_msr_glue_srcu_held(struct kvm *kvm);
void kvm_msr_glue_lock(struct kvm *kvm);
void kvm_msr_glue_unlock(struct kvm *kvm);
void kvm_msr_glue_recalc_intercepts(struct kvm *kvm);

unsigned long kvm_msr_glue_nr_vcpus(struct kvm *kvm);
struct kvm_vcpu *kvm_msr_glue_get_vcpu(struct kvm *kvm, unsigned long i);
void kvm_msr_glue_debugfs_create(struct kvm *kvm, const char *name,
				 const struct file_operations *fops);

#endif
