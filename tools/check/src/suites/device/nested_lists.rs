// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Policies, learning and the filter in the MSR lists of nested VM-entry and VM-exit, which only VMX
//! has.
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
use super::setup::guest;
use super::setup::learn;
use super::setup::learned;
use super::setup::set_policy;
use crate::suites::filter_guest::NOBODY;

/// The tests of this file, if the host has VMX.
pub const TESTS: &[(&str, Test)] = &[
    ("each action in nested lists", each_action),
    ("a filter in nested lists", filters),
    ("learning accesses of nested lists", learning),
];

/// Whether the host has VMX.
pub fn possible() -> bool {
    Kvm::new()
        .map_err(Into::into)
        .and_then(|kvm| Vendor::of(&kvm))
        .is_ok_and(|vendor| vendor == Vendor::Vmx)
}

const STAR: u32 = 0xc000_0081;
const PAT: u32 = 0x277;
/// Write-only, so reads are invalid.
const PRED_CMD: u32 = 0x49;
/// KVM has no such MSR.
const UNKNOWN: u32 = 0x1234;
const INDICES: [u32; 5] = [STAR, PAT, PRED_CMD, UNKNOWN, NOBODY];

/// Bits that rules let writes change.
const MASK: u64 = 0x0000_0000_00ff_00ff;
/// An invalid value of PAT; one that [`MASK`] allows for STAR; and one that it allows for PAT.
const VALUES: [u64; 3] = [0x0004_0402, 0x0007_0006, 0x0007_0406_0001_0404];

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

        for action in uapi::ALLOW..=uapi::MATCH {
            for when in [uapi::ALWAYS, uapi::UNSUPPORTED] {
                let needs_value = matches!(action, uapi::MASK | uapi::MATCH);
                if needs_value && when != uapi::ALWAYS {
                    continue;
                }
                let value = match action {
                    uapi::CONSTANT => 0x1122_3344_5566_7788,
                    uapi::MASK | uapi::MATCH => MASK,
                    _ => 0,
                };
                let access = if needs_value { WRITE } else { READ | WRITE };
                let rules = vec![Rule::new(index, index, access, when, action, value)];

                for &(reasons, ignore_msrs) in settings {
                    let model = Model {
                        rules: rules.clone(),
                        ignore_msrs,
                        ..Default::default()
                    };

                    for list in LISTS {
                        compared +=
                            each_value(&model, reasons, list, index).with_context(|| {
                                format!("{list:?} of {index:#x}, {:x?}", model.rules)
                            })?;
                    }
                }
            }
        }
    }
    Ok(format!("{compared} accesses"))
}

/// Makes an access with each value, and compares it with the model. `reasons` are the exits to user
/// space that are enabled, and must not matter.
fn each_value(model: &Model, reasons: u32, list: List, index: u32) -> Result<u32> {
    let values = match list.access() {
        Access::Read => &VALUES[..1],
        Access::Write => &VALUES,
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
    for index in INDICES {
        for denied in [filter::READ, filter::WRITE, filter::READ | filter::WRITE] {
            let filter = Filter::allow_by_default().with(Range::deny(denied, index, 1));

            for list in LISTS {
                let see = |engine, filter: &Filter| -> Result<(Seen, Option<u64>)> {
                    let mut nested = nested(engine, list, index, VALUES[1])?;

                    enable_exits(&nested, ALL_REASONS)?;
                    filter.set(nested.vm())?;
                    let seen = make(&mut nested, list)?;
                    Ok((seen, msrs::get(nested.vcpu(), index)?))
                };
                let by_c = see(Engine::C, &filter)?;
                let by_engine = see(Engine::Rust, &filter)?;

                ensure!(
                    by_c == by_engine,
                    "{list:?} of {index:#x} under {filter:?}: C {by_c:x?}, engine {by_engine:x?}"
                );
                ensure!(
                    filter.allows(list.access(), index) || by_engine.0 == Seen::Gp,
                    "{list:?} of {index:#x} under {filter:?}: {}",
                    by_engine.0
                );
            }
        }
    }
    Ok(String::new())
}

fn learning() -> Result<String> {
    for (list, index, expected) in [
        (List::EntryLoad, STAR, 0),
        (List::ExitStore, STAR, 0),
        (List::ExitLoad, STAR, 0),
        (
            List::EntryLoad,
            NOBODY,
            uapi::LEARNED_UNSUPPORTED | uapi::LEARNED_DENIED,
        ),
    ] {
        let data = VALUES[1];
        let mut nested = nested(Engine::Rust, list, index, data)?;
        let device = Device::attached(nested.vm(), RIGHTS)?;

        learn(&device, uapi::START)?;
        let seen = make(&mut nested, list)?;
        let records = learned(&device)?;
        let record = records
            .iter()
            .find(|record| record.index == index)
            .with_context(|| format!("{list:?} of {index:#x} is not learned: {records:x?}"))?;
        let accesses = match list.access() {
            Access::Read => (1, 0),
            Access::Write => (0, 1),
        };
        let value = match seen {
            Seen::Value(value) => value,
            _ => data,
        };

        ensure!(
            record.paths == uapi::PATH_NESTED
                && (record.reads, record.writes) == accesses
                && record.flags == expected | uapi::LEARNED_VALUE
                && record.last == value,
            "{list:?} of {index:#x}: {record:x?}"
        );
    }
    Ok(String::new())
}
