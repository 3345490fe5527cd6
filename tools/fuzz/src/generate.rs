// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Makes histories at random, and changes them.

use kvm_bindings::*;
use kvm_msr_guest::Random;

use crate::history::*;
use crate::host::Host;
use crate::nested_state::HEADER;
use crate::nested_state::LARGEST;
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
                msr: Hex(*self.random.pick(&[0, 0x4000_0000, 0x4000_0200, 0x4000_0300, 0xdead])),
            },
            81 => {
                let ranges = self.random.below(4);
                Action::Policy(self.disjoint(ranges))
            }
            82 => Action::Learn(self.one_in(2)),
            83 => Action::Stats(self.one_in(2)),
            84..88 => self.batch(),
            // L1 and L2 use page tables that KVM may have to protect against the other vCPU's writes.
            88 if setup.nested == Nesting::No => self.together(),
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

    /// An access to MSRs, by the vCPU's ioctls or the guest.
    fn access(&mut self) -> Action {
        let index = self.index();
        let answer = match self.random.below(4) {
            0 => Answer::Error,
            1 => Answer::Later,
            _ => Answer::Value(Hex(self.number())),
        };

        match self.random.below(16) {
            0 | 1 => {
                let count = 1 + self.random.below(4);
                Action::GetMsrs((0..count).map(|_| Hex(self.index().into())).collect())
            }
            2..5 => {
                let count = 1 + self.random.below(3);
                Action::SetMsrs(
                    (0..count)
                        .map(|_| {
                            let index = self.index();
                            (Hex(index.into()), self.value(index))
                        })
                        .collect(),
                )
            }
            5 => Action::GetOneReg(Hex(self.register(index))),
            6 => {
                let value = match pages::value(&mut self.random, index) {
                    Some(value) => value,
                    None => self.number(),
                };
                Action::SetOneReg(Hex(self.register(index)), Hex(value))
            }
            7..11 => Action::Read {
                index: Hex(index.into()),
                emulated: self.one_in(3),
                answer,
            },
            _ => Action::Write {
                index: Hex(index.into()),
                value: self.value(index),
                emulated: self.one_in(3),
                answer,
            },
        }
    }

    /// The ID of a register for KVM_GET_ONE_REG.
    fn register(&mut self, index: u32) -> u64 {
        const MSR: u64 = 0x2030_0002 << 32;
        const GUEST_SSP: u64 = 0x2030_0003 << 32;

        match self.random.below(16) {
            0 => GUEST_SSP,
            // A pointer's value is made for its index.
            1 if !pages::has_address(index) => (MSR | u64::from(index)) ^ 1 << self.random.below(64),
            _ => MSR | u64::from(index),
        }
    }

    fn filter(&mut self) -> Action {
        let ranges = self.random.below(5);

        Action::Filter {
            deny: self.one_in(4),
            ranges: (0..ranges)
                .map(|_| {
                    let nmsrs = match self.random.below(8) {
                        0 => 1 + self.random.below(0x3000),
                        1 => self.random.below(2) * 0x3001,
                        _ => 1 + self.random.below(40),
                    };
                    let start = self.random.below(nmsrs.clamp(1, 40));

                    FilterRange {
                        flags: match self.random.below(16) {
                            0 => self.random.below(8),
                            _ => 1 + self.random.below(3),
                        },
                        base: Hex(u64::from(self.index().wrapping_sub(start))),
                        nmsrs,
                        allow: self.one_in(2),
                        inverted: (0..self.random.below(4))
                            .map(|_| self.random.below(nmsrs.clamp(1, 64)))
                            .collect(),
                    }
                })
                .collect(),
        }
    }

    fn user_space_msr(&mut self) -> Action {
        Action::VmCapability(
            KVM_CAP_X86_USER_SPACE_MSR,
            Hex(match self.random.below(8) {
                0 => 0,
                1 => self.number(),
                _ => self.random.below(8).into(),
            }),
        )
    }

    /// Bits of the control registers and EFER, with which the vCPU goes on in long mode.
    fn sregs(&mut self) -> Action {
        // WP, NE, MP, EM, TS, AM, CD, NW; CR4 without LA57, PCIDE and VMXE; SCE, LMSLE, NX, SVME.
        const CR0: [u64; 6] = [1 << 16, 1 << 1, 1 << 3, 1 << 18, 1 << 30, 3 << 29];
        const CR4: [u64; 10] = [
            1 << 2,
            1 << 3,
            1 << 6,
            1 << 7,
            1 << 9,
            1 << 16,
            1 << 18,
            1 << 20,
            1 << 23,
            1 << 11,
        ];
        const EFER: [u64; 6] = [1 << 0, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15];
        const APIC_BASE: [u64; 5] = [1 << 8, 1 << 10, 1 << 11, 3 << 10, 1 << 12];
        let mut bits = |of: &[u64]| {
            Hex(match self.random.below(3) {
                0 => *self.random.pick(of),
                _ => 0,
            })
        };

        Action::Sregs {
            cr0: bits(&CR0),
            cr4: bits(&CR4),
            efer: bits(&EFER),
            apic_base: bits(&APIC_BASE),
        }
    }

    fn event(&mut self) -> Action {
        Action::Events(match self.random.below(6) {
            0 => Event::NmiPending,
            1 => Event::NmiMasked,
            2 => Event::Smm,
            3 => Event::SmiPending,
            4 => Event::Exception(self.random.below(32) as u8),
            _ => Event::TripleFault,
        })
    }

    fn mcg_cap(&mut self) -> u64 {
        match self.random.below(4) {
            0 => self.random.next(),
            1 => 10,
            // MCG_CTL_P, MCG_CMCI_P, MCG_SER_P, MCG_LMCE_P.
            _ => {
                let flags = [1 << 8, 1 << 10, 1 << 24, 1 << 27];
                let chosen: u64 = flags.iter().filter(|_| self.random.below(2) == 0).sum();

                chosen | u64::from(self.random.below(33))
            }
        }
    }

    /// Ranges that do not overlap, without the x2APIC's MSRs, which no policy can have.
    fn disjoint(&mut self, count: u32) -> Vec<(Hex, Hex)> {
        let mut ranges: Vec<(u32, u32)> = Vec::new();

        for _ in 0..count {
            let first = self.index();
            let last = first.saturating_add(self.random.below(16));
            let x2apic = first <= 0x8ff && last >= 0x800;

            if !x2apic && !ranges.iter().any(|range| range.0 <= last && first <= range.1) {
                ranges.push((first, last));
            }
        }
        ranges
            .into_iter()
            .map(|(first, last)| (Hex(first.into()), Hex(last.into())))
            .collect()
    }

    fn batch(&mut self) -> Action {
        let set = self.one_in(2);
        let count = 1 + self.random.below(6);

        Action::Batch(
            (0..count)
                .map(|_| {
                    let index = self.index();
                    (Hex(index.into()), set.then(|| self.value(index)))
                })
                .collect(),
        )
    }

    /// Accesses of all vCPUs at the same time, each to MSRs of its own.
    fn together(&mut self) -> Action {
        let lists = (0..VCPUS)
            .map(|_| {
                (0..1 + self.random.below(6))
                    .map(|_| self.access())
                    .filter(|action| !shared(action))
                    .collect()
            })
            .collect();

        Action::Together(lists)
    }

    fn get_nested(&mut self) -> Action {
        let around = *self.random.pick(&[0, HEADER, HEADER + 4096, LARGEST]) as u32;

        Action::GetNested(match self.random.below(3) {
            0 => around.wrapping_sub(self.random.below(16)),
            1 => around,
            _ => LARGEST as u32,
        })
    }

    fn set_nested(&mut self) -> Action {
        let inverted = self.random.below(4);

        Action::SetNested {
            inverted: (0..inverted)
                .map(|_| {
                    let end = *self.random.pick(&[4, 32, 48, HEADER, HEADER + 1024, LARGEST]) as u32;

                    (self.random.below(end) as u16, 1 << self.random.below(8))
                })
                .collect(),
            more: match self.random.below(8) {
                0 => -(self.random.below(4096) as i32),
                1 => self.random.below(4096) as i32,
                _ => 0,
            },
        }
    }

    /// A changed copy of a history; sometimes with steps of another.
    pub fn change(&mut self, of: &History, other: &History) -> History {
        let mut history = of.clone();

        self.refocus();
        if !self.one_in(3) {
            // Stay with the MSRs of the history.
            let text = serde_json::to_string(&history.steps).unwrap_or_default();
            let used: Vec<u32> = self
                .host
                .known
                .iter()
                .copied()
                .filter(|index| text.contains(&format!("\"{index:x}\"")))
                .collect();
            if !used.is_empty() {
                let count = 1 + self.random.below(3);

                self.focus = (0..count).map(|_| *self.random.pick(&used)).collect();
            }
        }
        if self.one_in(16) {
            history.setup = self.setup();
        }
        for _ in 0..1 + self.random.below(12) {
            let length = history.steps.len();
            let at = self.random.below(length as u32 + 1) as usize;

            match self.random.below(8) {
                0 if at < length => {
                    history.steps.remove(at);
                }
                1 | 2 if at < length => history.steps[at] = self.step(&history.setup.clone()),
                3 if at < length => {
                    let step = history.steps[at].clone();
                    let to = self.random.below(length as u32) as usize;

                    history.steps.insert(to, step);
                }
                4 if !other.steps.is_empty() => {
                    let start = self.random.below(other.steps.len() as u32) as usize;
                    let count = 1 + self.random.below(16) as usize;
                    let end = (start + count).min(other.steps.len());

                    history
                        .steps
                        .splice(at..at, other.steps[start..end].iter().cloned());
                }
                5 if at < length => history.steps[at].vcpu ^= 1,
                _ => {
                    let step = self.step(&history.setup.clone());

                    history.steps.insert(at, step);
                }
            }
        }
        history.steps.truncate(STEPS);
        history
    }
}

/// Whether an action may affect other vCPUs, so that it must not run beside theirs.
fn shared(action: &Action) -> bool {
    let is_shared = |index: u64| {
        // Hyper-V's and KVM's, the TSC's, and the APIC's, which can send interrupts.
        (0x4000_0000..0x5000_0000).contains(&index)
            || matches!(index, 0x10..=0x12 | 0x1b | 0x3b | 0x800..=0x8ff)
    };

    match action {
        Action::GetMsrs(indices) => indices.iter().any(|index| is_shared(index.0)),
        Action::SetMsrs(entries) => entries.iter().any(|(index, value)| {
            let of = match value {
                Value::Of(index) => index.0,
                _ => 0,
            };
            is_shared(index.0) || is_shared(of)
        }),
        Action::GetOneReg(id) | Action::SetOneReg(id, _) => is_shared(id.0 & 0xffff_ffff),
        Action::Read { index, .. } | Action::Write { index, .. } => is_shared(index.0),
        _ => true,
    }
}
