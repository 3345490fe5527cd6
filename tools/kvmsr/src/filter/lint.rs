// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Finds likely mistakes in a filter.

use std::fmt;

use serde::Serialize;

use crate::filter::Access;
use crate::filter::Filter;
use crate::filter::Flags;
use crate::filter::Guest;
use crate::filter::Policy;
use crate::filter::Range;
use crate::filter::Rule;
use crate::filter::Rules;
use crate::filter::Run;
use crate::filter::Runs;
use crate::filter::Source;
use crate::filter::Verdict;
use crate::filter::X2APIC;
use crate::filter::compile;
use crate::filter::compile_rules;
use crate::filter::linux;
use crate::filter::msrs;
use crate::filter::ranges::words;
use crate::snapshot::SCHEMA;

/// A write that KVM 7.3 performs without checking the filter.
const TSC_DEADLINE: u32 = 0x6e0;

/// The output of `kvmsr filter lint`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LintReport {
    /// [`SCHEMA`]
    pub schema: u32,
    /// The findings, the worst first.
    pub findings: Vec<Finding>,
}

/// One finding.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Finding {
    /// Its severity.
    pub severity: Severity,
    /// Its kind, for programs: a word that does not change.
    pub kind: &'static str,
    /// The range or rule.
    pub place: Option<String>,
    /// The finding.
    pub what: String,
    /// Its consequence.
    pub why: String,
    /// The advice.
    pub advice: String,
}

/// The severity of a finding.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// KVM refuses the filter, or the guest does not boot.
    Error,
    /// KVM's decisions differ from the filter's text.
    Warning,
    /// The filter could be simpler.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        })
    }
}

/// Checks rules or a filter.
pub fn lint(source: &Source, guest: Guest) -> LintReport {
    let mut findings = match source {
        Source::Rules(rules) => of_rules(rules, guest),
        Source::Filter(filter) => of_filter(filter, guest),
    };

    findings.sort_by_key(|finding| finding.severity);
    LintReport {
        schema: SCHEMA,
        findings,
    }
}

fn of_rules(rules: &Rules, guest: Guest) -> Vec<Finding> {
    let mut findings = Vec::new();
    let impossible = |kind, what: String| Finding {
        severity: Severity::Error,
        kind,
        place: None,
        what,
        why: "these rules can't be compiled".to_owned(),
        advice: "change the lines that are named; see 'kvmsr filter compile'".to_owned(),
    };
    let policy = match rules.policy() {
        Ok(policy) => policy,
        Err(error) => return vec![impossible("impossible", error.to_string())],
    };

    if let Err(refused) = compile_rules(rules, &policy) {
        findings.push(impossible("too-many-ranges", refused.why));
    }
    let mut said = [Runs::default(), Runs::default()];

    for (number, rule) in rules.rules.iter().enumerate() {
        let place = Some(rule.place.to_string());

        if let Some(part) = rule.msrs.within(X2APIC).next() {
            findings.push(x2apic(rule.place.to_string(), part, rule.verdict));
        }
        if rule.verdict == rules.default {
            findings.push(Finding {
                severity: Severity::Note,
                kind: "as-default",
                place,
                what: format!("it has {}, like the default", rule.verdict),
                why: "the filter is the same without it".to_owned(),
                advice: "remove it, or make it a comment".to_owned(),
            });
        } else if number < LOOKED_BACK && !adds(rule, &mut said) {
            findings.push(Finding {
                severity: Severity::Note,
                kind: "said-before",
                place,
                what: "the rules before it have the same effect".to_owned(),
                why: "the filter is the same without it".to_owned(),
                advice: "remove it".to_owned(),
            });
        }
    }
    findings.extend(of_policy(&policy, guest));
    findings
}

/// The maximum number of rules that are compared with the rules before them, which takes quadratic
/// time.
const LOOKED_BACK: usize = 4096;

/// Adds a rule's MSRs to those of the rules before it, for either access; false if they have all
/// of them already.
fn adds(rule: &Rule, said: &mut [Runs; 2]) -> bool {
    let mut adds = false;

    for (access, said) in Access::ALL.into_iter().zip(said) {
        if rule.flags.has(access) && !rule.msrs.without(said).is_empty() {
            *said = said.union(&rule.msrs);
            adds = true;
        }
    }
    adds
}

