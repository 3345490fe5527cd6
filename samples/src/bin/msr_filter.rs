// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A guest reads and writes MSRs under a filter, and each access is explained.
//!
//! What a VMM can do with KVM_X86_SET_MSR_FILTER and KVM_CAP_X86_USER_SPACE_MSR:
//! let KVM answer an access, have the filter give the guest #GP, or answer in
//! user space. The guest makes the same accesses twice. First nothing exits to
//! user space, and what the filter denies is #GP. Then denied accesses do exit,
//! all of them: which of them still get #GP is for the VMM to say.
//!
//! It ends by proving from the counters that the engine keeps for each VM that
//! the Rust engine served this one; `--c` shows the same on a VM of KVM's C.

use std::process::ExitCode;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use clap::Parser;
use kvm_bindings::KVM_MSR_EXIT_REASON_FILTER;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Access;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Options;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::Range;
use kvm_msr_guest::filter::READ;
use kvm_msr_guest::filter::WRITE;

/// Shows, access by access, what an MSR filter does.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Use a VM that KVM's C code serves, which works without kvm_msr
    #[arg(long)]
    c: bool,
}

/// What this VMM does about the accesses that one of its ranges decides.
#[derive(Clone, Copy)]
enum Policy {
    /// The range allows them: KVM answers.
    Allow,
    /// The range denies them, and the guest is to get #GP either way.
    Deny,
    /// The range denies them, and this program answers for the MSR if asked.
    Answer(u64),
}

/// A range of the filter, what it is there for, and what to do about it.
struct Rule {
    about: &'static str,
    flags: u32,
    base: u32,
    nmsrs: u32,
    policy: Policy,
}

/// The first rule that matches an access decides it. The filter allows others.
const RULES: &[Rule] = &[
    Rule {
        about: "PAT, read and write",
        flags: READ | WRITE,
        base: 0x277,
        nmsrs: 1,
        policy: Policy::Allow,
    },
    Rule {
        about: "the rest of the MTRRs",
        flags: READ | WRITE,
        base: 0x200,
        nmsrs: 0x100,
        policy: Policy::Deny,
    },
    Rule {
        about: "writes of MISC_ENABLE",
        flags: WRITE,
        base: 0x1a0,
        nmsrs: 1,
        policy: Policy::Deny,
    },
    Rule {
        about: "temperatures, which KVM lacks",
        flags: READ | WRITE,
        base: 0x19a,
        nmsrs: 3,
        policy: Policy::Answer(0x8832_0000),
    },
    Rule {
        about: "MSRs of this VMM's own",
        flags: READ | WRITE,
        base: 0x4b56_0000,
        nmsrs: 64,
        policy: Policy::Answer(0x6d73_722d_6d76_6b00),
    },
];

/// What the guest does: RDMSR, or WRMSR of a value.
///
/// KVM intercepts all of these. Others, as SYSENTER's, it passes through unless a
/// filter denies them: then the CPU answers, and nobody can count the access.
const ACCESSES: &[(u32, &str, Option<u64>)] = &[
    (0x277, "IA32_CR_PAT", None),
    (0x277, "IA32_CR_PAT", Some(0x0606_0606_0606_0606)),
    (0x277, "IA32_CR_PAT", None),
    (0x200, "MTRR_PHYSBASE0", None),
    (0x2ff, "MTRR_DEF_TYPE", Some(0xc00)),
    (0x1a0, "IA32_MISC_ENABLE", None),
    (0x1a0, "IA32_MISC_ENABLE", Some(0x1)),
    (0x19c, "THERM_STATUS", None),
    (0x19b, "THERM_INTERRUPT", Some(3)),
    (0x4b56_0001, "(this VMM's)", None),
    (0x4b56_0002, "(this VMM's)", Some(0x1234)),
    (0xc000_0080, "IA32_EFER", None),
    (0x1234_5678, "(nobody's)", None),
];

/// What the engine has to have counted in the end.
#[derive(Default)]
struct Expected {
    reads: u64,
    writes: u64,
    filtered: u64,
    user_space: u64,
    gp: u64,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let engine = if arguments.c { Engine::C } else { Engine::Rust };
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let mut guest = Guest::new(&kvm, Options::new(engine))?;

    let filter = filter();
    filter.set(guest.vm()).context("KVM_X86_SET_MSR_FILTER")?;

