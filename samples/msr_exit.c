// SPDX-License-Identifier: Apache-2.0 OR MIT
/*
 * The smallest program in which user space answers for an MSR.
 *
 * The guest, in real mode, reads an MSR that KVM does not know and writes it
 * back.  Due to KVM_CAP_X86_USER_SPACE_MSR, KVM does not inject #GP, but exits
 * to user space.  This program completes the exit by filling in kvm_run.msr and
 * calling KVM_RUN again.
 */
#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define MSR_INDEX	0x4b560001
#define MSR_VALUE	0x1122334455667788ull
#define GUEST_ADDRESS	0x1000

static const unsigned char guest_code[] = {
	0x66, 0xb9, 0x01, 0x00, 0x56, 0x4b,	/* mov $MSR_INDEX, %ecx */
	0x0f, 0x32,				/* rdmsr */
	0x0f, 0x30,				/* wrmsr */
	0xf4,					/* hlt */
};

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

int main(void)
{
	struct kvm_enable_cap cap = {
		.cap = KVM_CAP_X86_USER_SPACE_MSR,
		.args = { KVM_MSR_EXIT_REASON_UNKNOWN },
	};
	struct kvm_userspace_memory_region region = {
		.guest_phys_addr = GUEST_ADDRESS,
		.memory_size = 0x1000,
	};
	struct kvm_regs regs = { .rip = GUEST_ADDRESS, .rflags = 2 };
	int kvm, vm, vcpu, size, reads = 0, writes = 0;
	struct kvm_sregs sregs;
	struct kvm_run *run;
	void *memory;

	kvm = check(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
	vm = check(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	check(ioctl(vm, KVM_SET_TSS_ADDR, 0xfffbd000), "KVM_SET_TSS_ADDR");
	check(ioctl(vm, KVM_ENABLE_CAP, &cap), "KVM_CAP_X86_USER_SPACE_MSR");

	memory = map(region.memory_size, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	memcpy(memory, guest_code, sizeof(guest_code));
	region.userspace_addr = (uintptr_t)memory;
	check(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region),
	      "KVM_SET_USER_MEMORY_REGION");

	vcpu = check(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	size = check(ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0),
		     "KVM_GET_VCPU_MMAP_SIZE");
	run = map(size, MAP_SHARED, vcpu);

	check(ioctl(vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	check(ioctl(vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
	check(ioctl(vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");

	for (;;) {
		check(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");

		switch (run->exit_reason) {
		case KVM_EXIT_X86_RDMSR:
			printf("RDMSR of %#x, answered with %#llx\n",
			       run->msr.index, MSR_VALUE);
			run->msr.data = MSR_VALUE;
			/* With an error other than 0, KVM would inject #GP. */
			run->msr.error = 0;
			reads++;
			break;
		case KVM_EXIT_X86_WRMSR:
			printf("WRMSR of %#x, with value %#llx\n",
			       run->msr.index,
			       (unsigned long long)run->msr.data);
			if (run->msr.data != MSR_VALUE)
				errx(1, "the guest wrote another value than it read");
			run->msr.error = 0;
			writes++;
			break;
		case KVM_EXIT_HLT:
			if (reads != 1 || writes != 1)
				errx(1, "%d reads, %d writes", reads, writes);
			return 0;
		default:
			errx(1, "exit reason %u", run->exit_reason);
		}
	}
}
