// SPDX-License-Identifier: Apache-2.0 OR MIT

//! One VM of a pair: makes a history's steps, and says what came of them.

use anyhow::Context;
use anyhow::Result;
use kvm_bindings::KVM_CAP_HYPERV_ENLIGHTENED_VMCS;
use kvm_bindings::KVM_MP_STATE_RUNNABLE;
use kvm_bindings::kvm_mp_state;
use kvm_bindings::kvm_xen_hvm_config;
use kvm_ioctls::VcpuFd;
use kvm_msr_guest::Device;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Range;
use kvm_msr_guest::Watchdog;
use kvm_msr_guest::device::Array;
use kvm_msr_guest::device::uapi;
use kvm_msr_guest::ioctl;
use kvm_msr_guest::memory::PAGE;
use kvm_msr_guest::msrs;
use kvm_msr_guest::nested::MsrLists;
use kvm_msr_guest::nested::Nested;
use kvm_msr_guest::nested::Options;
use kvm_msr_guest::nested::layout;

use crate::cpu::Cpu;
use crate::cpu::Progress;
use crate::history::Action;
use crate::history::FilterRange;
use crate::history::Hex;
use crate::history::Nesting;
use crate::history::Setup;
use crate::history::Step;
use crate::history::VCPUS;
use crate::history::Value;
use crate::host::Host;
use crate::pages;
use crate::seen::Seen;
use crate::state;
use crate::state::Part;
use crate::together;

/// A VM that C or the engine serves.
pub struct Side {
    engine: Engine,
    // The vCPUs except the first, which belongs to `vm`. They are dropped before the VM's memory.
    others: Vec<VcpuFd>,
    progress: Vec<Progress>,
    device: Option<Device>,
    vm: Nested,
    nested: bool,
    options: Options,
}

impl Side {
    /// Makes a VM.
    pub fn new(host: &Host, engine: Engine, setup: &Setup) -> Result<Self> {
        let cpuid = host.model(&setup.cpuid);
        let options = Options {
            irqchip: setup.irqchip,
            shadow: setup.nested == Nesting::More,
            nested_paging: setup.nested == Nesting::More,
            ..Options::new(engine)
        };
        let vm = Nested::without_cpuid(&host.kvm, engine, setup.irqchip, |vm| {
            for &(capability, argument) in &setup.capabilities {
                // A capability that KVM refuses is as good as one that it grants.
                let _ = ioctl::enable_cap(vm, capability, 0, argument.0);
            }
            Ok(())
        })?;
        let others = (1..VCPUS)
            .map(|id| vm.vm().create_vcpu(id as u64).context("KVM_CREATE_VCPU"))
            .collect::<Result<Vec<_>>>()?;
        let device = match engine {
            Engine::Rust => Some(Device::attached(vm.vm(), uapi::RIGHTS).context("ATTACH")?),
            _ => None,
        };
        let mut side = Side {
            engine,
            others,
            progress: (0..VCPUS).map(|id| Progress::new(id as u64)).collect(),
            device,
            vm,
            nested: setup.nested != Nesting::No,
            options,
        };

        if let Some(cpuid) = cpuid {
            for vcpu in std::iter::once(side.vm.vcpu()).chain(&side.others) {
                // KVM refuses some, and then has none.
                let _ = vcpu.set_cpuid2(&cpuid);
            }
        }
        for page in pages::TRAPS {
            side.vm.write(page as u64, &[pages::TRAP; PAGE]);
        }
        side.vm.load();
        for vcpu in 0..VCPUS {
            side.start(vcpu);
        }
        Ok(side)
    }

