// SPDX-License-Identifier: GPL-2.0
/*
 * Functions for KVM's inline functions and macros, which Rust can't call, and the
 * module parameter, as Rust's module macro supports only read-only parameters.
 */
#include <linux/debugfs.h>
#include <linux/fault-inject-usercopy.h>
#include <linux/kvm_host.h>
#include <linux/module.h>
#include <linux/sched/stat.h>

#include <asm/fpu/api.h>
#include <asm/intel_pt.h>

#include "cpuid.h"
#include "fpu.h"
#include "hyperv.h"
#include "lapic.h"
#include "mmu.h"
#include "msrs.h"
#include "pmu.h"
#include "trace.h"
#include "x86.h"

#include "glue.h"

bool kvm_msr_glue_enable = true;

/* Like param_set_bool(), but the store is marked: KVM_CREATE_VM reads the parameter without a lock. */
static int set_enable(const char *val, const struct kernel_param *kp)
{
	bool enable = true;
	int ret = val ? kstrtobool(val, &enable) : 0;

	if (!ret)
		WRITE_ONCE(kvm_msr_glue_enable, enable);
	return ret;
}

static const struct kernel_param_ops enable_ops = {
	.flags = KERNEL_PARAM_OPS_FL_NOARG,
	.set = set_enable,
	.get = param_get_bool,
};
module_param_cb(enable, &enable_ops, &kvm_msr_glue_enable, 0644);
__MODULE_PARM_TYPE(enable, "bool");
MODULE_PARM_DESC(enable, "Serve the VMs that are created from now on (default: Y)");

/* The CPU has SVM: kvm-amd is the vendor module, otherwise kvm-intel. */
bool kvm_msr_glue_amd __read_mostly;

void kvm_msr_glue_find_vendor(void)
{
	kvm_msr_glue_amd = boot_cpu_has(X86_FEATURE_SVM);
}

int kvm_msr_glue_complete_access(struct kvm_vcpu *vcpu, int err)
{
	return kvm_x86_call(complete_emulated_msr)(vcpu, err);
}

unsigned long kvm_msr_glue_operand(struct kvm_vcpu *vcpu, int reg)
{
	return kvm_register_read(vcpu, reg & 15);
}

void kvm_msr_glue_set_operand(struct kvm_vcpu *vcpu, int reg, unsigned long val)
{
	kvm_register_write(vcpu, reg & 15, val);
}

void kvm_msr_glue_load_guest_fpu(struct kvm_vcpu *vcpu)
{
	kvm_load_guest_fpu(vcpu);
}

void kvm_msr_glue_put_guest_fpu(struct kvm_vcpu *vcpu)
{
	kvm_put_guest_fpu(vcpu);
}

bool kvm_msr_glue_can_set_feature_msrs(struct kvm_vcpu *vcpu)
{
	return kvm_can_set_cpuid_and_feature_msrs(vcpu);
}

int kvm_msr_glue_vendor_set_efer(struct kvm_vcpu *vcpu, u64 efer)
{
	int ret = kvm_x86_call(set_efer)(vcpu, efer);

	WARN_ON(ret > 0);
	return ret;
}

int kvm_msr_glue_vendor_feature(u32 index, u64 *data)
{
	return kvm_x86_call(get_feature_msr)(index, data);
}

bool kvm_msr_glue_emulates(u32 index)
{
	return kvm_x86_call(has_emulated_msr)(NULL, index);
}

bool kvm_msr_glue_has_xsaves(struct kvm_vcpu *vcpu)
{
	return guest_cpuid_has(vcpu, X86_FEATURE_XSAVES);
}

void kvm_msr_glue_efer_changed(struct kvm_vcpu *vcpu, u64 old, u64 efer)
{
	if ((efer ^ old) & KVM_MMU_EFER_ROLE_BITS)
		kvm_mmu_reset_context(vcpu);

	/* SMP Windows with Hyper-V may not boot without XSAVES, so KVM warns. */
	if (!cpu_feature_enabled(X86_FEATURE_XSAVES) && (efer & EFER_SVME))
		kvm_hv_xsaves_xsavec_maybe_warn(vcpu);
}

