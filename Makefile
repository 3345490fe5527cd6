# SPDX-License-Identifier: GPL-2.0
#
# make help says what there is.  What is built lands outside the checkout, in $KVM_MSR_CACHE,
# but for the results in build/.  The module's own build is in Kbuild.

T := tools
TARGET := python3 $(T)/vm/target.py

export KDIR KSRC VENDOR KERNEL PREFIX DESTDIR
# The checkout stays as it is.
export PYTHONDONTWRITEBYTECODE := 1

# As the first, what `make` does.
.PHONY: module
module: deps-kernel ## Builds kvm-msr.ko, and prints where it is
	@$(T)/kernel/module.sh plain

.PHONY: help
help: ## This list
	@printf 'make [TARGET] [VARIABLE=...]\n\n'
	@sed -n 's/^\([a-z_-]*\):.*## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | \
		awk -F'|' '{ printf "%-18s %s\n", $$1, $$2 }'
	@printf '\n  KDIR=/path    a built kernel with the hook series, in place of our own\n'
	@printf '  KSRC=/path    a linux-7.3.y tree to build, in place of the one of Debian\n'
	@printf '  KVM_MSR_CACHE=/path    where all that is built goes (~/.cache/kvm-msr)\n'

.PHONY: run
run: deps-vm ## Boots QEMU: a guest whose MSR accesses the engine judges
	@$(TARGET) run

.PHONY: test
test: deps-all ## Everything CI runs: lint, host-test, kunit, check, bench, selftests, sweeps, kvmsr
	@$(TARGET) test

.PHONY: kvmsr
kvmsr: ## Builds the program kvmsr, static, and prints where it is; needs no kernel
	@$(T)/kernel/kvmsr.sh

.PHONY: install-kvmsr
install-kvmsr: ## Installs kvmsr with man pages and completions (PREFIX=/usr/local)
	@$(T)/kernel/kvmsr.sh install

.PHONY: test-kvmsr
test-kvmsr: deps-all ## kvmsr on real KVM; VENDOR=amd (QEMU) or intel (Bochs)
	@$(TARGET) kvmsr

.PHONY: kunit
kunit: deps-vm ## The KUnit suites in the module, in QEMU
	@$(TARGET) kunit

.PHONY: host-test
host-test: deps-kernel ## The engine's files, built and tested by cargo on the host
	@$(TARGET) host-test

.PHONY: check
check: deps-vm ## C against the engine, errno by errno, and lifetimes, in QEMU
	@$(TARGET) check

.PHONY: sweep
sweep: deps-all ## Every MSR on C and the engine; VENDOR=amd or intel, NESTED=1 for nested state
	@$(TARGET) sweep

.PHONY: sweep-lean
sweep-lean: deps-vm ## kunit, check, short sweep without KVM's Hyper-V, Xen and SMM; builds another kernel
	@failed=0; for suite in kunit check 'sweep --short --vendor amd'; do \
		KERNEL=lean $(TARGET) $$suite || failed=1; done; exit $$failed

.PHONY: selftests
selftests: deps-all ## The kernel's KVM selftests on both; VENDOR=amd (QEMU) or intel (Bochs)
	@$(TARGET) selftests

.PHONY: bench
bench: deps-vm ## C against the engine, in instructions, with limits
	@$(TARGET) bench

.PHONY: bench-hooks
bench-hooks: deps-vm ## What the hooks cost with nothing loaded; builds another kernel
	@$(TARGET) bench-hooks

.PHONY: test-debug
test-debug: deps-vm ## kunit and check with lockdep and leak detection; builds another kernel
	@KERNEL=debug $(TARGET) kunit; kunit=$$?; KERNEL=debug $(TARGET) check && exit $$kunit

.PHONY: test-trace
test-trace: deps-vm ## That the engine's VMs enter no function of msrs.c; on the kernel of test-debug
	@$(TARGET) trace

.PHONY: shell
shell: deps-vm ## A shell in the booted machine, with KVM and the module loaded
	@$(TARGET) shell

.PHONY: modules_install
modules_install: deps-kernel ## Installs kvm-msr.ko for the kernel of KDIR (INSTALL_MOD_PATH=/path)
	@$(T)/kernel/module.sh plain install

.PHONY: registers
registers: deps-kernel ## Writes the register reference and the rules of kvmsr from the table of registers
	@$(TARGET) registers

.PHONY: schemas
schemas: deps-kernel ## Writes Documentation/kvmsr/schema/ from what kvmsr prints
	@$(TARGET) schemas

.PHONY: fmt
fmt: deps-all ## Formats the Rust
	@$(TARGET) lint --fix

.PHONY: lint
lint: deps-all ## rustfmt, Clippy, checkpatch, shellcheck, no unsafe where it may not be
	@$(TARGET) lint

.PHONY: update
update: deps-kernel ## Looks for a newer 7.3.y of the kernel's source
	@$(T)/kernel/fetch.sh --update

.PHONY: clean
clean: ## Removes the results, and what was built but for kernels and downloads
	@$(T)/kernel/clean.sh

.PHONY: distclean
distclean: ## Removes the whole cache as well
	@$(T)/kernel/clean.sh --all

.PHONY: deps-kernel deps-vm deps-all
deps-kernel:
	@$(T)/kernel/deps.sh kernel
deps-vm:
	@$(T)/kernel/deps.sh kernel vm
deps-all:
	@$(T)/kernel/deps.sh kernel vm selftests intel lint kvmsr-test
