// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Makes histories at random, and changes them.

mod actions;

use kvm_bindings::*;
use kvm_msr_guest::Random;

use crate::history::*;
use crate::host::Host;
use crate::pages;

/// The largest number of steps.
const STEPS: usize = 400;

/// Special values.
const EDGES: [u64; 16] = [
    0,
    1,
    u64::MAX,
    0x7fff_ffff_ffff,
    0x8000_0000_0000,
    0xffff_7fff_ffff_ffff,
    0xffff_8000_0000_0000,
    0x00ff_ffff_ffff_ffff,
    0x0100_0000_0000_0000,
    0xff00_0000_0000_0000,
    0x0007_0406_0007_0406,
    0x0606_0606_0606_0606,
    0xffff_ffff,
    0xffff_ffff_ffff_fffe,
    0xc00,
    0xfee0_0d00,
];

/// MSRs that decide what is valid for others, or for which much else decides it.
const GOVERNING: [u32; 14] = [
    0x1b,        // IA32_APIC_BASE
    0x3a,        // IA32_FEATURE_CONTROL
    0xce,        // PLATFORM_INFO
    0x10a,       // IA32_ARCH_CAPABILITIES
    0x140,       // MISC_FEATURES_ENABLES
    0x17a,       // IA32_MCG_STATUS
    0x17b,       // IA32_MCG_CTL
    0x1a0,       // IA32_MISC_ENABLE
    0x345,       // IA32_PERF_CAPABILITIES
    0x4000_0000, // HV_GUEST_OS_ID
    0x4000_0001, // HV_HYPERCALL
    0xc000_0080, // EFER
    0xc001_0015, // HWCR
    0xc001_0117, // VM_HSAVE_PA
];

/// Capabilities of a VM, and the number of bits that their argument has.
const VM_CAPABILITIES: [(u32, u32); 10] = [
    (KVM_CAP_DISABLE_QUIRKS, 12),
    (KVM_CAP_DISABLE_QUIRKS2, 12),
    (KVM_CAP_MSR_PLATFORM_INFO, 1),
    (KVM_CAP_EXCEPTION_PAYLOAD, 1),
    (KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1),
    (KVM_CAP_X2APIC_API, 5),
    (KVM_CAP_X86_USER_SPACE_MSR, 4),
    (KVM_CAP_PMU_CAPABILITY, 2),
    (KVM_CAP_X86_BUS_LOCK_EXIT, 3),
    (KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1),
];

/// Capabilities of a vCPU.
const VCPU_CAPABILITIES: [(u32, u32); 5] = [
    (KVM_CAP_HYPERV_SYNIC, 1),
    (KVM_CAP_HYPERV_SYNIC2, 1),
    (KVM_CAP_HYPERV_ENFORCE_CPUID, 1),
    (KVM_CAP_HYPERV_ENLIGHTENED_VMCS, 1),
    (KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 1),
];

/// A source of random histories.
pub struct Generator<'a> {
    host: &'a Host,
    /// The source of everything random.
    pub random: Random,
    /// The MSRs that most steps of a history access: few, so that they meet.
    focus: Vec<u32>,
}

impl<'a> Generator<'a> {
    /// A source with a seed.
    pub fn new(host: &'a Host, seed: u64) -> Self {
        Generator {
            host,
            random: Random::new(seed),
            focus: Vec::new(),
        }
    }

    fn one_in(&mut self, number: u32) -> bool {
        self.random.below(number) == 0
    }

    /// A new history.
    pub fn history(&mut self) -> History {
        let setup = self.setup();
        let steps = 8 + self.random.below(STEPS as u32 - 8);

        self.refocus();
        History {
            steps: (0..steps).map(|_| self.step(&setup)).collect(),
            setup,
        }
    }