    /// Puts a vCPU at its start: L1, or long mode.
    fn start(&mut self, vcpu: usize) -> Seen {
        self.progress[vcpu].restart();
        if vcpu == 0 && self.nested && self.vm.start(self.options, &MsrLists::default()).is_ok() {
            self.progress[0].has_guest = true;
            self.progress[0].can_run = true;
            return Seen::Nothing;
        }
        let (first, _) = self.vm.vcpu_and_memory();
        let fd = match vcpu {
            0 => first,
            _ => &mut self.others[vcpu - 1],
        };
        let set = fd.get_sregs().and_then(|mut sregs| {
            layout::set_long_mode(&mut sregs);
            fd.set_sregs(&sregs)
        });
        self.progress[vcpu].can_run = set.is_ok();
        // Local APICs in the kernel let all vCPUs but the first wait for a SIPI. Without them, this is
        // refused.
        let _ = fd.set_mp_state(kvm_mp_state {
            mp_state: KVM_MP_STATE_RUNNABLE,
        });
        Seen::call(set)
    }

    /// A vCPU, and what it takes to run it.
    fn cpu<'a>(&'a mut self, watchdog: &'a Watchdog, vcpu: usize) -> Cpu<'a> {
        let (first, memory) = self.vm.vcpu_and_memory();
        let fd = match vcpu {
            0 => first,
            _ => &mut self.others[vcpu - 1],
        };

        Cpu {
            fd,
            memory,
            progress: &mut self.progress[vcpu],
            watchdog,
        }
    }

    /// All vCPUs.
    fn cpus<'a>(&'a mut self, watchdog: &'a Watchdog) -> impl Iterator<Item = Cpu<'a>> {
        let (first, memory) = self.vm.vcpu_and_memory();

        std::iter::once(first)
            .chain(&mut self.others)
            .zip(&mut self.progress)
            .map(move |(fd, progress)| Cpu {
                fd,
                memory,
                progress,
                watchdog,
            })
    }

    /// Whether a vCPU has run something else than it was given, so that its registers are anything.
    pub fn is_lost(&self) -> bool {
        self.progress.iter().any(|progress| progress.is_lost)
    }

    /// Makes a step.
    pub fn make(&mut self, host: &Host, watchdog: &Watchdog, step: &Step) -> Result<Seen> {
        let vm = self.vm.vm();

        Ok(match &step.action {
            Action::Filter { deny, ranges } => Seen::call(filter(*deny, ranges).set(vm)),
            Action::VmCapability(number, argument) => {
                Seen::call(ioctl::enable_cap(vm, *number, 0, argument.0))
            }
            Action::VcpuCapability(number, argument) => {
                // The argument of this one is an address, at which KVM writes.
                let argument = match *number {
                    KVM_CAP_HYPERV_ENLIGHTENED_VMCS => 0,
                    _ => argument.0,
                };
                let fd = self.cpu(watchdog, step.vcpu).fd;

                Seen::call(ioctl::enable_cap(fd, *number, 0, argument))
            }
            Action::Cpuid(cpuid) => match host.model(cpuid) {
                Some(cpuid) => Seen::call(self.cpu(watchdog, step.vcpu).fd.set_cpuid2(&cpuid)),
                None => Seen::Nothing,
            },
            Action::Start => self.start(step.vcpu),
            Action::Xen { flags, msr } => {
                let config = kvm_xen_hvm_config {
                    flags: *flags,
                    msr: msr.0 as u32,
                    ..Default::default()
                };

                Seen::call(ioctl::xen_hvm_config(vm, &config))
            }
            Action::Policy(ranges) => self.policy(ranges)?,
            Action::Learn(on) => self.learn(*on),
            Action::Stats(on) => self.stats(*on),
            Action::Batch(entries) => self.batch(watchdog, step.vcpu, entries)?,
            Action::Together(lists) => together::run(self.cpus(watchdog), lists)?,
            Action::Compare => Seen::State(self.state(watchdog, &host.known)?),
            action => self.cpu(watchdog, step.vcpu).make(action)?,
        })
    }

    /// The VM's state.
    fn state(&mut self, watchdog: &Watchdog, msrs: &[u32]) -> Result<Vec<Part>> {
        let mut state = Vec::new();

        for cpu in self.cpus(watchdog) {
            state.extend(state::of_vcpu(cpu, msrs)?);
        }
        state.extend(state::of_memory(self.vm.memory()));
        Ok(state)
    }