bool kvm_msr_glue_pmu_allows_fastpath(struct kvm_vcpu *vcpu)
{
	return kvm_pmu_is_fastpath_emulation_allowed(vcpu);
}

bool kvm_msr_glue_send_ipi_fast(struct kvm_vcpu *vcpu, u64 data)
{
	return lapic_in_kernel(vcpu) && apic_x2apic_mode(vcpu->arch.apic) &&
	       !kvm_x2apic_icr_write_fast(vcpu->arch.apic, data);
}

bool kvm_msr_glue_host_has(u32 feature)
{
	return boot_cpu_has(feature);
}

bool kvm_msr_glue_offers_mpx(void)
{
	return kvm_mpx_supported();
}

bool kvm_msr_glue_has_sched_info(void)
{
	return sched_info_on();
}

int kvm_msr_glue_read_host(u32 index, u64 *data)
{
	return rdmsrq_safe(index, data);
}

u32 kvm_msr_glue_pt_capability(enum pt_capabilities capability)
{
	return intel_pt_validate_hw_cap(capability);
}

void kvm_msr_glue_predict(u64 data)
{
	wrmsrq(MSR_IA32_PRED_CMD, data);
}

void kvm_msr_glue_flush_l1d(void)
{
	wrmsrq(MSR_IA32_FLUSH_CMD, L1D_FLUSH);
}

/* The guest's FPU state is loaded, but an interrupt may have saved it to memory. */
u64 kvm_msr_glue_read_xstate(struct kvm_vcpu *vcpu, u32 index)
{
	u64 data;

	if (KVM_BUG_ON(!vcpu->arch.guest_fpu.fpstate->in_use, vcpu->kvm))
		return 0;

	kvm_fpu_get();
	rdmsrq(index, data);
	kvm_fpu_put();
	return data;
}

void kvm_msr_glue_write_xstate(struct kvm_vcpu *vcpu, u32 index, u64 data)
{
	if (KVM_BUG_ON(!vcpu->arch.guest_fpu.fpstate->in_use, vcpu->kvm))
		return;

	kvm_fpu_get();
	wrmsrq(index, data);
	kvm_fpu_put();
}

u64 kvm_msr_glue_scaled_tsc(u64 ratio)
{
	return kvm_scale_tsc(rdtsc(), ratio);
}

void kvm_msr_glue_clear_async_pf(struct kvm_vcpu *vcpu)
{
	kvm_clear_async_pf_completion_queue(vcpu);
	kvm_async_pf_hash_reset(vcpu);
}

void kvm_msr_glue_acknowledge_async_pf(struct kvm_vcpu *vcpu)
{
	/* Pairs with the barrier in kvm_arch_async_page_present_queued(). */
	smp_store_mb(vcpu->arch.apf.pageready_pending, false);
	kvm_check_async_pf_completion(vcpu);
}

void kvm_msr_glue_request_clock_update(struct kvm_vcpu *vcpu)
{
	kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu);
}

void kvm_msr_glue_request_global_clock_update(struct kvm_vcpu *vcpu)
{
	kvm_make_request(KVM_REQ_GLOBAL_CLOCK_UPDATE, vcpu);
}

void kvm_msr_glue_request_master_clock_update(struct kvm_vcpu *vcpu)
{
	kvm_make_request(KVM_REQ_MASTERCLOCK_UPDATE, vcpu);
}

void kvm_msr_glue_request_recalc_intercepts(struct kvm_vcpu *vcpu)
{
	kvm_make_request(KVM_REQ_RECALC_INTERCEPTS, vcpu);
}

void kvm_msr_glue_request_steal_update(struct kvm_vcpu *vcpu)
{
	kvm_make_request(KVM_REQ_STEAL_UPDATE, vcpu);
}

void kvm_msr_glue_nested_header(struct kvm_vcpu *vcpu, struct kvm_nested_state *state)
{
	kvm_nested_ops.get_state_hdr(vcpu, state);
}

void kvm_msr_glue_nested_areas(struct kvm_vcpu *vcpu, void *scratch, void **areas)
{
	kvm_nested_ops.get_state_data(vcpu, scratch, areas);
}

