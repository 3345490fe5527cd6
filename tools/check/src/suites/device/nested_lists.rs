// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Policies, learning and the filter in the MSR lists of nested VM-entry and VM-exit, which only VMX
//! has.
//!
//! KVM answers one access without asking anyone: IA32_TSC in the list that VM-exit stores has the value
//! that the CPU stored at L2's VM-exit.
//!
//! An access that is denied in such a list is never an exit to user space. In the list of VM-entry,
//! L1 gets a VM-exit instead of L2's first instruction; in those of VM-exit, L1 is shut down.

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use kvm_bindings::KVM_CAP_X86_USER_SPACE_MSR;
use kvm_bindings::KVM_EXIT_SHUTDOWN;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Access;
use kvm_msr_guest::Device;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Range;
use kvm_msr_guest::device::uapi;
use kvm_msr_guest::device::uapi::Learned;
use kvm_msr_guest::device::uapi::READ;
use kvm_msr_guest::device::uapi::RIGHTS;
use kvm_msr_guest::device::uapi::Rule;
use kvm_msr_guest::device::uapi::WRITE;
use kvm_msr_guest::filter;
use kvm_msr_guest::ioctl;
use kvm_msr_guest::msrs;
use kvm_msr_guest::nested::MsrLists;
use kvm_msr_guest::nested::Nested;
use kvm_msr_guest::nested::Options;
use kvm_msr_guest::nested::Stop;
use kvm_msr_guest::nested::Vendor;

use super::Test;
use super::model;
use super::model::ALL_REASONS;
use super::model::IgnoreMsrs;
use super::model::Model;
use super::model::Seen;
use super::model::Step;
use super::model::policies;
use super::setup::guest;
use super::setup::learn;
use super::setup::learned;
use super::setup::set_policy;
use super::stats;
use super::stats::Counts;
use crate::suites::filter_guest::NOBODY;

/// The tests of this file, if the host has VMX.
pub const TESTS: &[(&str, Test)] = &[
    ("each action in nested lists", each_action),
    ("a filter in nested lists", filters),
    ("learning accesses of nested lists", learning),
    ("statistics of nested lists", statistics),
    ("the TSC in nested lists", tsc),
];

/// Whether the host has SVM. Without nested virtualisation, the tests fail and say so.
pub fn impossible() -> bool {
    Kvm::new()
        .map_err(Into::into)
        .and_then(|kvm| Vendor::of(&kvm))
        .is_ok_and(|vendor| vendor == Vendor::Svm)
}

const STAR: u32 = 0xc000_0081;
const PAT: u32 = 0x277;
/// Write-only, so reads are invalid.
const PRED_CMD: u32 = 0x49;
/// KVM has no such MSR, nor [`NOBODY`]. This one is in a page with MSRs, for which policies have a
/// bitmap. The other one is not, so the rules are searched.
const UNKNOWN: u32 = 0x1234;
const INDICES: [u32; 5] = [STAR, PAT, PRED_CMD, UNKNOWN, NOBODY];
const TSC: u32 = 0x10;

/// A value of both STAR and PAT. [`MASK`](model::MASK) allows it for STAR.
const VALUE: u64 = 0x0007_0006;
/// With an invalid value of PAT, and one that the mask allows for PAT.
const VALUES: [u64; 3] = [VALUE, 0x0004_0402, 0x0007_0406_0001_0404];

/// A list of vmcs12.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum List {
    EntryLoad,
    ExitStore,
    ExitLoad,
}

const LISTS: [List; 3] = [List::EntryLoad, List::ExitStore, List::ExitLoad];

impl List {
    fn access(self) -> Access {
        match self {
            List::ExitStore => Access::Read,
            List::EntryLoad | List::ExitLoad => Access::Write,
        }
    }

    /// Lists of which only this one has an entry.
    fn with(self, index: u32, data: u64) -> MsrLists {
        let mut lists = MsrLists::default();
        let list = match self {
            List::EntryLoad => &mut lists.entry_load,
            List::ExitStore => &mut lists.exit_store,
            List::ExitLoad => &mut lists.exit_load,
        };

        list.push((index, data));
        lists
    }
}

/// A guest whose vmcs12 has one MSR in one list.
fn nested(engine: Engine, list: List, index: u32, data: u64) -> Result<Nested> {
    let kvm = Kvm::new().context("open /dev/kvm")?;

    Nested::with_lists(&kvm, Options::new(engine), &list.with(index, data))
}

