// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The metrics.

use std::hint::black_box;
use std::time::Duration;

use kvm_bindings::Msrs;
use kvm_bindings::kvm_msr_entry;
use kvm_ioctls::MsrFilterDefaultAction;
use kvm_ioctls::MsrFilterRange;
use kvm_ioctls::MsrFilterRangeFlags;
use serde::Deserialize;
use serde::Serialize;

use super::cost::Cost;
use super::cost::Meter;
use super::subject::Subject;
use crate::error::Error;
use crate::error::Result;
use crate::ioctl::MAX_ENTRIES;
use crate::scratch::Outcome;

/// IA32_PLATFORM_ID: KVM reads it as 0 on both vendors and never passes it through.
const READ: u32 = 0x17;
/// IA32_BIOS_SIGN_ID: KVM ignores a guest's write and never passes it through.
const WRITE: u32 = 0x8b;
/// IA32_PAT: user space can read and write it on all CPUs.
const PAT: u32 = 0x277;
/// Its value after reset.
const PAT_VALUE: u64 = 0x0007_0406_0007_0406;
/// The minimum time of a sample, so that the clock and the ioctl do not matter.
const SAMPLE: Duration = Duration::from_millis(2);
/// Number of MSRs in a range of a filter.
const RANGE_SIZE: u32 = 64;
const BITMAP: [u8; RANGE_SIZE as usize / 8] = [0xff; RANGE_SIZE as usize / 8];

/// What is measured.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// A guest's RDMSR: the exit, KVM's work and the entry.
    RdmsrExit,
    /// A guest's WRMSR.
    WrmsrExit,
    /// RDMSR under a filter of one range.
    #[serde(rename = "rdmsr-exit-filter-1")]
    RdmsrExitFilter1,
    /// RDMSR under a filter of 16 ranges, of which the last one decides.
    #[serde(rename = "rdmsr-exit-filter-16")]
    RdmsrExitFilter16,
    /// `KVM_GET_MSRS` of one MSR.
    GetMsrsCall,
    /// An additional entry in `KVM_GET_MSRS`.
    GetMsrsEntry,
    /// `KVM_SET_MSRS` of one MSR.
    SetMsrsCall,
    /// An additional entry in `KVM_SET_MSRS`.
    SetMsrsEntry,
    /// `KVM_GET_MSRS` of all readable MSRs of `KVM_GET_MSR_INDEX_LIST`.
    IndexList,
    /// `KVM_X86_SET_MSR_FILTER` of one range.
    #[serde(rename = "set-filter-1")]
    SetFilter1,
    /// `KVM_X86_SET_MSR_FILTER` of 16 ranges.
    #[serde(rename = "set-filter-16")]
    SetFilter16,
}

impl Metric {
    /// All metrics.
    pub const ALL: [Metric; 11] = [
        Metric::RdmsrExit,
        Metric::RdmsrExitFilter1,
        Metric::RdmsrExitFilter16,
        Metric::WrmsrExit,
        Metric::GetMsrsCall,
        Metric::GetMsrsEntry,
        Metric::SetMsrsCall,
        Metric::SetMsrsEntry,
        Metric::IndexList,
        Metric::SetFilter1,
        Metric::SetFilter16,
    ];

