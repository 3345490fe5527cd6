// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Makes each allocation and each copy of a call fail in turn.

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use kvm_msr_guest::Errno;
use kvm_msr_guest::ioctl;

use super::injector::Fault;
use super::injector::Injector;

/// More than the number of allocations and copies of any call.
const MOST: u32 = 1000;

/// A call that allocates memory, or accesses user memory.
pub trait Call {
    /// Restores the state that the call changes.
    fn reset(&self) -> Result<()>;
    fn call(&self) -> ioctl::Result<()>;
    /// Whether the state is as [`Self::reset`] left it.
    fn unchanged(&self) -> Result<bool>;
    /// Whether the call copies its results after it has changed the state.
    fn copies_results(&self) -> bool {
        false
    }
    /// Whether the call repeats a copy that failed, in another way.
    fn repeats_copies(&self) -> bool {
        false
    }
}

/// The numbers of faults that a call has seen.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Faults {
    pub allocations: u32,
    pub copies: u32,
}

impl std::ops::Add for Faults {
    type Output = Faults;

    fn add(self, other: Faults) -> Faults {
        Faults {
            allocations: self.allocations + other.allocations,
            copies: self.copies + other.copies,
        }
    }
}

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{}", self.allocations, self.copies)
    }
}

/// Makes the call's first allocation or copy fail, then the second, and so on. If an allocation
/// fails, the call has to succeed without it, or to fail with `ENOMEM` and change nothing. If a copy
/// fails, it has to fail with `EFAULT` and change nothing, unless it [copies its results].
///
/// [copies its results]: Call::copies_results
pub fn each_fails(call: &impl Call) -> Result<Faults> {
    let injector = Injector::new()?;
    let mut faults = Faults::default();

    for nth in 1..=MOST {
        call.reset()?;
        let (result, fault) = injector.nth(nth, || call.call())?;

        match (fault, result) {
            (None, result) => {
                result.context("nothing failed")?;
                return Ok(faults);
            }
            (Some(Fault::Copy), Err(Errno::EFAULT)) => {
                ensure!(
                    call.copies_results() || call.unchanged()?,
                    "copy {nth} failed, but the call changed something"
                );
                faults.copies += 1;
            }
            (Some(Fault::Slab | Fault::Pages), Err(Errno::ENOMEM)) => {
                ensure!(
                    call.unchanged()?,
                    "allocation {nth} failed, but the call changed something"
                );
                faults.allocations += 1;
            }
            // A failed allocation may be harmless: after kmalloc(), the kernel may try vmalloc().
            (Some(Fault::Slab | Fault::Pages), Ok(())) => faults.allocations += 1,
            (Some(Fault::Copy), Ok(())) if call.repeats_copies() => faults.copies += 1,
            (Some(fault), Ok(())) => bail!("{fault:?} {nth} failed, and the call succeeded"),
            (Some(fault), Err(errno)) => bail!("{fault:?} {nth} failed, and the call with {errno}"),
        }
    }
    bail!("more than {MOST} allocations and copies");
}
