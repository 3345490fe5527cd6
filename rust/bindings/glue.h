/* SPDX-License-Identifier: GPL-2.0 */
/* Functions for KVM's inline functions and macros, for bindgen. */
#ifndef KVM_MSR_GLUE_H
#define KVM_MSR_GLUE_H

#include <linux/kvm_host.h>

#include <asm/intel_pt.h>

#include "../uapi/kvm-msr.h"
#include "reverse_cpuid.h"
#include "x86.h"

extern bool kvm_msr_glue_enable;
extern bool kvm_msr_glue_amd;

void kvm_msr_glue_find_vendor(void);

int kvm_msr_glue_complete_access(struct kvm_vcpu *vcpu, int err);
unsigned long kvm_msr_glue_operand(struct kvm_vcpu *vcpu, int reg);
void kvm_msr_glue_set_operand(struct kvm_vcpu *vcpu, int reg, unsigned long val);
void kvm_msr_glue_load_guest_fpu(struct kvm_vcpu *vcpu);
void kvm_msr_glue_put_guest_fpu(struct kvm_vcpu *vcpu);
bool kvm_msr_glue_can_set_feature_msrs(struct kvm_vcpu *vcpu);

enum {
	/* The kernel collects this bit in CPUID_LNX_*, KVM has it in CPUID's layout. */
	KVM_MSR_FEATURE_PERFMON_V2 = KVM_X86_FEATURE_PERFMON_V2,
	KVM_MSR_GET_ONE_REG = KVM_GET_ONE_REG,
	KMSR_INFO_IOCTL = KMSR_INFO,
	KMSR_ATTACH_IOCTL = KMSR_ATTACH,
	KMSR_SET_POLICY_IOCTL = KMSR_SET_POLICY,
	KMSR_GET_POLICY_IOCTL = KMSR_GET_POLICY,
	KMSR_LEARN_IOCTL = KMSR_LEARN,
	KMSR_STATS_IOCTL = KMSR_STATS,
	KMSR_BATCH_IOCTL = KMSR_BATCH,
	KMSR_SAVE_LIST_IOCTL = KMSR_SAVE_LIST,
};

int kvm_msr_glue_vendor_set_efer(struct kvm_vcpu *vcpu, u64 efer);
int kvm_msr_glue_vendor_feature(u32 index, u64 *data);
bool kvm_msr_glue_emulates(u32 index);

bool kvm_msr_glue_has_xsaves(struct kvm_vcpu *vcpu);
void kvm_msr_glue_efer_changed(struct kvm_vcpu *vcpu, u64 old, u64 efer);

bool kvm_msr_glue_pmu_allows_fastpath(struct kvm_vcpu *vcpu);
bool kvm_msr_glue_send_ipi_fast(struct kvm_vcpu *vcpu, u64 data);

bool kvm_msr_glue_host_has(u32 feature);
bool kvm_msr_glue_offers_mpx(void);
bool kvm_msr_glue_has_sched_info(void);
int kvm_msr_glue_read_host(u32 index, u64 *data);
u32 kvm_msr_glue_pt_capability(enum pt_capabilities capability);

void kvm_msr_glue_predict(u64 data);
void kvm_msr_glue_flush_l1d(void);
u64 kvm_msr_glue_read_xstate(struct kvm_vcpu *vcpu, u32 index);
void kvm_msr_glue_write_xstate(struct kvm_vcpu *vcpu, u32 index, u64 data);

u64 kvm_msr_glue_scaled_tsc(u64 ratio);
void kvm_msr_glue_clear_async_pf(struct kvm_vcpu *vcpu);
void kvm_msr_glue_acknowledge_async_pf(struct kvm_vcpu *vcpu);

void kvm_msr_glue_request_clock_update(struct kvm_vcpu *vcpu);
void kvm_msr_glue_request_global_clock_update(struct kvm_vcpu *vcpu);
void kvm_msr_glue_request_master_clock_update(struct kvm_vcpu *vcpu);
void kvm_msr_glue_request_recalc_intercepts(struct kvm_vcpu *vcpu);
void kvm_msr_glue_request_steal_update(struct kvm_vcpu *vcpu);

void kvm_msr_glue_nested_header(struct kvm_vcpu *vcpu, struct kvm_nested_state *state);
void kvm_msr_glue_nested_areas(struct kvm_vcpu *vcpu, void *scratch, void **areas);
int kvm_msr_glue_nested_enter(struct kvm_vcpu *vcpu, const struct kvm_nested_state *state);
void kvm_msr_glue_nested_load(struct kvm_vcpu *vcpu, const struct kvm_nested_state *state,
			      void **areas);
int kvm_msr_glue_nested_commit(struct kvm_vcpu *vcpu, const struct kvm_nested_state *state,
			       void **areas, int err);
u64 kvm_msr_glue_cr0(struct kvm_vcpu *vcpu);
bool kvm_msr_glue_has_evmcs(struct kvm_vcpu *vcpu);
int kvm_msr_glue_put_values(struct kvm_msr_entry __user *to, const struct kvm_msr_entry *from,
			    unsigned long nr);
int kvm_msr_glue_get_words(u64 *to, const u64 __user *from, unsigned long nr);
int kvm_msr_glue_put_u64(u64 __user *to, u64 value);
unsigned long kvm_msr_glue_clear_user(void __user *to, unsigned long size);

void kvm_msr_glue_report_unimplemented(struct kvm_vcpu *vcpu, u32 index, u64 data);
void kvm_msr_glue_report_unhandled(bool write, u32 index, u64 data);
void kvm_msr_glue_report_ignored(bool write, u32 index, u64 data);

void kvm_msr_glue_trace_read(u32 index, u64 data);
void kvm_msr_glue_trace_write(u32 index, u64 data);
void kvm_msr_glue_trace_read_ex(u32 index);
void kvm_msr_glue_trace_write_ex(u32 index, u64 data);

bool kvm_msr_glue_srcu_held(struct kvm *kvm);
void kvm_msr_glue_recalc_intercepts(struct kvm *kvm);

struct kvm_vcpu *kvm_msr_glue_get_vcpu(struct kvm *kvm, int i);
void kvm_msr_glue_debugfs_create(struct kvm *kvm, const char *name,
				 const struct file_operations *fops);

int kvm_msr_glue_copy_struct_from_user(void *to, unsigned long ksize, const void __user *from,
				       unsigned long usize);
int kvm_msr_glue_copy_struct_to_user(void __user *to, unsigned long usize, const void *from,
				     unsigned long ksize);
int kvm_msr_glue_put_results(struct kmsr_entry __user *to, const struct kmsr_entry *from,
			     unsigned long nr);
int kvm_msr_glue_pause(void);
bool kvm_msr_glue_is_own(struct kvm *kvm);
void kvm_msr_glue_leave_guest_mode(struct kvm *kvm);
struct kvm_vcpu *kvm_msr_glue_vcpu_by_id(struct kvm *kvm, u32 id);
int kvm_msr_glue_lock_vcpu(struct kvm_vcpu *vcpu, u32 timeout_ms);
void kvm_msr_glue_unlock_vcpu(struct kvm_vcpu *vcpu);

#endif