    /// The title.
    pub fn title(self) -> &'static str {
        match self {
            Metric::RdmsrExit => "guest RDMSR",
            Metric::WrmsrExit => "guest WRMSR",
            Metric::RdmsrExitFilter1 => "guest RDMSR, filter of 1 range",
            Metric::RdmsrExitFilter16 => "guest RDMSR, filter of 16 ranges",
            Metric::GetMsrsCall => "KVM_GET_MSRS, 1 entry",
            Metric::GetMsrsEntry => "KVM_GET_MSRS, additional entry",
            Metric::SetMsrsCall => "KVM_SET_MSRS, 1 entry",
            Metric::SetMsrsEntry => "KVM_SET_MSRS, additional entry",
            Metric::IndexList => "KVM_GET_MSRS, whole index list",
            Metric::SetFilter1 => "KVM_X86_SET_MSR_FILTER, 1 range",
            Metric::SetFilter16 => "KVM_X86_SET_MSR_FILTER, 16 ranges",
        }
    }

    /// Metrics of a group have the same order of magnitude, and can be compared.
    pub fn group(self) -> u8 {
        match self {
            Metric::RdmsrExit
            | Metric::WrmsrExit
            | Metric::RdmsrExitFilter1
            | Metric::RdmsrExitFilter16 => 0,
            Metric::GetMsrsCall
            | Metric::GetMsrsEntry
            | Metric::SetMsrsCall
            | Metric::SetMsrsEntry => 1,
            Metric::IndexList => 2,
            Metric::SetFilter1 | Metric::SetFilter16 => 3,
        }
    }

    /// Sets up the VM for the metric.
    pub(super) fn prepare(self, subject: &mut Subject) -> Result<()> {
        match self {
            Metric::RdmsrExitFilter1 => set_filter(subject, 1),
            Metric::RdmsrExitFilter16 => set_filter(subject, 16),
            _ => Ok(()),
        }
    }

    /// Undoes it.
    pub(super) fn clean_up(self, subject: &Subject) -> Result<()> {
        match self {
            Metric::RdmsrExitFilter1
            | Metric::RdmsrExitFilter16
            | Metric::SetFilter1
            | Metric::SetFilter16 => set_filter(subject, 0),
            _ => Ok(()),
        }
    }

    /// The number of repetitions per sample.
    pub(super) fn batch(self, subject: &mut Subject, meter: &mut Meter) -> Result<u32> {
        let mut batch = 1u32;

        loop {
            let cost = meter.of(|| self.repeat(subject, batch))?;

            if cost.nanoseconds >= SAMPLE.as_nanos() as f64 || batch >= 1 << 20 {
                return Ok(batch);
            }
            batch *= 2;
        }
    }

    /// Measures one sample.
    pub(super) fn sample(
        self,
        subject: &mut Subject,
        meter: &mut Meter,
        batch: u32,
    ) -> Result<Cost> {
        let cost = meter.of(|| self.repeat(subject, batch))?.per(batch.into());
        let call = match self {
            Metric::GetMsrsEntry => Metric::GetMsrsCall,
            Metric::SetMsrsEntry => Metric::SetMsrsCall,
            _ => return Ok(cost),
        };
        // The same number of calls with one entry takes a fraction of the time.
        let call = meter.of(|| call.repeat(subject, batch))?.per(batch.into());

        Ok(cost.minus(call).per((MAX_ENTRIES - 1) as f64))
    }

    fn repeat(self, subject: &mut Subject, count: u32) -> Result<()> {
        match self {
            Metric::RdmsrExit | Metric::RdmsrExitFilter1 | Metric::RdmsrExitFilter16 => {
                done(READ, subject.scratch.rdmsr_loop(READ, count)?)
            }
            Metric::WrmsrExit => done(WRITE, subject.scratch.wrmsr_loop(WRITE, 0, count)?),
            Metric::GetMsrsCall => get(subject, &[PAT], count),
            Metric::GetMsrsEntry => get(subject, &[PAT; MAX_ENTRIES], count),
            Metric::SetMsrsCall => set(subject, 1, count),
            Metric::SetMsrsEntry => set(subject, MAX_ENTRIES, count),
            Metric::IndexList => get(subject, &subject.listed, count),
            Metric::SetFilter1 => (0..count).try_for_each(|_| set_filter(subject, 1)),
            Metric::SetFilter16 => (0..count).try_for_each(|_| set_filter(subject, 16)),
        }
    }
}

/// Tests that the guest's loop has ended.
fn done(index: u32, outcome: Outcome) -> Result<()> {
    match outcome {
        Outcome::Done => Ok(()),
        outcome => Err(Error::Kvm {
            ioctl: "KVM_RUN",
            source: std::io::Error::other(format!(
                "the guest's access to MSR {index:#x} ended unexpectedly: {outcome:?}"
            )),
        }),
    }
}

fn entries(indices: &[u32]) -> Result<Msrs> {
    let entries: Vec<kvm_msr_entry> = indices
        .iter()
        .map(|&index| kvm_msr_entry {
            index,
            data: PAT_VALUE,
            ..Default::default()
        })
        .collect();

    Msrs::from_entries(&entries).map_err(|error| Error::Io {
        what: "memory for MSRs".to_owned(),
        source: std::io::Error::other(format!("{error:?}")),
    })
}

fn get(subject: &Subject, indices: &[u32], count: u32) -> Result<()> {
    let mut calls = indices
        .chunks(MAX_ENTRIES)
        .map(entries)
        .collect::<Result<Vec<_>>>()?;

    for _ in 0..count {
        for msrs in &mut calls {
            let wanted = msrs.as_slice().len();
            let got = subject
                .scratch
                .vcpu()
                .get_msrs(msrs)
                .map_err(Error::kvm("KVM_GET_MSRS"))?;

            all(got, wanted, "KVM_GET_MSRS")?;
        }
    }
    black_box(calls);
    Ok(())
}

fn set(subject: &Subject, size: usize, count: u32) -> Result<()> {
    let msrs = entries(&vec![PAT; size])?;

    for _ in 0..count {
        let set = subject
            .scratch
            .vcpu()
            .set_msrs(&msrs)
            .map_err(Error::kvm("KVM_SET_MSRS"))?;

        all(set, size, "KVM_SET_MSRS")?;
    }
    Ok(())
}

fn all(done: usize, wanted: usize, ioctl: &'static str) -> Result<()> {
    if done == wanted {
        return Ok(());
    }
    Err(Error::Kvm {
        ioctl,
        source: std::io::Error::other(format!("stopped at entry {done} of {wanted}")),
    })
}

/// A filter that denies all but some ranges, of which the last has the MSR that the guest
/// accesses; no filter if there are no ranges.
fn set_filter(subject: &Subject, count: u32) -> Result<()> {
    let ranges: Vec<MsrFilterRange<'_>> = (0..count)
        .rev()
        .map(|number| MsrFilterRange {
            flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
            base: number * 2 * RANGE_SIZE,
            msr_count: RANGE_SIZE,
            bitmap: &BITMAP,
        })
        .collect();
    let default = if ranges.is_empty() {
        MsrFilterDefaultAction::ALLOW
    } else {
        MsrFilterDefaultAction::DENY
    };

    subject
        .scratch
        .vm()
        .set_msr_filter(default, &ranges)
        .map_err(Error::kvm("KVM_X86_SET_MSR_FILTER"))
}