    /// Sets a policy that changes nothing; C has none.
    fn policy(&self, ranges: &[(Hex, Hex)]) -> Result<Seen> {
        let Some(device) = &self.device else {
            return Ok(Seen::Nothing);
        };
        let rules: Vec<uapi::Rule> = ranges
            .iter()
            .map(|&(first, last)| {
                let access = uapi::READ | uapi::WRITE;

                uapi::Rule::new(
                    first.0 as u32,
                    last.0 as u32,
                    access,
                    uapi::ALWAYS,
                    uapi::ALLOW,
                    0,
                )
            })
            .collect();
        let array = Array::new(&rules)?;

        device
            .call(&mut uapi::SetPolicy::new(&array, rules.len()))
            .context("SET_POLICY")?;
        Ok(Seen::Nothing)
    }

    fn learn(&self, on: bool) -> Seen {
        if let Some(device) = &self.device {
            let op = if on { uapi::START } else { uapi::STOP };

            // It may have been started, or stopped, already.
            let _ = device.call(&mut uapi::Learn::new(op));
        }
        Seen::Nothing
    }

    fn stats(&self, on: bool) -> Seen {
        if let Some(device) = &self.device {
            let op = if on { uapi::START } else { uapi::STOP };

            // As above.
            let _ = device.call(&mut uapi::Stats::new(op));
        }
        Seen::Nothing
    }

    /// Reads and writes MSRs, in one call if the engine serves the VM.
    fn batch(
        &mut self,
        watchdog: &Watchdog,
        vcpu: usize,
        entries: &[(Hex, Option<Value>)],
    ) -> Result<Seen> {
        // A batch has entries of one kind.
        let is_set = entries.first().is_some_and(|(_, value)| value.is_some());
        let cpu = self.cpu(watchdog, vcpu);
        let entries: Vec<(u32, u64)> = entries
            .iter()
            .map(|&(index, value)| {
                let index = index.0 as u32;

                (index, value.map_or(0, |value| cpu.value(index, value)))
            })
            .collect();

        if self.engine == Engine::Rust
            && let Some(device) = &self.device
        {
            let entries: Vec<uapi::Entry> = entries
                .iter()
                .map(|&(index, data)| uapi::Entry {
                    kind: uapi::ENTRY_MSR,
                    status: 0,
                    id: index.into(),
                    data,
                })
                .collect();
            let array = Array::new(&entries)?;
            let op = if is_set {
                uapi::BATCH_SET
            } else {
                uapi::BATCH_GET
            };
            let mut batch = uapi::Batch::new(op, &array, entries.len());

            batch.vcpu_id = vcpu as u32;
            if let Err(errno) = device.call(&mut batch) {
                return Ok(Seen::Call(Some(errno)));
            }
            let results = array.read(entries.len());
            return Ok(Seen::batch(
                results
                    .iter()
                    .map(|entry| (entry.id as u32, entry.data, entry.status == 0)),
            ));
        }
        let vcpu = self.cpu(watchdog, vcpu).fd;
        let mut results = Vec::new();
        for (index, data) in entries {
            let result = if is_set {
                msrs::set(vcpu, index, data).map(|done| (index, data, done))
            } else {
                msrs::get(vcpu, index).map(|value| (index, value.unwrap_or(data), value.is_some()))
            };
            match result {
                Ok(result) => results.push(result),
                // It is the same for all: e.g. the VM is dead.
                Err(errno) => return Ok(Seen::Call(Some(errno))),
            }
        }
        Ok(Seen::batch(results.into_iter()))
    }
}

fn filter(deny: bool, ranges: &[FilterRange]) -> Filter {
    let filter = if deny {
        Filter::deny_by_default()
    } else {
        Filter::allow_by_default()
    };

    ranges.iter().fold(filter, |filter, range| {
        let base = range.base.0 as u32;
        let all = if range.allow {
            Range::allow(range.flags, base, range.nmsrs)
        } else {
            Range::deny(range.flags, base, range.nmsrs)
        };
        let inverted = range.inverted.iter().filter(|&&bit| bit < range.nmsrs);

        filter.with(inverted.fold(all, |range, &bit| range.with_flipped(bit)))
    })
}
