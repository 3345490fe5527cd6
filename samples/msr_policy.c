// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * A VMM that sets a policy for the MSRs of its guest, by /dev/kvm-msr.
 *
 * The VMM creates a VM, attaches the device to it by the VM's file descriptor,
 * and sets rules: a constant, a write of which only some bits take effect, a
 * write that gets #GP, MSRs that KVM lacks and that are ignored, and an MSR for
 * which user space answers.  The guest, in real mode, then executes one RDMSR
 * or WRMSR at a time, and the program prints what the guest saw.
 *
 * Documentation/msr-policy.rst describes rules.  src/bin/msr_policy_rust.rs does
 * and prints the same in Rust.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvm-msr.h"

#define DEVICE		"/dev/kvm-msr"
#define MODULE		"/sys/module/kvm_msr"

#define SYSENTER_CS	0x174
#define UCODE_REV	0x8b
#define PAT		0x277
#define UNKNOWN		0x4b560000
#define VMM_MSR		0x4b560001
#define VMM_VALUE	0x1122334455667788ull

#define ARRAY_SIZE(array)	(sizeof(array) / sizeof((array)[0]))

#define READ	KMSR_ACCESS_READ
#define WRITE	KMSR_ACCESS_WRITE
#define RULE(from, to, accesses, time, what, ...) {	\
	.first = (from),				\
	.last = (to),					\
	.access = (accesses),				\
	.when = KMSR_WHEN_##time,			\
	.action = KMSR_ACTION_##what,			\
	__VA_ARGS__					\
}

static const struct kmsr_rule rules[] = {
	/* The guest sees the same microcode on all hosts. */
	RULE(UCODE_REV, UCODE_REV, READ, ALWAYS, CONSTANT, .value = 0x26ull << 32),
	/* The guest may choose the first of the eight memory types only. */
	RULE(PAT, PAT, WRITE, ALWAYS, MASK, .value = 0xff),
	/* KVM passes this MSR through to the guest if no rule covers it. */
	RULE(SYSENTER_CS, SYSENTER_CS, WRITE, ALWAYS, GP),
	RULE(VMM_MSR, VMM_MSR, READ | WRITE, ALWAYS, EXIT),
	/* kvm.ignore_msrs for one VM.  The x2APIC's MSRs between these ranges can't have rules. */
	RULE(0, 0x7ff, READ | WRITE, UNSUPPORTED, IGNORE),
	RULE(0x900, 0xffffffff, READ | WRITE, UNSUPPORTED, IGNORE),
};

/* What the guest does. */
static const struct access {
	bool write;
	__u32 index;
	__u64 value;
} accesses[] = {
	{ false, UCODE_REV, 0 },
	{ false, PAT, 0 },
	{ true, PAT, 0x0101010101010101 },
	{ false, PAT, 0 },
	{ true, SYSENTER_CS, 0x10 },
	{ false, SYSENTER_CS, 0 },
	{ false, UNKNOWN, 0 },
	{ true, UNKNOWN, 0x1 },
	{ false, VMM_MSR, 0 },
	{ true, VMM_MSR, 0x99 },
};

/* Guest memory, from address 0: real mode's interrupt table, code, and the stack at the end. */
#define MEMORY_SIZE	0x1000
#define RDMSR_CODE	0x500
#define WRMSR_CODE	0x510
#define GP_CODE		0x520
/* The guest writes to one of these ports when its instruction has ended. */
#define PORT_DONE	0x80
#define PORT_GP		0x81

static const unsigned char rdmsr_code[] = { 0x0f, 0x32, 0xe6, PORT_DONE };	/* rdmsr; out */
static const unsigned char wrmsr_code[] = { 0x0f, 0x30, 0xe6, PORT_DONE };	/* wrmsr; out */
static const unsigned char gp_code[] = { 0xe6, PORT_GP };			/* out */

static int check(int r, const char *what)
{
	if (r < 0)
		err(1, "%s", what);
	return r;
}

static void *map(size_t size, int flags, int fd)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (p == MAP_FAILED)
		err(1, "mmap");
	return p;
}