int kvm_msr_glue_nested_enter(struct kvm_vcpu *vcpu, const struct kvm_nested_state *state)
{
	return kvm_nested_ops.enter_state(vcpu, state);
}

void kvm_msr_glue_nested_load(struct kvm_vcpu *vcpu, const struct kvm_nested_state *state,
			      void **areas)
{
	kvm_nested_ops.load_state(vcpu, state, areas);
}

int kvm_msr_glue_nested_commit(struct kvm_vcpu *vcpu, const struct kvm_nested_state *state,
			       void **areas, int err)
{
	return kvm_nested_ops.commit_state(vcpu, state, areas, err);
}

u64 kvm_msr_glue_cr0(struct kvm_vcpu *vcpu)
{
	return kvm_read_cr0(vcpu);
}

bool kvm_msr_glue_has_evmcs(struct kvm_vcpu *vcpu)
{
#ifdef CONFIG_KVM_HYPERV
	return kvm_nested_ops.get_evmcs_version &&
	       kvm_nested_ops.get_evmcs_version(vcpu);
#else
	return false;
#endif
}

int kvm_msr_glue_put_values(struct kvm_msr_entry __user *to, const struct kvm_msr_entry *from,
			    unsigned long nr)
{
	might_fault();
	if (!nr)
		return 0;
	if (should_fail_usercopy() || !user_write_access_begin(to, nr * sizeof(*to)))
		return -EFAULT;

	/*
	 * As in C, all entries must be writable: the first entry's header is
	 * written, too.  Later headers lie between the values.
	 */
	unsafe_put_user(from->index, &to->index, fault);
	unsafe_put_user(from->reserved, &to->reserved, fault);
	for (; nr >= 8; nr -= 8, to += 8, from += 8) {
		unsafe_put_user(from[0].data, &to[0].data, fault);
		unsafe_put_user(from[1].data, &to[1].data, fault);
		unsafe_put_user(from[2].data, &to[2].data, fault);
		unsafe_put_user(from[3].data, &to[3].data, fault);
		unsafe_put_user(from[4].data, &to[4].data, fault);
		unsafe_put_user(from[5].data, &to[5].data, fault);
		unsafe_put_user(from[6].data, &to[6].data, fault);
		unsafe_put_user(from[7].data, &to[7].data, fault);
	}
	for (; nr; nr--, to++, from++)
		unsafe_put_user(from->data, &to->data, fault);

	user_write_access_end();
	return 0;
fault:
	user_write_access_end();
	return -EFAULT;
}

/* Copies eight words at a time: for a few hundred bytes, faster than copy_from_user(). */
int kvm_msr_glue_get_words(u64 *to, const u64 __user *from, unsigned long nr)
{
	unsigned long i;

	might_fault();
	if (!nr)
		return 0;
	if (should_fail_usercopy() || !user_read_access_begin(from, nr * sizeof(*from)))
		return -EFAULT;

	for (i = 0; i < (nr & ~7UL); i += 8) {
		unsafe_get_user(to[i], &from[i], fault);
		unsafe_get_user(to[i + 1], &from[i + 1], fault);
		unsafe_get_user(to[i + 2], &from[i + 2], fault);
		unsafe_get_user(to[i + 3], &from[i + 3], fault);
		unsafe_get_user(to[i + 4], &from[i + 4], fault);
		unsafe_get_user(to[i + 5], &from[i + 5], fault);
		unsafe_get_user(to[i + 6], &from[i + 6], fault);
		unsafe_get_user(to[i + 7], &from[i + 7], fault);
	}
	for (; i < nr; i++)
		unsafe_get_user(to[i], &from[i], fault);

	user_read_access_end();
	return 0;
fault:
	user_read_access_end();
	return -EFAULT;
}

int kvm_msr_glue_put_u64(u64 __user *to, u64 value)
{
	return put_user(value, to);
}

unsigned long kvm_msr_glue_clear_user(void __user *to, unsigned long size)
{
	return clear_user(to, size);
}

