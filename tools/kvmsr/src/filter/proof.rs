// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Tests a filter's decisions on KVM, with a guest.

use kvm_ioctls::Cap;
use kvm_ioctls::Kvm;
use serde::Serialize;

use crate::cpuid::Cpuid;
use crate::error::Error;
use crate::error::Result;
use crate::filter::Access;
use crate::filter::Filter;
use crate::filter::TestReport;
use crate::filter::Verdict;
use crate::scratch::Outcome;
use crate::scratch::Reason;
use crate::scratch::Scratch;
use crate::scratch::Setup;

/// The result of a guest's access.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Proof {
    /// The decision of KVM's filter; none if it can't be determined.
    pub verdict: Option<Verdict>,
    /// The result as text.
    pub outcome: String,
}

impl Proof {
    /// Whether KVM decided as expected.
    pub fn agrees(&self, verdict: Verdict) -> bool {
        self.verdict == Some(verdict)
    }
}

/// Sets the filter on a scratch VM, has its guest make each access of the report, and adds the
/// results.
///
/// # Errors
///
/// [`Error::Missing`] if this KVM has no filters, otherwise [`Error::Kvm`].
pub fn prove(kvm: &Kvm, filter: &Filter, report: &mut TestReport) -> Result<()> {
    if !kvm.check_extension(Cap::X86MsrFilter) {
        return Err(Error::Missing(
            "this KVM has no MSR filters (KVM_CAP_X86_MSR_FILTER, Linux 5.10)".to_owned(),
        ));
    }
    let setup = Setup {
        cpuid: Cpuid::supported(kvm)?,
        irqchip: false,
        reasons: true,
    };
    let new = || {
        let scratch = Scratch::new(kvm, &setup)?;

        filter.set(scratch.vm())?;
        Ok::<_, Error>(scratch)
    };
    let mut scratch = new()?;

    for tested in &mut report.accesses {
        let outcome = match tested.access {
            Access::Read => scratch.rdmsr(tested.index.0)?,
            Access::Write => {
                let value = tested.value.map_or(0, |value| value.0);

                scratch.wrmsr(tested.index.0, value)?
            }
        };

        tested.on_kvm = Some(Proof {
            verdict: verdict(&outcome),
            outcome: in_words(&outcome),
        });
        if matches!(outcome, Outcome::Dead(_)) {
            scratch = new()?;
        }
    }
    Ok(())
}

fn verdict(outcome: &Outcome) -> Option<Verdict> {
    match outcome {
        Outcome::Refused(Reason::Filter) => Some(Verdict::Deny),
        // An access that the filter denies exits to user space first, so the filter has allowed
        // the others.
        Outcome::Value(_) | Outcome::Done | Outcome::Refused(_) => Some(Verdict::Allow),
        Outcome::Exception(_) | Outcome::Dead(_) => None,
    }
}

fn in_words(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Value(value) => format!("read {value:#x}"),
        Outcome::Done => "written".to_owned(),
        Outcome::Refused(Reason::Filter) => "denied by the filter".to_owned(),
        Outcome::Refused(Reason::Unknown) => "allowed; KVM does not know the MSR".to_owned(),
        Outcome::Refused(Reason::Invalid) => "allowed; KVM refuses it".to_owned(),
        Outcome::Refused(Reason::Unsaid) => "allowed; the CPU refuses it".to_owned(),
        Outcome::Exception(vector) => format!("exception {vector}"),
        Outcome::Dead(how) => format!("the guest can't continue: {how}"),
    }
}
