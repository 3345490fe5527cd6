// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Takes a snapshot of a vCPU.

use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_ioctls::Kvm;
use kvm_ioctls::VcpuFd;

use crate::catalogue;
use crate::cpuid::Cpuid;
use crate::cpuid::Leaf;
use crate::error::Error;
use crate::error::Result;
use crate::number::Hex;
use crate::snapshot::Host;
use crate::snapshot::Kind;
use crate::snapshot::SCHEMA;
use crate::snapshot::Snapshot;
use crate::snapshot::Value;
use crate::state;
use crate::state::List;

const MCG_CAP: u32 = 0x179;

impl Snapshot {
    /// Takes a snapshot of a stopped vCPU: of a VMM's own, or of a scratch vCPU.
    ///
    /// It has the MSRs of [`state::save`], and EFER, IA32_APIC_BASE, FS_BASE and GS_BASE.
    ///
    /// # Errors
    ///
    /// [`Error::Kvm`] with the ioctl that failed.
    pub fn of_vcpu(kvm: &Kvm, vcpu: &VcpuFd) -> Result<Self> {
        let host = Host::this();
        let vendor = host.vendor;
        let cpuid = vcpu
            .get_cpuid2(KVM_MAX_CPUID_ENTRIES)
            .map_err(Error::kvm("KVM_GET_CPUID2"))?;
        let saved = kvm
            .get_msr_index_list()
            .map_err(Error::kvm("KVM_GET_MSR_INDEX_LIST"))?;
        let saved = saved.as_slice();
        let features = state::feature_list(kvm)?;
        let list = List::new(kvm, vcpu)?.with_sregs();
        let state = state::save(vcpu, &list)?;
        // MSRs whose second read differs change by themselves.
        let indices: Vec<_> = state.entries.iter().map(|entry| entry.index).collect();
        let later = state::read(vcpu, &indices)?;
        let value = |index, value| Value {
            name: catalogue::name(index, vendor),
            ..Value::new(index, value)
        };

        Ok(Snapshot {
            schema: SCHEMA,
            kind: Kind::Snapshot,
            cpuid: Cpuid(cpuid.as_slice().iter().map(Leaf::from).collect()),
            saved: saved.iter().copied().map(Hex).collect(),
            features: features
                .iter()
                .zip(state::read_features(kvm, &features)?)
                .filter_map(|(&index, supported)| Some(value(index, supported?)))
                .collect(),
            msrs: state
                .entries
                .iter()
                .zip(later)
                .map(|(entry, later)| Value {
                    moves: later != Some(entry.data) || catalogue::moves(entry.index),
                    ..value(entry.index, entry.data)
                })
                .collect(),
            mcg_cap: state::read(vcpu, &[MCG_CAP])?
                .into_iter()
                .flatten()
                .next()
                .map(Hex),
            unreadable: state
                .unreadable
                .into_iter()
                .filter(|index| saved.contains(index))
                .map(Hex)
                .collect(),
            host,
            ..Snapshot::default()
        })
    }
}

impl Value {
    /// An MSR and its value, without a name.
    pub fn new(index: u32, value: u64) -> Self {
        Value {
            index: Hex(index),
            name: None,
            value: Hex(value),
            mask: None,
            moves: false,
        }
    }
}
