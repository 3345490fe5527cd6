// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The CPUID of a vCPU: presets, and the bits on which MSRs depend.

mod modifiers;
mod registers;

use kvm_bindings::CpuId;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_bindings::kvm_cpuid_entry2;
use kvm_ioctls::Kvm;
use serde::Deserialize;
use serde::Serialize;

use crate::error::Error;
use crate::error::Result;
use crate::number::Hex;

pub use modifiers::Modifier;
pub use modifiers::Modifiers;

/// One leaf of CPUID, like `struct kvm_cpuid_entry2`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Leaf {
    /// EAX of the instruction.
    pub function: Hex<u32>,
    /// ECX of the instruction, if it matters.
    pub index: Hex<u32>,
    /// `KVM_CPUID_FLAG_*`; 1: the index matters.
    pub flags: u32,
    /// The output EAX.
    pub eax: Hex<u32>,
    /// The output EBX.
    pub ebx: Hex<u32>,
    /// The output ECX.
    pub ecx: Hex<u32>,
    /// The output EDX.
    pub edx: Hex<u32>,
}

impl From<&kvm_cpuid_entry2> for Leaf {
    fn from(entry: &kvm_cpuid_entry2) -> Self {
        Leaf {
            function: Hex(entry.function),
            index: Hex(entry.index),
            flags: entry.flags,
            eax: Hex(entry.eax),
            ebx: Hex(entry.ebx),
            ecx: Hex(entry.ecx),
            edx: Hex(entry.edx),
        }
    }
}

impl From<&Leaf> for kvm_cpuid_entry2 {
    fn from(leaf: &Leaf) -> Self {
        kvm_cpuid_entry2 {
            function: leaf.function.0,
            index: leaf.index.0,
            flags: leaf.flags,
            eax: leaf.eax.0,
            ebx: leaf.ebx.0,
            ecx: leaf.ecx.0,
            edx: leaf.edx.0,
            ..Default::default()
        }
    }
}

/// A register of CPUID.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Register {
    /// EAX
    Eax,
    /// EBX
    Ebx,
    /// ECX
    Ecx,
    /// EDX
    Edx,
}

/// The vendor in CPUID, as far as KVM distinguishes them.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Vendor {
    /// AMD and Hygon: SVM.
    Amd,
    /// Intel, Centaur and Zhaoxin: VMX.
    Intel,
}

impl Vendor {
    /// The vendor for a name in CPUID or /proc/cpuinfo, e.g. `GenuineIntel`.
    pub fn of_name(name: &str) -> Option<Self> {
        match name.trim() {
            "AuthenticAMD" | "HygonGenuine" => Some(Vendor::Amd),
            "GenuineIntel" | "CentaurHauls" | "Shanghai" => Some(Vendor::Intel),
            _ => None,
        }
    }
}

/// The argument of `KVM_SET_CPUID2`. If it is empty, the ioctl is not called.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Cpuid(pub Vec<Leaf>);

impl Cpuid {
    /// The presets that [`Cpuid::preset`] accepts, with descriptions.
    pub const PRESETS: [(&'static str, &'static str); 4] = [
        ("host", "all features of KVM_GET_SUPPORTED_CPUID"),
        ("none", "nothing: KVM_SET_CPUID2 is not called"),
        ("no-pmu", "as host, without the performance counters"),
        ("other-vendor", "as host, under the other vendor's name"),
    ];

    /// All that KVM supports on this host.
    ///
    /// # Errors
    ///
    /// [`Error::Kvm`] if the ioctl fails.
    pub fn supported(kvm: &Kvm) -> Result<Self> {
        let supported = kvm
            .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
            .map_err(Error::kvm("KVM_GET_SUPPORTED_CPUID"))?;

        Ok(Cpuid(supported.as_slice().iter().map(Leaf::from).collect()))
    }

    /// A preset by its name; none if there is no such preset.
    ///
    /// # Errors
    ///
    /// As [`Cpuid::supported`].
    pub fn preset(kvm: &Kvm, name: &str) -> Result<Option<Self>> {
        if name == "none" {
            return Ok(Some(Cpuid::default()));
        }
        if !Self::PRESETS.iter().any(|&(preset, _)| preset == name) {
            return Ok(None);
        }
        let mut cpuid = Self::supported(kvm)?;

        match name {
            "no-pmu" => cpuid.remove_pmu(),
            "other-vendor" => {
                let other = match cpuid.vendor() {
                    Some(Vendor::Intel) => b"AuthenticAMD",
                    _ => b"GenuineIntel",
                };

                cpuid.set_vendor(other);
            }
            _ => {}
        }
        Ok(Some(cpuid))
    }