fn of_filter(filter: &Filter, guest: Guest) -> Vec<Finding> {
    let refusals = filter.refusals();

    if !refusals.is_empty() {
        return refusals
            .into_iter()
            .map(|(number, why)| Finding {
                severity: Severity::Error,
                kind: "refused",
                place: number.map(|number| format!("range {number}")),
                what: why,
                why: "KVM_X86_SET_MSR_FILTER fails with EINVAL, or reads beyond the bitmap"
                    .to_owned(),
                advice: "correct this first; the rest is checked then".to_owned(),
            })
            .collect();
    }
    let policy = filter.policy();
    let mut findings = Vec::new();

    for (number, range) in filter.ranges.iter().enumerate() {
        findings.extend(of_range(filter, &policy, number, range));
    }
    let used = filter
        .ranges
        .iter()
        .filter(|range| range.nmsrs != 0)
        .count();

    if let Ok(least) = compile(&policy)
        && least.ranges.len() < used
    {
        findings.push(Finding {
            severity: Severity::Note,
            kind: "could-share",
            place: None,
            what: format!(
                "{} would be enough, but there are {used}",
                count(least.ranges.len(), "range")
            ),
            why:
                "a range can contain MSRs that are not adjacent, each with its own bit, and there \
                  are at most 16 ranges"
                    .to_owned(),
            advice: "compile it again: 'kvmsr filter compile' reads this file, too".to_owned(),
        });
    }
    findings.extend(of_policy(&policy, guest));
    findings
}

fn of_range(filter: &Filter, policy: &Policy, number: usize, range: &Range) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |severity, kind, what: String, why: &str, advice: String| {
        findings.push(Finding {
            severity,
            kind,
            place: Some(format!("range {number}")),
            what,
            why: why.to_owned(),
            advice,
        });
    };
    let Some(run) = range.run() else {
        if range.nmsrs == 0 {
            found(
                Severity::Warning,
                "empty",
                "it has no MSR".to_owned(),
                "KVM skips it, whatever its flags are",
                "set nmsrs, or remove it".to_owned(),
            );
        } else {
            found(
                Severity::Warning,
                "wraps",
                format!(
                    "{} MSRs from {} on end beyond the last index",
                    range.nmsrs, range.base
                ),
                "KVM computes the end in 32 bits; it wraps around to below the base, and the range \
                 matches nothing",
                "let it end at 0xfffffffe or below".to_owned(),
            );
        }
        return findings;
    };
    let (bytes, read) = (range.bitmap.0.len(), words(range.nmsrs));

    if bytes > read {
        found(
            Severity::Warning,
            "bitmap-too-long",
            format!("its bitmap has {bytes} bytes, of which KVM reads {read}"),
            "the MSRs of the other bytes are not in the range",
            "make nmsrs the number of MSRs, i.e. of bits, or shorten the bitmap".to_owned(),
        );
    } else if bytes < read {
        found(
            Severity::Note,
            "bitmap-not-whole-words",
            format!(
                "its bitmap has {}, but KVM reads {read}",
                count(bytes, "byte")
            ),
            "KVM reads words of 64 bits, so it can fail with EFAULT at the end of memory; kvmsr pads it",
            format!("make it {read} bytes"),
        );
    }
    let meant: u64 = u64::from(range.nmsrs);
    let beyond = (meant..8 * bytes.min(read) as u64)
        .filter_map(|bit| u32::try_from(bit).ok())
        .filter(|&bit| range.bitmap.get(bit))
        .count();

    if beyond > 0 {
        found(
            Severity::Warning,
            "bits-beyond-nmsrs",
            format!("{} set beyond its MSRs", count(beyond, "bit")),
            "the range ends with nmsrs; the MSRs after it are not in the range",
            "make nmsrs larger, or clear the bits".to_owned(),
        );
    }
    if let Some(part) = run.cut(X2APIC) {
        let denied = Runs::from(part).without(&range.ones());

        if let Some(first) = denied.iter().next() {
            let denied = Run {
                first: first.first,
                last: denied.iter().last().unwrap_or(first).last,
            };

            findings.push(x2apic(format!("range {number}"), denied, Verdict::Deny));
            return of_shadows(filter, policy, number, range, run, findings);
        }
        if part == run {
            findings.push(x2apic(format!("range {number}"), part, Verdict::Allow));
            return findings;
        }
    }
    of_shadows(filter, policy, number, range, run, findings)
}

