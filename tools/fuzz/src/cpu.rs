// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Steps on a single vCPU.

use std::ops::RangeInclusive;

use anyhow::Result;
use kvm_bindings::KVM_EXIT_HLT;
use kvm_bindings::KVM_EXIT_INTERNAL_ERROR;
use kvm_bindings::KVM_EXIT_MMIO;
use kvm_bindings::KVM_EXIT_UNKNOWN;
use kvm_bindings::KVM_MP_STATE_INIT_RECEIVED;
use kvm_bindings::KVM_MP_STATE_RUNNABLE;
use kvm_bindings::KVM_VCPUEVENT_VALID_NMI_PENDING;
use kvm_bindings::KVM_VCPUEVENT_VALID_SMM;
use kvm_bindings::KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
use kvm_bindings::Msrs;
use kvm_bindings::kvm_mp_state;
use kvm_bindings::kvm_msr_entry;
use kvm_bindings::kvm_vcpu_events;
use kvm_bindings::kvm_x86_mce;
use kvm_ioctls::VcpuFd;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Mapping;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::Watchdog;
use kvm_msr_guest::code::Stub;
use kvm_msr_guest::ioctl;
use kvm_msr_guest::msrs;
use kvm_msr_guest::nested::code;
use kvm_msr_guest::nested::layout;
use kvm_msr_guest::run::Place;

use crate::direct;
use crate::history::Action;
use crate::history::Answer;
use crate::history::Event;
use crate::history::Hex;
use crate::history::Value;
use crate::nested_state;
use crate::seen::Seen;
use crate::seen::by_time;
use crate::seen::steady;

/// KVM_X86_REG_MSR(0), and the bits of a register's ID above the index.
const ONE_REG_MSR: u64 = 0x2030_0002_0000_0000;

/// What a vCPU is in the middle of.
pub struct Progress {
    place: Place,
    /// The stub at which it was started last.
    stub: Stub,
    /// Whether an exit to user space waits for its completion.
    unfinished: bool,
    /// Whether that exit is for an MSR.
    is_asked: bool,
    /// Whether it runs L1 and L2, whose registers have to be kept.
    pub has_guest: bool,
    /// Whether it ran elsewhere than in the code that it was given, so that what comes next can depend on
    /// time. Its history ends then.
    pub is_lost: bool,
    /// Whether it could be put into long mode. It is not run otherwise.
    pub can_run: bool,
}

impl Progress {
    /// A vCPU that has not run.
    pub fn new(id: u64) -> Self {
        Progress {
            place: Place {
                code: layout::STUBS,
                stack_top: layout::stub_stack_top(id),
                long_mode: true,
            },
            stub: Stub::Nop,
            unfinished: false,
            is_asked: false,
            has_guest: false,
            is_lost: false,
            can_run: false,
        }
    }

    /// Forgets L1 and L2, and what they did.
    pub fn restart(&mut self) {
        self.has_guest = false;
        self.is_lost = false;
    }
}

/// A vCPU.
pub struct Cpu<'a> {
    /// Its file descriptor.
    pub fd: &'a mut VcpuFd,
    /// The VM's memory.
    pub memory: &'a Mapping,
    /// What it is in the middle of.
    pub progress: &'a mut Progress,
    /// The thread's.
    pub watchdog: &'a Watchdog,
}

