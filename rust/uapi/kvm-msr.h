/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * The interface of /dev/kvm-msr, the device of the module kvm-msr.
 *
 * An open file is attached to one VM.  Each ioctl takes a pointer to a structure
 * that begins with its size in bytes, as user space knows it.  A structure may
 * grow at its end: members that user space does not know are 0 for the module,
 * and members that the module does not know must be 0, or the ioctl fails with
 * E2BIG.  The first version of a structure is the smallest that is accepted.
 * Reserved members and undefined flags must be 0, or the ioctl fails with EINVAL.
 *
 * Documentation/device.rst describes the ioctls and their errors.
 */
#ifndef _UAPI_KVM_MSR_H
#define _UAPI_KVM_MSR_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define KMSR_VERSION	1

#define KMSR_TYPE	0xEB

#define KMSR_INFO	_IO(KMSR_TYPE, 0x00)	/* struct kmsr_info */
#define KMSR_ATTACH	_IO(KMSR_TYPE, 0x01)	/* struct kmsr_attach */
#define KMSR_SET_POLICY	_IO(KMSR_TYPE, 0x02)	/* struct kmsr_policy */
#define KMSR_GET_POLICY	_IO(KMSR_TYPE, 0x03)	/* struct kmsr_policy */
#define KMSR_LEARN	_IO(KMSR_TYPE, 0x04)	/* struct kmsr_learn */
#define KMSR_STATS	_IO(KMSR_TYPE, 0x05)	/* struct kmsr_stats */
#define KMSR_BATCH	_IO(KMSR_TYPE, 0x06)	/* struct kmsr_batch */
#define KMSR_SAVE_LIST	_IO(KMSR_TYPE, 0x07)	/* struct kmsr_save_list */

/* For info.features. */
#define KMSR_FEATURE_POLICY	(1ULL << 0)
#define KMSR_FEATURE_LEARN	(1ULL << 1)
#define KMSR_FEATURE_STATS	(1ULL << 2)
#define KMSR_FEATURE_BATCH	(1ULL << 3)
#define KMSR_FEATURE_SAVE_LIST	(1ULL << 4)

/* What the module offers.  All members but the size are results. */
struct kmsr_info {
	__u32 size;
	__u32 version;		/* KMSR_VERSION */
	__u64 features;		/* KMSR_FEATURE_* */
	__u64 actions;		/* a bit for each KMSR_ACTION_* */
	__u32 max_rules;	/* of a policy */
	__u32 max_learned;	/* MSRs that learning records */
	__u32 nr_buckets;	/* of a histogram: KMSR_NR_BUCKETS */
	__u32 reserved;
};

/* For attach.rights. */
#define KMSR_RIGHT_OBSERVE	(1ULL << 0)	/* GET_POLICY, LEARN, STATS, SAVE_LIST */
#define KMSR_RIGHT_POLICY	(1ULL << 1)	/* SET_POLICY; one file at a time has it */
#define KMSR_RIGHT_STATE	(1ULL << 2)	/* BATCH */

/* Attaches the file to a VM, for as long as the file is open. */
struct kmsr_attach {
	__u32 size;
	__s32 vm_fd;		/* the VM's file descriptor, in the calling process */
	__u64 rights;		/* KMSR_RIGHT_*, at least one */
};

/* For rule.access. */
#define KMSR_ACCESS_READ	(1 << 0)
#define KMSR_ACCESS_WRITE	(1 << 1)

/* For rule.when. */
#define KMSR_WHEN_ALWAYS	0	/* before KVM handles the access */
#define KMSR_WHEN_UNSUPPORTED	1	/* if KVM has no such MSR for the vCPU */

/* For rule.action. */
#define KMSR_ACTION_ALLOW	0	/* as if no rule covered the access */
#define KMSR_ACTION_GP		1	/* the guest gets #GP */
#define KMSR_ACTION_EXIT	2	/* exit to user space, or #GP if that is not enabled */
#define KMSR_ACTION_IGNORE	3	/* reads return 0, writes are dropped */
#define KMSR_ACTION_CONSTANT	4	/* reads return rule.value, writes are dropped */
#define KMSR_ACTION_MASK	5	/* writes change only the bits in rule.value */
#define KMSR_ACTION_MATCH	6	/* #GP if a write changes a bit that rule.value lacks */

#define KMSR_MAX_RULES		4096