    print_rules();
    let mut expected = Expected::default();
    for (title, reasons) in [
        ("1. Denied accesses do not exit to user space", 0),
        (
            "2. Denied accesses exit to user space, which answers",
            KVM_MSR_EXIT_REASON_FILTER,
        ),
    ] {
        guest.deflect(reasons)?;
        println!("{title}");
        println!(
            "  {:<16} {:<19} {:>18}  {:<5}  {:<11} the guest saw",
            "the guest asked", "", "value", "range", "answered by"
        );
        for &(index, name, value) in ACCESSES {
            access(&mut guest, &filter, index, name, value, &mut expected)?;
        }
        println!();
    }

    if arguments.c {
        println!("KVM's C code served this VM.");
        return Ok(ExitCode::SUCCESS);
    }
    prove(&guest, &expected)
}

/// The filter that the rules make.
fn filter() -> Filter {
    RULES
        .iter()
        .fold(Filter::allow_by_default(), |filter, rule| {
            filter.with(match rule.policy {
                Policy::Allow => Range::allow(rule.flags, rule.base, rule.nmsrs),
                Policy::Deny | Policy::Answer(_) => Range::deny(rule.flags, rule.base, rule.nmsrs),
            })
        })
}

fn print_rules() {
    println!("The filter's ranges, of which the first that matches decides:");
    for (i, rule) in RULES.iter().enumerate() {
        println!(
            "  {i}  {:#010x}-{:#010x} {}{}  {:<22} {}",
            rule.base,
            rule.base + rule.nmsrs - 1,
            if rule.flags & READ != 0 { 'r' } else { '-' },
            if rule.flags & WRITE != 0 { 'w' } else { '-' },
            match rule.policy {
                Policy::Allow => "allowed",
                Policy::Deny => "denied",
                Policy::Answer(_) => "denied, for user space",
            },
            rule.about
        );
    }
    println!("  -  everything else        allowed\n");
}

/// Has the guest make one access, answers it if asked, and prints the line.
fn access(
    guest: &mut Guest,
    filter: &Filter,
    index: u32,
    name: &str,
    value: Option<u64>,
    expected: &mut Expected,
) -> Result<()> {
    let (access, mut outcome) = match value {
        None => (Access::Read, guest.rdmsr(index)?),
        Some(value) => (Access::Write, guest.wrmsr(index, value)?),
    };
    match access {
        Access::Read => expected.reads += 1,
        Access::Write => expected.writes += 1,
    }

    let deciding = filter.deciding_range(access, index);
    let allowed = filter.allows(access, index);
    let answered_by = match (allowed, outcome.user_space()) {
        (true, None) => "KVM",
        (false, None) => "filter",
        (false, Some(_)) => "user space",
        (true, Some(exit)) => bail!("{access} of {index:#x} is allowed, but gave {exit}"),
    };
    expected.filtered += u64::from(!allowed);

    if outcome.user_space().is_some() {
        expected.user_space += 1;
        match deciding.map(|range| RULES[range].policy) {
            Some(Policy::Answer(data)) => guest.answer(data, 0),
            // An error is #GP to the guest.
            _ => guest.answer(0, 1),
        }
        outcome = guest.run()?;
    }

    let seen = match outcome {
        Outcome::Value(value) => format!("{value:#x}"),
        Outcome::Done => "done".to_owned(),
        outcome if outcome.is_gp() => {
            expected.gp += 1;
            "#GP".to_owned()
        }
        outcome => bail!("{access} of {index:#x} ended with {outcome}"),
    };
    println!(
        "  {access:<5} {index:#010x} {name:<19} {:>18}  {:<5}  {answered_by:<11} {seen}",
        value.map_or_else(String::new, |value| format!("{value:#x}")),
        deciding.map_or_else(|| "-".to_owned(), |range| range.to_string()),
    );
    Ok(())
}

/// Compares the engine's counters for this VM with what has been seen here.
fn prove(guest: &Guest, expected: &Expected) -> Result<ExitCode> {
    let engine = guest.folder().engine().context("no engine serves the VM")?;
    let counters = guest.folder().counters()?;
    let mut proven = true;

    println!("This VM is served by {engine}, which counted:");
    for (name, expected) in [
        ("reads", expected.reads),
        ("writes", expected.writes),
        ("filtered", expected.filtered),
        ("user_space", expected.user_space),
        ("gp", expected.gp),
    ] {
        let counted = counters.get(name).copied();
        let right = counted == Some(expected);

        println!(
            "  {name:<10} {:>4}  {}",
            counted.map_or_else(|| "none".to_owned(), |counted| counted.to_string()),
            if right {
                "as seen here".to_owned()
            } else {
                format!("but {expected} were seen here")
            }
        );
        proven &= right;
    }

    Ok(if proven {
        println!("Proven: every access above went through the Rust engine.");
        ExitCode::SUCCESS
    } else {
        println!("Not proven: the engine's counters differ from what was seen here.");
        ExitCode::FAILURE
    })
}