void kvm_msr_glue_report_unimplemented(struct kvm_vcpu *vcpu, u32 index, u64 data)
{
	kvm_pr_unimpl_wrmsr(vcpu, index, data);
}

static const char *access_name(bool write)
{
	return write ? "wrmsr" : "rdmsr";
}

void kvm_msr_glue_report_unhandled(bool write, u32 index, u64 data)
{
	kvm_debug_ratelimited("unhandled %s: 0x%x data 0x%llx\n", access_name(write), index, data);
}

void kvm_msr_glue_report_ignored(bool write, u32 index, u64 data)
{
	if (report_ignored_msrs)
		kvm_pr_unimpl("ignored %s: 0x%x data 0x%llx\n", access_name(write), index, data);
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

void kvm_msr_glue_recalc_intercepts(struct kvm *kvm)
{
	kvm_make_all_cpus_request(kvm, KVM_REQ_RECALC_INTERCEPTS);
}

struct kvm_vcpu *kvm_msr_glue_get_vcpu(struct kvm *kvm, int i)
{
	return kvm_get_vcpu(kvm, i);
}

void kvm_msr_glue_debugfs_create(struct kvm *kvm, const char *name,
				 const struct file_operations *fops)
{
	debugfs_create_file(name, 0444, kvm->debugfs_dentry, kvm, fops);
}

int kvm_msr_glue_copy_struct_from_user(void *to, unsigned long ksize, const void __user *from,
				       unsigned long usize)
{
	return copy_struct_from_user(to, ksize, from, usize);
}

int kvm_msr_glue_copy_struct_to_user(void __user *to, unsigned long usize, const void *from,
				     unsigned long ksize)
{
	return copy_struct_to_user(to, usize, from, ksize, NULL);
}

bool kvm_msr_glue_is_own(struct kvm *kvm)
{
	return kvm->mm == current->mm;
}

/* Waits until each vCPU has left the guest, and so has seen the requests made before. */
void kvm_msr_glue_leave_guest_mode(struct kvm *kvm)
{
	kvm_make_all_cpus_request(kvm, KVM_REQ_OUTSIDE_GUEST_MODE);
}

struct kvm_vcpu *kvm_msr_glue_vcpu_by_id(struct kvm *kvm, u32 id)
{
	return id < KVM_MAX_VCPU_IDS ? kvm_get_vcpu_by_id(kvm, id) : NULL;
}

/*
 * Polls, as a mutex can't be waited for with a timeout.  KVM_RUN holds it until it
 * returns to user space, so a shorter interval would not find it free more often.
 */
int kvm_msr_glue_lock_vcpu(struct kvm_vcpu *vcpu, u32 timeout_ms)
{
	unsigned long end = jiffies + msecs_to_jiffies(timeout_ms);

	while (!mutex_trylock(&vcpu->mutex)) {
		if (time_after_eq(jiffies, end))
			return -EBUSY;
		schedule_timeout_interruptible(1);
		if (signal_pending(current))
			return -EINTR;
	}
	if (vcpu->kvm->vm_dead) {
		mutex_unlock(&vcpu->mutex);
		return -EIO;
	}
	vcpu_load(vcpu);
	return 0;
}

void kvm_msr_glue_unlock_vcpu(struct kvm_vcpu *vcpu)
{
	vcpu_put(vcpu);
	mutex_unlock(&vcpu->mutex);
}

int kvm_msr_glue_put_results(struct kmsr_entry __user *to, const struct kmsr_entry *from,
			     unsigned long nr)
{
	unsigned long i;

	might_fault();
	if (should_fail_usercopy() || !user_write_access_begin(to, nr * sizeof(*to)))
		return -EFAULT;

	for (i = 0; i < nr; i++) {
		unsafe_put_user(from[i].status, &to[i].status, fault);
		unsafe_put_user(from[i].data, &to[i].data, fault);
	}

	user_write_access_end();
	return 0;
fault:
	user_write_access_end();
	return -EFAULT;
}

/* Lets other tasks run, between parts of a long ioctl. */
int kvm_msr_glue_pause(void)
{
	cond_resched();
	return signal_pending(current) ? -EINTR : 0;
}
