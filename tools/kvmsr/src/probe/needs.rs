// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The CPUID bits on which accesses depend, proven with a vCPU that differs only in these.

use serde::Serialize;

use super::Probed;
use super::What;
use super::When;
use super::Who;
use super::pool::Pool;
use crate::access::forbidden;
use crate::catalogue;
use crate::catalogue::Feature;
use crate::catalogue::Initiator;
use crate::cpuid::Cpuid;
use crate::cpuid::Register;
use crate::error::Error;
use crate::error::Result;
use crate::scratch::Outcome;
use crate::scratch::Scratch;
use crate::scratch::Setup;

/// The dependency of an access on CPUID.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Need {
    /// The initiator.
    pub who: Who,
    /// The kind of access.
    pub what: What,
    /// The bits, of which one is needed, e.g. `SPEC_CTRL (CPUID 0x7, 0: EDX bit 26)`.
    pub features: Vec<String>,
    /// Whether the vCPU's CPUID has one of them.
    pub present: bool,
    /// Whether the result is the opposite on a vCPU whose CPUID lacks all of them, or has one;
    /// none if KVM refuses such a vCPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proven: Option<bool>,
}

/// The dependencies of an MSR, with proof.
pub(super) fn of(pool: &Pool<'_>, probed: &Probed) -> Result<Vec<Need>> {
    let mut needs = Vec::new();

    for (who, by) in [(Who::User, Initiator::Host), (Who::Guest, Initiator::Guest)] {
        for what in [What::Read, What::Write] {
            let features = catalogue::needs(probed.index.0, what == What::Write, by);

            if features.is_empty() {
                continue;
            }
            let cpuid = &pool.setup().cpuid;
            let present = features.iter().any(|feature| has(cpuid, feature));

            needs.push(Need {
                who,
                what,
                present,
                proven: prove(pool, probed, (who, what), &features, present)?,
                features: features.iter().map(text).collect(),
            });
        }
    }
    Ok(needs)
}

fn has(cpuid: &Cpuid, feature: &Feature) -> bool {
    let register = cpuid.register(feature.function, feature.index, feature.register);

    register.checked_shr(feature.bit.into()).unwrap_or(0) & 1 != 0
}

fn text(feature: &Feature) -> String {
    let register = match feature.register {
        Register::Eax => "EAX",
        Register::Ebx => "EBX",
        Register::Ecx => "ECX",
        Register::Edx => "EDX",
    };

    format!(
        "{} (CPUID {:#x}, {}: {register} bit {})",
        feature.name, feature.function, feature.index, feature.bit
    )
}

/// Makes the access on vCPUs with the opposite bits.
fn prove(
    pool: &Pool<'_>,
    probed: &Probed,
    (who, what): (Who, What),
    features: &[Feature],
    present: bool,
) -> Result<Option<bool>> {
    // To remove the feature, all bits must go; to add it, one is enough.
    let changes: Vec<&[Feature]> = if present {
        vec![features]
    } else {
        features.chunks(1).collect()
    };
    let when = match who {
        Who::User => When::BeforeRun,
        Who::Guest => When::AfterRun,
    };
    let usual = probed
        .access(who, when)
        .is_some_and(|access| access.allows(what));
    let mut proven = None;

    for change in changes {
        let mut setup = pool.setup().clone();

        for feature in change {
            setup.cpuid.set_bit(
                feature.function,
                feature.index,
                feature.register,
                feature.bit,
                !present,
            );
        }
        let Some(allowed) = allowed(pool, &setup, probed, who, what)? else {
            continue;
        };

        proven = Some(proven.unwrap_or(false) || allowed != usual);
    }
    Ok(proven)
}

/// Makes the access on a vCPU with another setup; none if KVM refuses its CPUID.
fn allowed(
    pool: &Pool<'_>,
    setup: &Setup,
    probed: &Probed,
    who: Who,
    what: What,
) -> Result<Option<bool>> {
    let index = probed.index.0;
    let mut scratch = match Scratch::new(pool.kvm(), setup) {
        Ok(scratch) => scratch,
        Err(Error::Kvm { .. } | Error::Input(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let value = probed
        .access(who, When::AfterRun)
        .and_then(|access| access.value)
        .map_or(0, |value| value.0);

    Ok(Some(match (who, what) {
        (Who::User, What::Read) => scratch.get(index)?.is_some(),
        (Who::User, What::Write) => scratch.set(index, value)?,
        (Who::Guest, What::Read) => matches!(scratch.rdmsr(index)?, Outcome::Value(_)),
        (Who::Guest, What::Write) => {
            if forbidden(setup, index, value).is_some() {
                return Ok(None);
            }
            scratch.wrmsr(index, value)? == Outcome::Done
        }
    }))
}