    fn remove_pmu(&mut self) {
        const PDCM: u32 = 1 << 15;
        const PERFCTR_CORE: u32 = 1 << 23;

        for leaf in &mut self.0 {
            match leaf.function.0 {
                0x1 => leaf.ecx.0 &= !PDCM,
                0x8000_0001 => leaf.ecx.0 &= !PERFCTR_CORE,
                0xa | 0x8000_0022 => {
                    (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = Default::default();
                }
                _ => {}
            }
        }
    }

    /// Sets the vendor's name.
    pub fn set_vendor(&mut self, name: &[u8; 12]) {
        let word = |at: usize| {
            Hex(u32::from_le_bytes([
                name[at],
                name[at + 1],
                name[at + 2],
                name[at + 3],
            ]))
        };

        for leaf in &mut self.0 {
            if matches!(leaf.function.0, 0 | 0x8000_0000) {
                (leaf.ebx, leaf.edx, leaf.ecx) = (word(0), word(4), word(8));
            }
        }
    }

    /// The vendor, if KVM knows it.
    pub fn vendor(&self) -> Option<Vendor> {
        let leaf = self.leaf(0, 0)?;
        let name = [leaf.ebx.0, leaf.edx.0, leaf.ecx.0].map(u32::to_le_bytes);

        match name.as_flattened() {
            b"AuthenticAMD" | b"HygonGenuine" => Some(Vendor::Amd),
            b"GenuineIntel" | b"CentaurHauls" | b"  Shanghai  " => Some(Vendor::Intel),
            _ => None,
        }
    }

    /// The leaf that the instruction would return.
    pub fn leaf(&self, function: u32, index: u32) -> Option<&Leaf> {
        self.0.iter().find(|leaf| {
            leaf.function.0 == function && (leaf.flags & 1 == 0 || leaf.index.0 == index)
        })
    }

    /// A register of a leaf; 0 if there is no such leaf.
    pub fn register(&self, function: u32, index: u32, register: Register) -> u32 {
        self.leaf(function, index).map_or(0, |leaf| {
            match register {
                Register::Eax => leaf.eax,
                Register::Ebx => leaf.ebx,
                Register::Ecx => leaf.ecx,
                Register::Edx => leaf.edx,
            }
            .0
        })
    }

    /// Sets or clears a bit; adds the leaf if there is none.
    pub fn set_bit(&mut self, function: u32, index: u32, register: Register, bit: u8, on: bool) {
        let at = self
            .0
            .iter()
            .position(|leaf| {
                leaf.function.0 == function && (leaf.flags & 1 == 0 || leaf.index.0 == index)
            })
            .unwrap_or_else(|| {
                self.0.push(Leaf {
                    function: Hex(function),
                    index: Hex(index),
                    flags: u32::from(index != 0),
                    eax: Hex(0),
                    ebx: Hex(0),
                    ecx: Hex(0),
                    edx: Hex(0),
                });
                self.0.len() - 1
            });
        let leaf = &mut self.0[at];
        let register = match register {
            Register::Eax => &mut leaf.eax.0,
            Register::Ebx => &mut leaf.ebx.0,
            Register::Ecx => &mut leaf.ecx.0,
            Register::Edx => &mut leaf.edx.0,
        };
        let mask = 1u32.checked_shl(bit.into()).unwrap_or(0);

        *register = if on {
            *register | mask
        } else {
            *register & !mask
        };
    }

    /// Converts it for `KVM_SET_CPUID2`.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] if there are too many leaves.
    pub fn to_kvm(&self) -> Result<CpuId> {
        let entries: Vec<_> = self.0.iter().map(kvm_cpuid_entry2::from).collect();

        CpuId::from_entries(&entries).map_err(|_| {
            Error::Input(format!(
                "a CPUID of {} leaves is too large: KVM accepts {KVM_MAX_CPUID_ENTRIES}",
                entries.len()
            ))
        })
    }
}