    fn setup(&mut self) -> Setup {
        let base = match self.random.below(12) {
            0 => Base::Empty,
            1 => Base::NoPmu,
            2 => Base::OtherVendor,
            _ => Base::Full,
        };
        let inverted = self.random.below(6).saturating_sub(3);
        let capabilities = self.random.below(6).saturating_sub(3);
        let nested = match self.random.below(6) {
            0 if base == Base::Full => Nesting::Plain,
            1 if base == Base::Full => Nesting::More,
            _ => Nesting::No,
        };

        Setup {
            cpuid: Model {
                base,
                inverted: (0..inverted).map(|_| self.inverted()).collect(),
            },
            overlay: nested == Nesting::No && self.one_in(3),
            irqchip: nested == Nesting::No && self.one_in(4),
            nested,
            capabilities: (0..capabilities)
                .map(|_| self.capability(&VM_CAPABILITIES))
                .collect(),
        }
    }

    fn inverted(&mut self) -> (Hex, u32, u8, Hex) {
        let &(function, index) = self.random.pick(&self.host.functions);
        let bit = 1u64 << self.random.below(32);

        (
            Hex(function.into()),
            index,
            self.random.below(4) as u8,
            Hex(bit),
        )
    }

    fn capability(&mut self, of: &[(u32, u32)]) -> (u32, Hex) {
        let &(number, bits) = self.random.pick(of);
        let argument = match self.random.below(16) {
            0 => self.random.next(),
            1..8 => 1 << self.random.below(bits),
            _ => self.random.next() & ((1 << bits) - 1),
        };

        (number, Hex(argument))
    }

    /// Selects the MSRs of the following steps.
    fn refocus(&mut self) {
        self.focus.clear();
        for _ in 0..1 + self.random.below(4) {
            let index = if self.one_in(3) {
                *self.random.pick(&GOVERNING)
            } else {
                // Neighbours often belong together.
                let at = self.random.below(self.host.known.len() as u32) as usize;
                let next = self.host.known.get(at + 1).copied();

                self.focus.extend(next);
                self.host.known[at]
            };
            self.focus.push(index);
        }
    }

    fn index(&mut self) -> u32 {
        match self.random.below(32) {
            0 => self.random.next() as u32,
            1 => self.random.pick(&self.focus).wrapping_add(1),
            2..4 => *self.random.pick(&self.host.known),
            4 => *self.random.pick(&GOVERNING),
            _ => *self.random.pick(&self.focus),
        }
    }

    fn number(&mut self) -> u64 {
        match self.random.below(8) {
            0 => self.random.next(),
            1 => self.random.next() & self.random.next() & self.random.next(),
            2 => u64::from(self.random.below(16)),
            3 | 4 => 1 << self.random.below(64),
            _ => *self.random.pick(&EDGES),
        }
    }

    fn value(&mut self, index: u32) -> Value {
        if let Some(value) = pages::value(&mut self.random, index) {
            return Value::Is(Hex(value));
        }
        match self.random.below(8) {
            0..3 => Value::Invert(Hex(1 << self.random.below(64))),
            3 => Value::Invert(Hex(0)),
            4 => Value::Of(Hex(self.index().into())),
            _ => Value::Is(Hex(self.number())),
        }
    }

    /// A step for a VM of this setup.
    fn step(&mut self, setup: &Setup) -> Step {
        loop {
            let step = self.any_step(setup);

            if step.action.is_for(setup) {
                return step;
            }
        }
    }

