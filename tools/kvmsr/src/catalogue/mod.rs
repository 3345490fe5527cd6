// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Names of MSRs, their bit fields, and KVM's rules for them. All of it is data: nothing here asks
//! KVM.

use crate::cpuid::Register;
use crate::cpuid::Vendor;
use crate::error::Error;
use crate::error::Result;
use crate::number::Bits;
use crate::number::parse_u32;

/// Whose MSR or field it is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Owner {
    /// Intel's.
    Intel,
    /// AMD's.
    Amd,
    /// Both vendors have it.
    Both,
    /// KVM's paravirtual ones.
    Kvm,
    /// Hyper-V's.
    HyperV,
}

/// An MSR, or several that are alike.
#[derive(Clone, Copy, Debug)]
pub struct Msr {
    /// The first index.
    pub first: u32,
    /// How many there are.
    pub count: u32,
    /// From one index to the next.
    pub stride: u32,
    /// Its name; of several with `{n}` for the number.
    pub name: &'static str,
    /// Whose it is.
    pub owner: Owner,
    /// Other names.
    pub aliases: &'static [&'static str],
    /// Its fields.
    pub fields: &'static [Field],
}

/// Some bits of an MSR.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Which bits.
    pub bits: Bits,
    /// Its name.
    pub name: &'static str,
    /// Whose register it is of.
    pub owner: Owner,
    /// What its values mean, where that is known.
    pub values: &'static [(u64, &'static str)],
    /// Whether it is an address, to be shown where its bits are and not shifted down.
    pub address: bool,
    /// Of which CPU family or message it is, if it is not of all; such fields overlap others.
    pub variant: Option<&'static str>,
    /// Who says so.
    pub source: &'static str,
}

/// A bit of CPUID that an access hangs on.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Feature {
    /// As in Linux, without `X86_FEATURE_`; paravirtual ones as `KVM_FEATURE_CLOCKSOURCE`.
    pub name: &'static str,
    /// EAX of the instruction.
    pub function: u32,
    /// ECX of the instruction.
    pub index: u32,
    /// The register that it is in.
    pub register: Register,
    /// The bit.
    pub bit: u8,
}

/// Who makes an access.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Initiator {
    /// User space, by an ioctl.
    Host,
    /// The guest, by an instruction.
    Guest,
}

/// The name of an MSR, with the number of an element, as `IA32_MC3_CTL`.
pub fn name(_index: u32, _vendor: Option<Vendor>) -> Option<String> {
    None
}

/// What is known of an MSR; for an index that means something else on each vendor, `vendor` decides.
pub fn msr(_index: u32, _vendor: Option<Vendor>) -> Option<&'static Msr> {
    None
}

/// The features of which a vCPU's CPUID must have at least one for the access, as KVM 7.3 has it;
/// empty if it hangs on none.
pub fn needs(_index: u32, _write: bool, _by: Initiator) -> Vec<Feature> {
    Vec::new()
}

/// Whether KVM keeps the MSR as it is once the vCPU has run: `KVM_SET_MSRS` takes no other value.
pub fn is_fixed_after_run(_index: u32) -> bool {
    false
}

/// Whether the value changes by itself.
pub fn moves(_index: u32) -> bool {
    false
}

/// The MSRs that a text means: an index, a name, or `first-last`.
///
/// # Errors
///
/// [`Error::Input`] if it means none, with names that are like it.
pub fn parse_indices(text: &str) -> Result<Vec<u32>> {
    if let Some((first, last)) = text.split_once('-') {
        let (first, last) = (parse_u32(first)?, parse_u32(last)?);

        if first > last {
            return Err(Error::Input(format!("'{text}' ends before it begins")));
        }
        return Ok((first..=last).collect());
    }
    Ok(vec![parse_u32(text)?])
}