impl Cpu<'_> {
    /// Makes one of the actions that are on a single vCPU.
    pub fn make(mut self, action: &Action) -> Result<Seen> {
        self.act(action)
    }

    /// Like [`Cpu::make`], for several actions.
    pub fn act(&mut self, action: &Action) -> Result<Seen> {
        Ok(match action {
            Action::GetMsrs(indices) => self.get_msrs(indices)?,
            Action::SetMsrs(entries) => self.set_msrs(entries)?,
            Action::GetOneReg(id) => {
                let value = ioctl::get_one_reg(self.fd, id.0);
                let index = if id.0 >> 32 == ONE_REG_MSR >> 32 {
                    id.0 as u32
                } else {
                    0
                };

                match value {
                    Ok(value) => Seen::Values(Ok(0), vec![steady(index, value)]),
                    Err(errno) => Seen::Values(Err(errno), Vec::new()),
                }
            }
            Action::SetOneReg(id, value) => {
                let value = direct::fit_for_host(id.0 as u32, value.0);

                Seen::call(ioctl::set_one_reg(self.fd, id.0, value))
            }
            &Action::Read {
                index,
                emulated,
                answer,
            } => {
                let stub = if emulated {
                    Stub::RdmsrEmulated
                } else {
                    Stub::Rdmsr
                };
                self.access(stub, index.0 as u32, 0, answer)?
            }
            &Action::Write {
                index,
                value,
                emulated,
                answer,
            } => {
                let index = index.0 as u32;
                let value = self.value(index, value);

                if emulated {
                    self.access(Stub::WrmsrEmulated, index, value, answer)?
                } else {
                    self.access(Stub::Wrmsr, index, direct::fit(index, value), answer)?
                }
            }
            Action::Sregs {
                cr0,
                cr4,
                efer,
                apic_base,
            } => Seen::call(self.fd.get_sregs().and_then(|mut sregs| {
                sregs.cr0 ^= cr0.0;
                sregs.cr4 ^= cr4.0;
                sregs.efer ^= efer.0;
                sregs.apic_base ^= apic_base.0;
                self.fd.set_sregs(&sregs)
            })),
            Action::Events(event) => {
                Seen::call(self.fd.get_vcpu_events().and_then(|mut events| {
                    raise(&mut events, *event);
                    self.fd.set_vcpu_events(&events)
                }))
            }
            Action::Smi => Seen::call(self.fd.smi()),
            Action::Nmi => Seen::call(self.fd.nmi()),
            Action::Init => self.init()?,
            Action::SetupMce(capabilities) => Seen::call(ioctl::setup_mce(self.fd, capabilities.0)),
            Action::Mce {
                bank,
                status,
                mcg_status,
            } => Seen::call(ioctl::set_mce(
                self.fd,
                &kvm_x86_mce {
                    status: status.0,
                    addr: 0x1234_5000,
                    misc: 0x86,
                    mcg_status: mcg_status.0,
                    bank: *bank,
                    ..Default::default()
                },
            )),
            Action::TscKhz(khz) => Seen::call(self.fd.set_tsc_khz(*khz)),
            Action::Run => self.run_guest()?,
            Action::GetNested(size) => {
                let runs = Seen::Runs(self.finish()?);

                Seen::All(vec![runs, nested_state::get(self.fd, *size)?])
            }
            Action::SetNested { inverted, more } => {
                let runs = Seen::Runs(self.finish()?);

                Seen::All(vec![runs, nested_state::set(self.fd, inverted, *more)?])
            }
            // The others are the VM's.
            _ => Seen::Nothing,
        })
    }

    /// An MSR's value; none if KVM has no such MSR.
    fn get(&self, index: u32) -> Option<u64> {
        msrs::get(self.fd, index).ok().flatten()
    }

    /// The value that is to be written to an MSR.
    pub fn value(&self, index: u32, value: Value) -> u64 {
        let value = match value {
            Value::Is(value) => value.0,
            Value::Invert(bits) => steady(index, self.get(index).unwrap_or(0)) ^ bits.0,
            Value::Of(other) => {
                let other = other.0 as u32;

                steady(other, self.get(other).unwrap_or(0))
            }
        };

        direct::fit_for_host(index, value)
    }

    fn get_msrs(&self, indices: &[Hex]) -> Result<Seen> {
        let entries: Vec<_> = indices
            .iter()
            .map(|index| kvm_msr_entry {
                index: index.0 as u32,
                data: 0x5555,
                ..Default::default()
            })
            .collect();
        let mut msrs = Msrs::from_entries(&entries)?;
        let result = self.fd.get_msrs(&mut msrs);

        Ok(Seen::Values(
            result.map(|done| done as i32).map_err(Errno::from),
            msrs.as_slice()
                .iter()
                .map(|entry| steady(entry.index, entry.data))
                .collect(),
        ))
    }

    fn set_msrs(&self, entries: &[(Hex, Value)]) -> Result<Seen> {
        let entries: Vec<_> = entries
            .iter()
            .map(|&(index, value)| kvm_msr_entry {
                index: index.0 as u32,
                data: self.value(index.0 as u32, value),
                ..Default::default()
            })
            .collect();
        let result = self.fd.set_msrs(&Msrs::from_entries(&entries)?);

        Ok(Seen::Values(
            result.map(|done| done as i32).map_err(Errno::from),
            Vec::new(),
        ))
    }

    /// Runs the vCPU until it exits to user space.
    fn run(&mut self) -> Result<Outcome> {
        self.progress.unfinished = false;
        let (place, stub) = (self.progress.place, self.progress.stub);
        let outcome = self
            .watchdog
            .watch(|| place.run(self.fd, self.memory, stub))?;

        self.progress.is_lost = self.is_lost(outcome);
        self.progress.is_asked = outcome.user_space().is_some();
        self.progress.unfinished = matches!(
            outcome,
            Outcome::UserSpace(_)
                | Outcome::Done
                | Outcome::Value(_)
                | Outcome::Exception { .. }
                | Outcome::Port(_)
        );
        Ok(outcome)
    }

    /// Runs the vCPU without entering the guest.
    fn complete(&mut self) -> Result<Outcome> {
        let is_lost = self.progress.is_lost;

        self.fd.set_kvm_immediate_exit(1);
        let outcome = self.run();
        self.fd.set_kvm_immediate_exit(0);
        self.progress.is_lost = is_lost;
        outcome
    }

    /// Whether the vCPU has run something else than a stub, L1 or L2.
    fn is_lost(&self, outcome: Outcome) -> bool {
        const NESTED: RangeInclusive<u16> = code::PORT_ENABLED..=code::PORT_FAILED;

        match outcome {
            Outcome::Interrupted => true,
            Outcome::Port(port) => !self.progress.has_guest || !NESTED.contains(&port),
            Outcome::Exit(reason) => matches!(
                reason,
                KVM_EXIT_HLT | KVM_EXIT_MMIO | KVM_EXIT_INTERNAL_ERROR | KVM_EXIT_UNKNOWN
            ),
            _ => false,
        }
    }

    /// Completes an exit to user space. KVM requires this before the vCPU's state is saved.
    pub fn finish(&mut self) -> Result<Vec<Outcome>> {
        if !self.progress.unfinished {
            return Ok(Vec::new());
        }
        match self.complete()? {
            Outcome::Interrupted => Ok(Vec::new()),
            other => Ok(vec![other]),
        }
    }

    /// An access of the guest's.
    fn access(&mut self, stub: Stub, index: u32, value: u64, answer: Answer) -> Result<Seen> {
        if !self.progress.can_run {
            return Ok(Seen::Nothing);
        }
        // Without an exit for an MSR, KVM's completion sees that RIP has changed, and does nothing.
        let is_restored = self.progress.has_guest || by_time(index);
        let mut runs = if is_restored || self.progress.is_asked {
            self.finish()?
        } else {
            Vec::new()
        };
        let regs = if is_restored {
            Some(self.fd.get_regs()?)
        } else {
            None
        };

        self.progress.stub = stub;
        self.progress.place.start(self.fd, stub, index, value, 1)?;
        let mut outcome = self.run()?;
        runs.push(outcome);
        if let Outcome::UserSpace(exit) = outcome {
            let (data, error) = match answer {
                Answer::Value(value) => (value.0, 0),
                Answer::Error => (0, 1),
                Answer::Later => return Ok(Seen::Runs(runs)),
            };
            let run = self.fd.get_kvm_run();

            run.__bindgen_anon_1.msr.data = if exit.data == 0 { data } else { exit.data };
            run.__bindgen_anon_1.msr.error = error;
            outcome = self.run()?;
            runs.push(outcome);
        }
        for run in &mut runs {
            if let Outcome::Value(value) = run {
                *value = steady(index, *value);
            }
        }
        if let Some(regs) = regs
            && outcome.user_space().is_none()
        {
            runs.extend(self.finish()?);
            self.fd.set_regs(&regs)?;
        }
        Ok(Seen::Runs(runs))
    }

    /// Runs L1 and L2 until they stop.
    fn run_guest(&mut self) -> Result<Seen> {
        if !self.progress.has_guest {
            return Ok(Seen::Nothing);
        }
        let outcome = self.run()?;
        let regs = self.fd.get_regs()?;

        // RBX is the reason why L2 exited.
        Ok(Seen::All(vec![
            Seen::Runs(vec![outcome]),
            Seen::Values(Ok(0), vec![regs.rip, regs.rbx]),
        ]))
    }

    /// Resets the vCPU by an INIT. Only the first vCPU goes on by itself after it.
    fn init(&mut self) -> Result<Seen> {
        let mut runs = self.finish()?;
        let init = self.fd.set_mp_state(kvm_mp_state {
            mp_state: KVM_MP_STATE_INIT_RECEIVED,
        });

        if let Err(error) = init {
            return Ok(Seen::call::<()>(Err(error)));
        }
        runs.push(self.complete()?);
        let runnable = self.fd.set_mp_state(kvm_mp_state {
            mp_state: KVM_MP_STATE_RUNNABLE,
        });

        Ok(Seen::All(vec![Seen::Runs(runs), Seen::call(runnable)]))
    }
}

fn raise(events: &mut kvm_vcpu_events, event: Event) {
    match event {
        Event::NmiPending => {
            events.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING;
            events.nmi.pending ^= 1;
        }
        Event::NmiMasked => events.nmi.masked ^= 1,
        Event::Smm => {
            events.flags |= KVM_VCPUEVENT_VALID_SMM;
            events.smi.smm ^= 1;
        }
        Event::SmiPending => {
            events.flags |= KVM_VCPUEVENT_VALID_SMM;
            events.smi.pending ^= 1;
        }
        Event::Exception(vector) => {
            events.exception.injected ^= 1;
            events.exception.nr = vector;
        }
        Event::TripleFault => {
            events.flags |= KVM_VCPUEVENT_VALID_TRIPLE_FAULT;
            events.triple_fault.pending ^= 1;
        }
    }
}