static int open_device(void)
{
	int fd = open(DEVICE, O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	if (errno == EACCES)
		errx(1, "%s is root's: run this program as root", DEVICE);
	if (errno != ENOENT)
		err(1, "%s", DEVICE);
	if (!access(MODULE, F_OK))
		errx(1, "%s is missing, but kvm-msr.ko is loaded: mount devtmpfs on /dev, or create the device with mknod, see /sys/class/misc/kvm-msr/dev",
		     DEVICE);
	errx(1, "kvm-msr.ko is not loaded: run 'modprobe kvm-msr' and start this program again");
}

static void attach(int device, int vm)
{
	struct kmsr_attach arg = {
		.size = sizeof(arg),
		.vm_fd = vm,
		.rights = KMSR_RIGHT_POLICY,
	};

	if (!ioctl(device, KMSR_ATTACH, &arg))
		return;
	/* The engine serves a VM from its creation on, or not at all. */
	if (errno == EOPNOTSUPP)
		errx(1, "KVM's C code handles this VM's MSRs, as the engine is disabled: run 'echo Y >%s/parameters/enable' and start this program again",
		     MODULE);
	err(1, "KMSR_ATTACH");
}

static void set_policy(int device)
{
	struct kmsr_policy arg = {
		.size = sizeof(arg),
		.nr_rules = ARRAY_SIZE(rules),
		.rules = (uintptr_t)rules,
	};

	if (!ioctl(device, KMSR_SET_POLICY, &arg))
		return;
	if (errno == EINVAL && arg.error != KMSR_RULE_OK)
		errx(1, "rule %u is wrong: look up the KMSR_RULE_ number %u in kvm-msr.h",
		     arg.error_rule, arg.error);
	err(1, "KMSR_SET_POLICY");
}

static void add_memory(int vm)
{
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY_SIZE };
	unsigned char *memory = map(MEMORY_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	__u32 handler = GP_CODE;

	memcpy(memory + 4 * GP_VECTOR, &handler, sizeof(handler));
	memcpy(memory + RDMSR_CODE, rdmsr_code, sizeof(rdmsr_code));
	memcpy(memory + WRMSR_CODE, wrmsr_code, sizeof(wrmsr_code));
	memcpy(memory + GP_CODE, gp_code, sizeof(gp_code));
	region.userspace_addr = (uintptr_t)memory;
	check(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region),
	      "KVM_SET_USER_MEMORY_REGION");
}

/* Executes one access, and prints what the guest saw. */
static void run_access(int vcpu, struct kvm_run *run, const struct access *access)
{
	struct kvm_regs regs = {
		.rip = access->write ? WRMSR_CODE : RDMSR_CODE,
		.rsp = MEMORY_SIZE,
		.rcx = access->index,
		.rax = (__u32)access->value,
		.rdx = access->value >> 32,
		.rflags = 2,
	};
	const char *by = "";

	check(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
	for (;;) {
		check(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
		if (run->exit_reason == KVM_EXIT_IO)
			break;
		if (run->exit_reason == KVM_EXIT_X86_RDMSR)
			run->msr.data = VMM_VALUE;
		else if (run->exit_reason != KVM_EXIT_X86_WRMSR)
			errx(1, "exit reason %u", run->exit_reason);
		/* With an error other than 0, KVM would inject #GP. */
		run->msr.error = 0;
		by = ", by user space";
	}
	check(ioctl(vcpu, KVM_GET_REGS, &regs), "KVM_GET_REGS");

	if (access->write)
		printf("WRMSR %#x with %#llx: ", access->index, access->value);
	else
		printf("RDMSR %#x: ", access->index);
	if (run->io.port == PORT_GP)
		printf("#GP%s\n", by);
	else if (access->write)
		printf("done%s\n", by);
	else
		printf("0x%llx%s\n", regs.rdx << 32 | (__u32)regs.rax, by);
}

int main(void)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_X86_USER_SPACE_MSR,
		/* KMSR_ACTION_EXIT counts as the filter if the rule applies always. */
		.args = { KVM_MSR_EXIT_REASON_FILTER },
	};
	int device, kvm, vm, vcpu, size;
	struct kvm_sregs sregs;
	struct kvm_run *run;
	size_t i;

	/* Before the VM is created, so that the module is loaded by then. */
	device = open_device();
	kvm = check(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
	vm = check(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	attach(device, vm);
	set_policy(device);
	/* The policy lasts until the VM ends, as its flags don't say otherwise. */
	close(device);

	check(ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000), "KVM_SET_TSS_ADDR");
	check(ioctl(vm, KVM_ENABLE_CAP, &cap), "KVM_CAP_X86_USER_SPACE_MSR");
	add_memory(vm);
	vcpu = check(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	size = check(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0),
		     "KVM_GET_VCPU_MMAP_SIZE");
	run = map(size, MAP_SHARED, vcpu);
	check(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	check(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");

	for (i = 0; i < ARRAY_SIZE(accesses); i++)
		run_access(vcpu, run, &accesses[i]);
	return 0;
}