    fn any_step(&mut self, setup: &Setup) -> Step {
        let vcpu = if self.one_in(4) { 1 } else { 0 };
        let action = match self.random.below(100) {
            0..52 => self.access(),
            52..55 => self.filter(),
            55..62 => self.user_space_msr(),
            62..65 => {
                let (number, argument) = self.capability(&VM_CAPABILITIES);
                Action::VmCapability(number, argument)
            }
            65..68 => {
                let (number, argument) = self.capability(&VCPU_CAPABILITIES);
                Action::VcpuCapability(number, argument)
            }
            68..71 => Action::Cpuid(Model {
                base: setup.cpuid.base,
                inverted: (0..self.random.below(3)).map(|_| self.inverted()).collect(),
            }),
            71..75 => self.sregs(),
            75..77 => self.event(),
            77 => Action::SetupMce(Hex(self.mcg_cap())),
            78 => Action::Mce {
                bank: self.random.below(34) as u8,
                status: Hex(self.number() | u64::from(self.random.below(2)) << 63),
                mcg_status: Hex(self.random.below(8).into()),
            },
            79 => Action::TscKhz(*self.random.pick(&[0, 1, 1_000_000, 2_500_000, u32::MAX])),
            80 => Action::Xen {
                flags: 1 << self.random.below(7) >> 1,
                msr: Hex(*self
                    .random
                    .pick(&[0, 0x4000_0000, 0x4000_0200, 0x4000_0300, 0xdead])),
            },
            81 => {
                let ranges = self.random.below(4);
                Action::Policy(self.disjoint(ranges))
            }
            82 => Action::Learn(self.one_in(2)),
            83 => Action::Stats(self.one_in(2)),
            84..88 => self.batch(),
            88 => self.together(),
            90 => Action::Start,
            91..93 => {
                let events = [Action::Smi, Action::Nmi, Action::Init];
                self.random.pick(&events).clone()
            }
            93 => self.get_nested(),
            94..96 => self.set_nested(),
            _ => self.access(),
        };

        if setup.nested != Nesting::No && self.one_in(4) {
            let action = match self.random.below(4) {
                0 => self.set_nested(),
                1 => self.get_nested(),
                _ => Action::Run,
            };
            return Step { vcpu: 0, action };
        }
        Step { vcpu, action }
    }

    /// A changed copy of one of these histories, with steps of others.
    ///
    /// Panics if there is none.
    pub fn change(&mut self, corpus: &[History]) -> History {
        let mut history = self.random.pick(corpus).clone();
        let length = 8 + self.random.below(STEPS as u32 - 8) as usize;

        self.refocus();
        if !self.one_in(3) {
            // Stay with the MSRs of the history.
            let steps = history.steps.iter();
            let used: Vec<u32> = steps.flat_map(|step| step.action.indices()).collect();
            if !used.is_empty() {
                let count = 1 + self.random.below(3);

                self.focus = (0..count).map(|_| *self.random.pick(&used)).collect();
            }
        }
        if self.one_in(16) {
            history.setup = self.setup();
            let setup = &history.setup;
            history.steps.retain(|step| step.action.is_for(setup));
        }
        for _ in 0..1 + self.random.below(12) {
            self.change_once(&mut history);
        }
        // A pair of VMs takes as long to make as many steps.
        while history.steps.len() < length {
            let at = self.random.below(history.steps.len() as u32 + 1) as usize;

            if self.one_in(3) {
                let step = self.step(&history.setup);

                history.steps.insert(at, step);
            } else {
                let other = self.random.pick(corpus);
                let start = self.random.below(other.steps.len() as u32 + 1) as usize;
                let end = (start + 32).min(other.steps.len());
                let steps = other.steps[start..end].iter();
                let steps = steps.filter(|step| step.action.is_for(&history.setup));

                history.steps.splice(at..at, steps.cloned());
            }
        }
        history.steps.truncate(STEPS);
        history
    }

    fn change_once(&mut self, history: &mut History) {
        let length = history.steps.len();
        let at = self.random.below(length as u32 + 1) as usize;

        match self.random.below(8) {
            0 if at < length => {
                history.steps.remove(at);
            }
            1 | 2 if at < length => history.steps[at] = self.step(&history.setup),
            3 if at < length => {
                let step = history.steps[at].clone();
                let to = self.random.below(length as u32) as usize;

                history.steps.insert(to, step);
            }
            4 if at < length => history.steps[at].vcpu ^= 1,
            _ => {
                let step = self.step(&history.setup);

                history.steps.insert(at, step);
            }
        }
    }
}
