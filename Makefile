# SPDX-License-Identifier: GPL-2.0
#
# `make help` lists the targets.  Build products go to $KVM_MSR_CACHE, outside the checkout, and
# results to build/.  Kbuild builds the module itself.

T := tools
TARGET := python3 $(T)/vm/target.py

export KDIR KSRC VENDOR KERNEL PREFIX DESTDIR
# Leave no __pycache__ in the checkout.
export PYTHONDONTWRITEBYTECODE := 1

# The first target is what `make` builds.
.PHONY: module
module: deps-kernel ## Builds kvm-msr.ko, and prints where it is
	@$(T)/kernel/module.sh plain

.PHONY: help
help: ## Prints this list
	@printf 'make [TARGET] [VARIABLE=...]\n\n'
	@sed -n 's/^\([a-z_-]*\):.*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
		awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'
	@printf '\n  KDIR=/path    uses a built kernel that has the hook series\n'
	@printf '  KSRC=/path    builds this linux-7.3.y tree instead of Debian'"'"'s package\n'
	@printf '  KVM_MSR_CACHE=/path    where build products go (~/.cache/kvm-msr)\n'

.PHONY: run
run: deps-vm ## Boots QEMU, and runs a guest whose MSRs the engine serves
	@$(TARGET) run

.PHONY: test
test: deps-all ## Runs what CI runs: lint, host-test, speculation, kunit, check, bench, ...
	@$(TARGET) test

.PHONY: kvmsr
kvmsr: ## Builds the static program kvmsr, and prints where it is; needs no kernel build
	@$(T)/kernel/kvmsr.sh

.PHONY: install-kvmsr
install-kvmsr: ## Installs kvmsr with man pages and completions (PREFIX=/usr/local)
	@$(T)/kernel/kvmsr.sh install

.PHONY: test-kvmsr
test-kvmsr: deps-all ## Tests kvmsr on real KVM; VENDOR=amd (QEMU) or intel (Bochs)
	@$(TARGET) kvmsr

.PHONY: test-vmm
test-vmm: deps-vm ## Tests kvmsr with an unmodified QEMU: policies while it runs, Linux's learned filter
	@$(TARGET) vmm

.PHONY: kunit
kunit: deps-vm ## Runs the module's KUnit suites in QEMU
	@$(TARGET) kunit

.PHONY: host-test
host-test: deps-kernel ## Builds and tests the engine's files with cargo on the host
	@$(TARGET) host-test

.PHONY: speculation
speculation: deps-kernel ## No Spectre v1 gadgets in the object code of kvm-msr.ko
	@$(TARGET) speculation

.PHONY: check
check: deps-all ## Compares C and the engine, and tests lifetimes; VENDOR=amd or intel, POLICIES=10000, CYCLES=1000
	@$(TARGET) check $(if $(POLICIES),--policies $(POLICIES) --load-seconds 60) \
		$(if $(CYCLES),--loads $(CYCLES))

.PHONY: sweep
sweep: deps-all ## Compares every MSR; VENDOR=amd or intel, NESTED=1 for nested state
	@$(TARGET) sweep

.PHONY: sweep-lean
sweep-lean: deps-vm ## kunit, check, short sweep without KVM's Hyper-V, Xen and SMM; builds another kernel
	@KERNEL=lean $(TARGET) test

.PHONY: selftests
selftests: deps-all ## Runs the kernel's KVM selftests on C and the engine; VENDOR=amd or intel
	@$(TARGET) selftests

.PHONY: bench
bench: deps-vm ## Counts instructions of C and the engine, and checks limits
	@$(TARGET) bench

.PHONY: bench-hooks
bench-hooks: deps-vm ## Measures the hooks' cost without the module; builds another kernel
	@$(TARGET) bench-hooks

.PHONY: test-debug
test-debug: deps-vm ## Runs kunit and check with lockdep and kmemleak; builds another kernel
	@KERNEL=debug $(TARGET) test

.PHONY: test-hardened
test-hardened: deps-all deps-hardened ## Most suites, with mitigations, kCFI and more; builds another kernel
	@KERNEL=hardened $(TARGET) test

.PHONY: test-kasan
test-kasan: deps-all ## kunit, check, short sweeps with KASAN, also in Rust; builds another kernel
	@KERNEL=kasan $(TARGET) test

.PHONY: test-kcsan
test-kcsan: deps-all ## kunit, check, short sweeps with KCSAN, also in Rust; builds another kernel
	@KERNEL=kcsan $(TARGET) test

.PHONY: fuzz
fuzz: deps-all ## Compares random histories of VMs; VENDOR=amd or intel, TIME=10m, SEED=; builds another kernel
	@KERNEL=coverage $(TARGET) fuzz

.PHONY: test-fuzz
test-fuzz: deps-vm ## Tests that make fuzz finds wrong rules; on its kernel
	@KERNEL=coverage $(TARGET) fuzz-wrong

.PHONY: coverage
coverage: deps-all ## Counts the lines and branches of C and the engine that tests reach; builds another kernel
	@$(TARGET) coverage

.PHONY: test-trace
test-trace: deps-vm ## Tests that the engine's VMs enter no function of msrs.c; on test-debug's kernel
	@$(TARGET) trace

.PHONY: shell
shell: deps-vm ## Boots to a shell, with KVM and the module loaded
	@$(TARGET) shell

.PHONY: modules_install
modules_install: deps-kernel ## Installs kvm-msr.ko for the kernel of KDIR (INSTALL_MOD_PATH=/path)
	@$(T)/kernel/module.sh plain install

.PHONY: drift
drift: deps-kernel ## Says what changed in another kernel (KSRC=/path) in the C that the engine replaces
	@$(TARGET) drift $(if $(RECORD),--record) $(if $(ALL),--all)

.PHONY: registers
registers: deps-kernel ## Generates the register reference and kvmsr's rules from the register table
	@$(TARGET) registers

.PHONY: uapi
uapi: deps-kernel ## Generates kvmsr's structures of /dev/kvm-msr from rust/uapi/kvm-msr.h
	@$(TARGET) uapi

.PHONY: schemas
schemas: deps-kernel ## Generates Documentation/kvmsr/schema/ from kvmsr's types
	@$(TARGET) schemas

.PHONY: fmt
fmt: deps-all ## Formats the Rust code
	@$(TARGET) lint --fix

.PHONY: lint
lint: deps-all ## Runs rustfmt, Clippy, checkpatch, shellcheck and the project's own checks
	@$(TARGET) lint

.PHONY: update
update: deps-kernel ## Looks for a newer 7.3.y of the kernel's source
	@$(T)/kernel/fetch.sh --update

.PHONY: clean
clean: ## Removes results and build products, but keeps kernels and downloads
	@$(T)/kernel/clean.sh

.PHONY: distclean
distclean: ## Removes the whole cache as well
	@$(T)/kernel/clean.sh --all

.PHONY: deps-kernel deps-vm deps-all deps-hardened
deps-kernel:
	@$(T)/kernel/deps.sh kernel
deps-vm:
	@$(T)/kernel/deps.sh kernel vm
deps-hardened:
	@$(T)/kernel/deps.sh hardened
deps-all:
	@$(T)/kernel/deps.sh kernel vm selftests intel lint kvmsr-test