/* Two rules must not cover the same kind of access to the same MSR at the same time. */
struct kmsr_rule {
	__u32 first;		/* the first MSR's index */
	__u32 last;		/* the last MSR's index */
	__u8 access;		/* KMSR_ACCESS_* */
	__u8 when;		/* KMSR_WHEN_* */
	__u8 action;		/* KMSR_ACTION_* */
	__u8 reserved;
	__u32 reserved2;
	__u64 value;		/* for KMSR_ACTION_{CONSTANT,MASK,MATCH}, else 0 */
};

/* For policy.flags. */
#define KMSR_POLICY_UNTIL_CLOSE	(1 << 0)	/* clear the policy when the file is closed */

/* For policy.error, after EINVAL. */
#define KMSR_RULE_OK		0	/* no rule is wrong, something else is */
#define KMSR_RULE_ORDER		1	/* first is above last */
#define KMSR_RULE_ACCESS	2	/* access is 0 or has undefined bits */
#define KMSR_RULE_WHEN		3	/* when is undefined */
#define KMSR_RULE_ACTION	4	/* action is undefined, or not one for this access or when */
#define KMSR_RULE_VALUE		5	/* value is not 0, but the action does not use it */
#define KMSR_RULE_RESERVED	6	/* a reserved member is not 0 */
#define KMSR_RULE_X2APIC	7	/* the rule covers an MSR of 0x800 to 0x8ff */
#define KMSR_RULE_OVERLAP	8	/* the rule overlaps an earlier rule */

/*
 * SET_POLICY replaces the rules; without rules it clears the policy.
 * GET_POLICY returns the rules sorted by when and first index.
 */
struct kmsr_policy {
	__u32 size;
	__u32 flags;		/* KMSR_POLICY_* */
	__u32 nr_rules;		/* in: rules at address; out of GET_POLICY: rules that there are */
	__u32 error;		/* out of SET_POLICY: KMSR_RULE_* */
	__u32 error_rule;	/* out of SET_POLICY: the number of the wrong rule, from 0 */
	__u32 reserved;
	__u64 rules;		/* address of struct kmsr_rule[nr_rules] */
};

/* For learn.op and stats.op. */
#define KMSR_OP_START	0	/* discards earlier records */
#define KMSR_OP_STOP	1	/* keeps the records */
#define KMSR_OP_READ	2

/* For learned.flags. */
#define KMSR_LEARNED_UNSUPPORTED (1 << 0)	/* KVM did not have the MSR at some access */
#define KMSR_LEARNED_DENIED	 (1 << 1)	/* an access was denied */
#define KMSR_LEARNED_VALUE	 (1 << 2)	/* first and last are values of the MSR */

/* For learned.paths. */
#define KMSR_PATH_EXIT		(1 << 0)	/* RDMSR or WRMSR */
#define KMSR_PATH_IMMEDIATE	(1 << 1)	/* RDMSR or WRMSRNS with an immediate index */
#define KMSR_PATH_EMULATOR	(1 << 2)	/* the instruction emulator */
#define KMSR_PATH_NESTED	(1 << 3)	/* the MSR list of a nested VM-entry or VM-exit */

/* What learning knows of an MSR. */
struct kmsr_learned {
	__u32 index;
	__u32 flags;		/* KMSR_LEARNED_* */
	__u32 paths;		/* KMSR_PATH_* */
	__u32 reserved;
	__u64 reads;
	__u64 writes;
	__u64 changed;		/* the bits that writes changed */
	__u64 first;		/* the first value that was read or written */
	__u64 last;		/* the last one */
};

#define KMSR_MAX_LEARNED	4096

/* Learning ends when the file that started it is closed.  The records have no order. */
struct kmsr_learn {
	__u32 size;
	__u32 op;		/* KMSR_OP_* */
	__u32 nr_records;	/* READ: records at address; out: records that there are */
	__u32 reserved;
	__u64 records;		/* READ: address of struct kmsr_learned[nr_records] */
	__u64 lost;		/* out of READ: accesses to MSRs for which there was no room */
};

/*
 * Bucket i counts accesses that took 2^i to 2^(i+1) - 1 cycles of the TSC; bucket 0 also counts those
 * that took 0.  The time is measured modulo 2^32, about a second.
 */
#define KMSR_NR_BUCKETS	32

/* The statistics of one kind of access to an MSR. */
struct kmsr_stat {
	__u32 index;
	__u32 access;		/* KMSR_ACCESS_READ or KMSR_ACCESS_WRITE */
	__u64 count;
	__u64 denied;		/* by the filter or by a rule */
	__u64 unsupported;	/* KVM did not have the MSR */
	__u64 user_exits;
	__u64 gp;
	__u64 buckets[KMSR_NR_BUCKETS];
};

