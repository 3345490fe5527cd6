// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Random actions.

use kvm_bindings::KVM_CAP_X86_USER_SPACE_MSR;

use super::Generator;
use crate::history::*;
use crate::nested_state::HEADER;
use crate::nested_state::LARGEST;
use crate::pages;

impl Generator<'_> {
    /// An access to MSRs, by the vCPU's ioctls or the guest.
    pub(super) fn access(&mut self) -> Action {
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
    pub(super) fn register(&mut self, index: u32) -> u64 {
        const MSR: u64 = 0x2030_0002 << 32;
        const GUEST_SSP: u64 = 0x2030_0003 << 32;

        match self.random.below(16) {
            0 => GUEST_SSP,
            // A pointer's value is made for its index.
            1 if !pages::has_address(index) => {
                (MSR | u64::from(index)) ^ 1 << self.random.below(64)
            }
            _ => MSR | u64::from(index),
        }
    }

    pub(super) fn filter(&mut self) -> Action {
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

    pub(super) fn user_space_msr(&mut self) -> Action {
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
    pub(super) fn sregs(&mut self) -> Action {
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

    pub(super) fn event(&mut self) -> Action {
        Action::Events(match self.random.below(6) {
            0 => Event::NmiPending,
            1 => Event::NmiMasked,
            2 => Event::Smm,
            3 => Event::SmiPending,
            4 => Event::Exception(self.random.below(32) as u8),
            _ => Event::TripleFault,
        })
    }

    pub(super) fn mcg_cap(&mut self) -> u64 {
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
    pub(super) fn disjoint(&mut self, count: u32) -> Vec<(Hex, Hex)> {
        let mut ranges: Vec<(u32, u32)> = Vec::new();

        for _ in 0..count {
            let first = self.index();
            let last = first.saturating_add(self.random.below(16));
            let x2apic = first <= 0x8ff && last >= 0x800;

            if !x2apic
                && !ranges
                    .iter()
                    .any(|range| range.0 <= last && first <= range.1)
            {
                ranges.push((first, last));
            }
        }
        ranges
            .into_iter()
            .map(|(first, last)| (Hex(first.into()), Hex(last.into())))
            .collect()
    }

    pub(super) fn batch(&mut self) -> Action {
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
    pub(super) fn together(&mut self) -> Action {
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

    pub(super) fn get_nested(&mut self) -> Action {
        let around = *self.random.pick(&[0, HEADER, HEADER + 4096, LARGEST]) as u32;

        Action::GetNested(match self.random.below(3) {
            0 => around.wrapping_sub(self.random.below(16)),
            1 => around,
            _ => LARGEST as u32,
        })
    }

    pub(super) fn set_nested(&mut self) -> Action {
        let inverted = self.random.below(4);

        Action::SetNested {
            inverted: (0..inverted)
                .map(|_| {
                    let end = *self
                        .random
                        .pick(&[4, 32, 48, HEADER, HEADER + 1024, LARGEST])
                        as u32;

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
