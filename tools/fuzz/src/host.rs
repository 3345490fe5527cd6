// SPDX-License-Identifier: Apache-2.0 OR MIT

//! What this host's KVM offers, asked once: the CPUID has the number of the CPU that asks.

use std::ops::Range;

use anyhow::Context;
use anyhow::Result;
use kvm_bindings::CpuId;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Cpuid;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Options;
use kvm_msr_guest::msrs;

use crate::history::Base;
use crate::history::Model;

/// Index ranges in which there are MSRs.
const INHABITED: [Range<u32>; 5] = [
    0..0x2000,
    0x4000_0000..0x4000_1100,
    0x4b56_4d00..0x4b56_4e00,
    0xc000_0000..0xc000_2000,
    0xc001_0000..0xc001_2000,
];

/// This host.
pub struct Host {
    /// `/dev/kvm`
    pub kvm: Kvm,
    /// MSRs that KVM knows.
    pub known: Vec<u32>,
    /// Functions and indices of its CPUID.
    pub functions: Vec<(u32, u32)>,
    models: Vec<(Base, Option<CpuId>)>,
}

impl Host {
    /// Asks KVM.
    pub fn new() -> Result<Self> {
        let kvm = Kvm::new().context("open /dev/kvm")?;
        let known = known(&kvm)?;
        let models = Base::ALL
            .into_iter()
            .map(|base| Ok((base, Cpuid::from(base).entries(&kvm)?)))
            .collect::<Result<Vec<_>>>()?;
        let entries = models.iter().find_map(|(_, cpuid)| cpuid.as_ref());
        let functions = entries
            .context("no CPUID")?
            .as_slice()
            .iter()
            .map(|entry| (entry.function, entry.index))
            .collect();

        Ok(Host {
            kvm,
            known,
            functions,
            models,
        })
    }

    /// The entries for KVM_SET_CPUID2; none if it is not to be called.
    pub fn model(&self, model: &Model) -> Option<CpuId> {
        let (_, cpuid) = self.models.iter().find(|(base, _)| *base == model.base)?;
        let mut cpuid = cpuid.clone()?;

        for &(function, index, register, bits) in &model.inverted {
            for entry in cpuid.as_mut_slice() {
                if (u64::from(entry.function), entry.index) == (function.0, index) {
                    let bits = bits.0 as u32;

                    match register {
                        0 => entry.eax ^= bits,
                        1 => entry.ebx ^= bits,
                        2 => entry.ecx ^= bits,
                        _ => entry.edx ^= bits,
                    }
                }
            }
        }
        Some(cpuid)
    }
}

/// The MSRs that KVM knows.
fn known(kvm: &Kvm) -> Result<Vec<u32>> {
    let guest = Guest::new(kvm, Options::new(Engine::C))?;

    INHABITED
        .into_iter()
        .flatten()
        .filter_map(|index| {
            let vcpu = guest.vcpu();
            let is_known = msrs::get(vcpu, index)
                .map(|value| value.is_some())
                .and_then(|read| Ok(read || msrs::set(vcpu, index, 0)?));

            match is_known {
                Ok(false) => None,
                Ok(true) => Some(Ok(index)),
                Err(errno) => Some(Err(errno.into())),
            }
        })
        .collect()
}