/* For 254 MSRs.  Accesses to more are lost. */
#define KMSR_MAX_STATS		508

/*
 * Statistics end when the file that started them is closed.  The records are sorted by index and
 * access.  The guest may go on while they are read: they are not all of the same moment.
 */
struct kmsr_stats {
	__u32 size;
	__u32 op;		/* KMSR_OP_* */
	__u32 nr_records;	/* READ: records at address; out: records that there are */
	__u32 tsc_khz;		/* out of READ: the frequency of the TSC */
	__u64 records;		/* READ: address of struct kmsr_stat[nr_records] */
	__u64 lost;		/* out of READ: accesses that were not counted */
};

/* For batch.op. */
#define KMSR_BATCH_GET	0
#define KMSR_BATCH_SET	1

/* For entry.kind. */
#define KMSR_ENTRY_MSR		0	/* id is an index, as for KVM_GET_MSRS on a vCPU */
#define KMSR_ENTRY_FEATURE	1	/* id is an index, as for KVM_GET_MSRS on /dev/kvm; GET only */
#define KMSR_ENTRY_REG		2	/* id is a register, as for KVM_GET_ONE_REG */

struct kmsr_entry {
	__u32 kind;		/* KMSR_ENTRY_* */
	__s32 status;		/* out: 0, or a negative errno */
	__u64 id;
	__u64 data;
};

/* Gets or sets registers of a vCPU in their order.  A failed entry does not end the batch. */
struct kmsr_batch {
	__u32 size;
	__u32 op;		/* KMSR_BATCH_* */
	__u32 vcpu_id;		/* the argument of KVM_CREATE_VCPU */
	__u32 timeout_ms;	/* how long to wait for a vCPU that is in use */
	__u32 nr_entries;
	__u32 nr_done;		/* out: entries that have a status */
	__u64 entries;		/* address of struct kmsr_entry[nr_entries] */
};

/* For save_entry.owner: what saves and restores the MSR. */
#define KMSR_OWNER_MSRS		0	/* KVM_GET_MSRS and KVM_SET_MSRS */
#define KMSR_OWNER_SREGS	1	/* KVM_GET_SREGS2 and KVM_SET_SREGS2 */
#define KMSR_OWNER_LAPIC	2	/* KVM_GET_LAPIC and KVM_SET_LAPIC */
#define KMSR_OWNER_XSAVE	3	/* KVM_GET_XSAVE2 and KVM_SET_XSAVE */
#define KMSR_OWNER_NESTED	4	/* KVM_GET_NESTED_STATE and KVM_SET_NESTED_STATE */
#define KMSR_OWNER_VCPU_EVENTS	5	/* KVM_GET_VCPU_EVENTS and KVM_SET_VCPU_EVENTS */

/* For save_entry.attributes. */
#define KMSR_SAVE_VOLATILE	(1 << 0)	/* can change while the vCPU does not run */
#define KMSR_SAVE_WRITE_ONLY	(1 << 1)	/* has no value to save */
#define KMSR_SAVE_FIXED		(1 << 2)	/* can't change after the vCPU has run */
#define KMSR_SAVE_SIDE_EFFECT	(1 << 3)	/* a write does more than to set the value */
#define KMSR_SAVE_GUEST_MEMORY	(1 << 4)	/* a write accesses guest memory */
#define KMSR_SAVE_LISTED	(1 << 5)	/* KVM_GET_MSR_INDEX_LIST has it */
#define KMSR_SAVE_IGNORED	(1 << 6)	/* writes of user space have no effect */

struct kmsr_save_entry {
	__u32 index;
	__u16 owner;		/* KMSR_OWNER_* */
	__u16 order;		/* restore entries with a lower order first */
	__u32 attributes;	/* KMSR_SAVE_* */
	__u32 reserved;
};

/* Lists the MSRs whose state a guest can see, in the order in which to restore them. */
struct kmsr_save_list {
	__u32 size;
	__u32 vcpu_id;		/* the list is for this vCPU */
	__u32 nr_entries;	/* in: entries at address; out: entries that there are */
	__u32 timeout_ms;	/* how long to wait for a vCPU that is in use */
	__u64 entries;		/* address of struct kmsr_save_entry[nr_entries] */
};

#endif