/// Runs L1 until the list has been used. Returns what became of the access, where [`Seen::Gp`] is
/// any denial.
fn make(nested: &mut Nested, list: List) -> Result<Seen> {
    nested.run_to(Stop::Loaded)?;
    let entered = nested.run()?;
    if list == List::EntryLoad {
        return match entered {
            Stop::L2 => Ok(Seen::Done),
            stop if stop == Nested::FAILED_MSR_LOAD => Ok(Seen::Gp),
            stop => bail!("{stop} after VM-entry"),
        };
    }
    ensure!(entered == Stop::L2, "{entered} instead of L2");

    let exit = nested.exit_to_l1();
    loop {
        match nested.run()? {
            Stop::L2 => (),
            Stop::Exit(KVM_EXIT_SHUTDOWN) => return Ok(Seen::Gp),
            stop if stop != exit => bail!("{stop} instead of a VM-exit"),
            _ => break,
        }
    }
    Ok(match list {
        List::ExitStore => Seen::Value(nested.stored()),
        List::EntryLoad | List::ExitLoad => Seen::Done,
    })
}

fn each_action() -> Result<String> {
    let mut compared = 0;

    for index in INDICES {
        // Exits to user space that are enabled, and ignore_msrs.
        let settings: &[_] = match index {
            UNKNOWN | NOBODY => &[(ALL_REASONS, false), (0, true)],
            _ => &[(ALL_REASONS, false)],
        };

        for rules in policies(index) {
            for &(reasons, ignore_msrs) in settings {
                let model = Model {
                    rules: rules.clone(),
                    ignore_msrs,
                    ..Default::default()
                };

                for list in LISTS {
                    compared += each_value(&model, reasons, list, index)
                        .with_context(|| format!("{list:?} of {index:#x}, {rules:x?}"))?;
                }
            }
        }
    }
    Ok(format!("{compared} accesses"))
}

/// Makes an access with each value, and compares it with the model. `reasons` are the exits to user
/// space that are enabled, and must not matter.
fn each_value(model: &Model, reasons: u32, list: List, index: u32) -> Result<u32> {
    let needs_value = |rule: &Rule| model::needs_value(rule.action);
    let is_checked = model.rules.is_empty() || model.rules.iter().any(needs_value);
    let values = match list.access() {
        Access::Write if is_checked => &VALUES[..],
        _ => &[VALUE],
    };

    for &data in values {
        let by_c = guest(Engine::C)?;
        let mut kvm = model::Kvm::new(by_c)?;
        let expected = model.see(
            &mut kvm,
            Step {
                access: list.access(),
                emulated: false,
                index,
                data,
            },
        )?;
        let mut nested = nested(Engine::Rust, list, index, data)?;
        let device = Device::attached(nested.vm(), RIGHTS)?;

        enable_exits(&nested, reasons)?;
        set_policy(&device, &model.rules)?;
        let seen = {
            let _ignored = IgnoreMsrs::new(model.ignore_msrs)?;

            make(&mut nested, list)?
        };
        ensure!(
            seen == expected,
            "{data:#x}, exits for reasons {reasons}, ignore_msrs {}: {seen} instead of {expected}",
            model.ignore_msrs
        );
        ensure!(
            msrs::get(nested.vcpu(), index)? == msrs::get(kvm.vcpu(), index)?,
            "after {data:#x}, the MSR's values differ"
        );
    }
    Ok(values.len() as u32)
}

fn enable_exits(nested: &Nested, reasons: u32) -> Result<()> {
    ioctl::enable_cap(nested.vm(), KVM_CAP_X86_USER_SPACE_MSR, 0, reasons.into())
        .map(|_| ())
        .context("KVM_ENABLE_CAP of KVM_CAP_X86_USER_SPACE_MSR")
}

fn filters() -> Result<String> {
    for index in [STAR, PAT, UNKNOWN, NOBODY] {
        // Without the filter, all accesses succeed.
        let _ignored = IgnoreMsrs::new(true)?;

        for denied in [filter::READ, filter::WRITE, filter::READ | filter::WRITE] {
            let filter = Filter::allow_by_default().with(Range::deny(denied, index, 1));

            for list in LISTS {
                filtered(&filter, list, index)
                    .with_context(|| format!("{list:?} of {index:#x} under {filter:x?}"))?;
            }
        }
    }
    Ok(String::new())
}

/// The filter decides, on C as on the engine, and a rule that lets the access succeed does not matter.
fn filtered(filter: &Filter, list: List, index: u32) -> Result<()> {
    let ignore = Rule::new(index, index, READ | WRITE, uapi::ALWAYS, uapi::IGNORE, 0);
    let see = |engine, rules: &[Rule]| -> Result<(Seen, Option<u64>)> {
        let mut nested = nested(engine, list, index, VALUE)?;

        enable_exits(&nested, ALL_REASONS)?;
        filter.set(nested.vm())?;
        if !rules.is_empty() {
            set_policy(&Device::attached(nested.vm(), RIGHTS)?, rules)?;
        }
        let seen = make(&mut nested, list)?;
        Ok((seen, msrs::get(nested.vcpu(), index)?))
    };
    let by_c = see(Engine::C, &[])?;
    let by_engine = see(Engine::Rust, &[])?;
    let under_rule = see(Engine::Rust, &[ignore])?.0;
    let is_allowed = filter.allows(list.access(), index);

    ensure!(by_c == by_engine, "C {by_c:x?}, engine {by_engine:x?}");
    for (seen, rule) in [(by_engine.0, "no rule"), (under_rule, "IGNORE")] {
        ensure!(is_allowed == (seen != Seen::Gp), "{seen} with {rule}");
    }
    Ok(())
}