/// Finds ranges whose MSRs earlier ranges decide.
fn of_shadows(
    filter: &Filter,
    policy: &Policy,
    number: usize,
    range: &Range,
    run: Run,
    mut findings: Vec<Finding>,
) -> Vec<Finding> {
    let place = Some(format!("range {number}"));
    let before = |access: Access| -> Runs {
        filter
            .ranges
            .iter()
            .take(number)
            .filter(|other| other.flags.has(access))
            .filter_map(Range::run)
            .collect()
    };
    let accesses: Vec<Access> = range.flags.accesses().collect();
    let idle: Vec<Access> = accesses
        .iter()
        .copied()
        .filter(|&access| Runs::from(run).without(&before(access)).is_empty())
        .collect();

    if idle.len() == accesses.len() {
        findings.push(Finding {
            severity: Severity::Warning,
            kind: "shadowed",
            place,
            what: "earlier ranges have all of its MSRs".to_owned(),
            why: "the first range that matches decides, so this one never does".to_owned(),
            advice: "put it before them, or remove it".to_owned(),
        });
        return findings;
    }
    if let Some(access) = idle.first() {
        findings.push(Finding {
            severity: Severity::Warning,
            kind: "shadowed",
            place: place.clone(),
            what: format!("earlier ranges have all of its MSRs for {access}"),
            why: format!(
                "the first range that matches decides, so this one never decides a {access}"
            ),
            advice: format!("put it before them, or remove {access} from its flags"),
        });
    }
    // If another range decides one access, the bit is for the other access. If others decide all
    // accesses, and all differently from the bit, the bit is misleading.
    let mut dead = Runs::from(run).without(&X2APIC.into());

    for &access in &accesses {
        let ones = range.ones();
        let exceptions = policy.exceptions(access);
        let allowed = match policy.default() {
            Verdict::Allow => Runs::from(run).without(exceptions),
            Verdict::Deny => exceptions.intersection(&run.into()),
        };
        let differs = ones.without(&allowed).union(&allowed.without(&ones));

        dead = dead.intersection(&before(access)).intersection(&differs);
    }
    if !dead.is_empty() {
        findings.push(Finding {
            severity: Severity::Warning,
            kind: "partly-shadowed",
            place: place.clone(),
            what: format!("earlier ranges decide {dead}, and differently"),
            why: "the first range that matches decides".to_owned(),
            advice: "put it before them, or set the bits to the same decision".to_owned(),
        });
    }
    let mut without = filter.clone();

    without.ranges.remove(number);
    // A filter that denies everything has a range because KVM requires one.
    if without.policy() == *policy && (filter.ranges.len() > 1 || filter.default == Verdict::Allow)
    {
        findings.push(Finding {
            severity: Severity::Note,
            kind: "useless",
            place,
            what: "the filter has the same effect without it".to_owned(),
            why: "the default or a later range decides all of its MSRs in the same way".to_owned(),
            advice: "remove it".to_owned(),
        });
    }
    findings
}

fn of_policy(policy: &Policy, guest: Guest) -> Vec<Finding> {
    let mut findings = Vec::new();

    if policy.verdict(Access::Write, TSC_DEADLINE) == Verdict::Deny {
        findings.push(Finding {
            severity: Severity::Note,
            kind: "fastpath",
            place: None,
            what: format!("writes of {} are denied", named(Run::one(TSC_DEADLINE))),
            why: "KVM (at least 7.3) handles them in its fastpath, which does not check the filter; AMD \
                  CPUs without NRIPS have no fastpath"
                .to_owned(),
            advice: "hide TSC_DEADLINE_TIMER in the guest's CPUID to deny the timer"
                .to_owned(),
        });
    }
    if guest == Guest::Linux {
        for need in linux::NEEDS {
            findings.extend(of_need(policy, need));
        }
    }
    findings
}

fn of_need(policy: &Policy, need: &linux::Need) -> Option<Finding> {
    let denied = |access| -> Runs {
        let exceptions = policy.exceptions(access).intersection(&need.msrs.into());

        match policy.default() {
            Verdict::Allow => exceptions,
            Verdict::Deny => Runs::from(need.msrs).without(&exceptions),
        }
    };
    let lacking: Vec<(Access, Runs)> = need
        .flags
        .accesses()
        .map(|access| (access, denied(access)))
        .filter(|(_, denied)| !denied.is_empty())
        .collect();
    let flags = Flags(
        lacking
            .iter()
            .fold(0, |flags, (access, _)| flags | Flags::from(*access).0),
    );
    let verb = match flags {
        Flags::READ => "reads",
        Flags::WRITE => "writes",
        Flags::BOTH => "reads and writes",
        _ => return None,
    };
    let runs: Runs = lacking.iter().flat_map(|(_, runs)| runs.iter()).collect();
    let msrs: Vec<String> = runs.iter().map(named).collect();

    Some(Finding {
        severity: need.severity,
        kind: "linux",
        place: None,
        what: format!("{verb} of {} are denied", msrs.join(" ")),
        why: format!(
            "Linux makes them {}; if they fail, {} ({})",
            need.when, need.then, need.source
        ),
        advice: "allow them, or answer them in user space (KVM_MSR_EXIT_REASON_FILTER)".to_owned(),
    })
}

fn x2apic(place: String, run: Run, verdict: Verdict) -> Finding {
    let what = match verdict {
        Verdict::Deny => format!("{run} stays allowed"),
        Verdict::Allow => format!("{run} does not need a rule"),
    };

    Finding {
        severity: match verdict {
            Verdict::Deny => Severity::Warning,
            Verdict::Allow => Severity::Note,
        },
        kind: "x2apic",
        place: Some(place),
        what,
        why: format!("KVM never filters x2APIC MSRs ({X2APIC})"),
        advice: match verdict {
            Verdict::Deny => "leave them out, and hide x2APIC in the guest's CPUID to deny them",
            Verdict::Allow => "leave them out",
        }
        .to_owned(),
    }
}

fn named(run: Run) -> String {
    match msrs::name(run.first) {
        Some(name) if run.first == run.last => format!("{run} ({name})"),
        _ => run.to_string(),
    }
}

fn count(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