fn learning() -> Result<String> {
    let denied = uapi::LEARNED_DENIED;
    let unsupported = uapi::LEARNED_UNSUPPORTED | denied;
    let deny = [Rule::new(STAR, STAR, WRITE, uapi::ALWAYS, uapi::GP, 0)];

    for (list, index, rules, flags) in [
        (List::EntryLoad, STAR, &[][..], 0),
        (List::ExitStore, STAR, &[], 0),
        (List::ExitLoad, STAR, &[], 0),
        (List::EntryLoad, NOBODY, &[], unsupported),
        (List::ExitStore, NOBODY, &[], unsupported),
        (List::ExitLoad, NOBODY, &[], unsupported),
        (List::EntryLoad, STAR, &deny, denied),
        (List::ExitLoad, STAR, &deny, denied),
    ] {
        const OLD: u64 = 0x1234;
        let mut nested = nested(Engine::Rust, list, index, VALUE)?;
        let device = Device::attached(nested.vm(), RIGHTS)?;

        if index == STAR {
            ensure!(msrs::set(nested.vcpu(), STAR, OLD)?, "STAR is not written");
        }
        set_policy(&device, rules)?;
        learn(&device, uapi::START)?;
        make(&mut nested, list)?;

        let mut expected = Learned {
            index,
            flags,
            paths: uapi::PATH_NESTED,
            ..Default::default()
        };
        let value = match (list.access(), index) {
            (Access::Read, STAR) => Some(OLD),
            (Access::Read, _) => None,
            (Access::Write, _) => Some(VALUE),
        };

        match list.access() {
            Access::Read => expected.reads = 1,
            Access::Write => expected.writes = 1,
        }
        if let Some(value) = value {
            expected.flags |= uapi::LEARNED_VALUE;
            expected.first = value;
            expected.last = value;
        }
        if list.access() == Access::Write && flags == 0 {
            expected.changed = OLD ^ VALUE;
        }
        let records = learned(&device)?;
        ensure!(
            records == [expected],
            "{list:?} of {index:#x}: {records:x?} instead of {expected:x?}"
        );
    }
    Ok(String::new())
}

fn statistics() -> Result<String> {
    for (list, index, unsupported) in [
        (List::EntryLoad, STAR, 0),
        (List::ExitStore, STAR, 0),
        (List::ExitLoad, STAR, 0),
        (List::ExitLoad, NOBODY, 1),
    ] {
        let mut nested = nested(Engine::Rust, list, index, VALUE)?;
        let device = Device::attached(nested.vm(), RIGHTS)?;
        let access = match list.access() {
            Access::Read => READ,
            Access::Write => WRITE,
        };

        stats::start_or_stop(&device, uapi::START)?;
        make(&mut nested, list)?;
        let counts = Counts {
            count: 1,
            unsupported,
            ..Default::default()
        };
        stats::has(&device, &[(index, access, counts)])
            .with_context(|| format!("{list:?} of {index:#x}"))?;
    }
    Ok(String::new())
}

/// Neither a filter nor a rule is asked for IA32_TSC in the list that VM-exit stores; they are for the
/// other lists.
fn tsc() -> Result<String> {
    let filter = Filter::allow_by_default().with(Range::deny(filter::READ, TSC, 1));
    let deny = [Rule::new(TSC, TSC, READ, uapi::ALWAYS, uapi::GP, 0)];

    for engine in [Engine::C, Engine::Rust] {
        let mut nested = nested(engine, List::ExitStore, TSC, 0)?;

        filter.set(nested.vm())?;
        if engine == Engine::Rust {
            let device = Device::attached(nested.vm(), RIGHTS)?;

            set_policy(&device, &deny)?;
        }
        match make(&mut nested, List::ExitStore)? {
            Seen::Value(value) if value != 0 => (),
            seen => bail!("{engine}: {seen}"),
        }
    }
    let mut nested = nested(Engine::Rust, List::ExitLoad, TSC, 0)?;
    let device = Device::attached(nested.vm(), RIGHTS)?;

    set_policy(
        &device,
        &[Rule::new(TSC, TSC, WRITE, uapi::ALWAYS, uapi::GP, 0)],
    )?;
    let seen = make(&mut nested, List::ExitLoad)?;
    ensure!(seen == Seen::Gp, "{seen} in spite of the rule");
    Ok(String::new())
}
