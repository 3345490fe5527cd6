// SPDX-License-Identifier: Apache-2.0 OR MIT

//! A guest reads and writes MSRs under a filter, and the program explains each access.
//!
//! With KVM_X86_SET_MSR_FILTER and KVM_CAP_X86_USER_SPACE_MSR, a VMM chooses who answers an access:
//! KVM, the filter (the guest gets #GP), or user space. The guest makes the same accesses twice.
//! First, denied accesses inject #GP. Then all denied accesses exit to user space, and the VMM
//! decides which of them inject #GP.
//!
//! If `kvm-msr.ko` serves the VM, the program finally compares the engine's counters with the
//! accesses that it has seen.

use std::process::ExitCode;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use clap::Parser;
use kvm_bindings::KVM_CAP_X86_USER_SPACE_MSR;
use kvm_bindings::kvm_enable_cap;
use kvm_ioctls::Kvm;
use kvm_ioctls::MsrExitReason;
use kvm_ioctls::MsrFilterDefaultAction;
use kvm_ioctls::MsrFilterRange;
use kvm_ioctls::MsrFilterRangeFlags;
use kvm_ioctls::VcpuExit;
use kvm_msr_samples::debugfs;
use kvm_msr_samples::guest::Guest;
use kvm_msr_samples::guest::Instruction;
use kvm_msr_samples::guest::PORT_DONE;
use kvm_msr_samples::guest::PORT_GP;

/// Shows, access by access, what an MSR filter does.
#[derive(Parser)]
#[command(version)]
struct Arguments {}

/// What this VMM does with the accesses that a range decides.
#[derive(Clone, Copy)]
enum Policy {
    /// The range allows them: KVM answers.
    Allow,
    /// The range denies them, and the guest always gets #GP.
    Deny,
    /// The range denies them. If they exit to user space, this program answers with the value.
    Answer(u64),
}

/// A range of the filter.
struct Rule {
    about: &'static str,
    flags: MsrFilterRangeFlags,
    base: u32,
    count: u32,
    policy: Policy,
}

const READ: MsrFilterRangeFlags = MsrFilterRangeFlags::READ;
const WRITE: MsrFilterRangeFlags = MsrFilterRangeFlags::WRITE;
const BOTH: MsrFilterRangeFlags = READ.union(WRITE);

/// The first rule that matches an access decides it. The filter allows all other accesses.
const RULES: &[Rule] = &[
    Rule {
        about: "PAT, read and write",
        flags: BOTH,
        base: 0x277,
        count: 1,
        policy: Policy::Allow,
    },
    Rule {
        about: "the other MTRRs",
        flags: BOTH,
        base: 0x200,
        count: 0x100,
        policy: Policy::Deny,
    },
    Rule {
        about: "writes of MISC_ENABLE",
        flags: WRITE,
        base: 0x1a0,
        count: 1,
        policy: Policy::Deny,
    },
    Rule {
        about: "temperatures, which KVM lacks",
        flags: BOTH,
        base: 0x19a,
        count: 3,
        policy: Policy::Answer(0x8832_0000),
    },
    Rule {
        about: "MSRs of this VMM's own",
        flags: BOTH,
        base: 0x4b56_0000,
        count: 64,
        policy: Policy::Answer(0x6d73_722d_6d76_6b00),
    },
];

/// The guest's accesses: RDMSR, or WRMSR of a value.
///
/// KVM intercepts all of these. KVM does not intercept some other MSRs, e.g. IA32_SYSENTER_CS,
/// unless a filter denies them: then the CPU answers, and the engine can't count the access.
const ACCESSES: &[(u32, &str, Instruction)] = &[
    (0x277, "IA32_CR_PAT", Instruction::Rdmsr),
    (
        0x277,
        "IA32_CR_PAT",
        Instruction::Wrmsr(0x0606_0606_0606_0606),
    ),
    (0x277, "IA32_CR_PAT", Instruction::Rdmsr),
    (0x200, "MTRR_PHYSBASE0", Instruction::Rdmsr),
    (0x2ff, "MTRR_DEF_TYPE", Instruction::Wrmsr(0xc00)),
    (0x1a0, "IA32_MISC_ENABLE", Instruction::Rdmsr),
    (0x1a0, "IA32_MISC_ENABLE", Instruction::Wrmsr(0x1)),
    (0x19c, "THERM_STATUS", Instruction::Rdmsr),
    (0x19b, "THERM_INTERRUPT", Instruction::Wrmsr(3)),
    (0x4b56_0001, "(this VMM's)", Instruction::Rdmsr),
    (0x4b56_0002, "(this VMM's)", Instruction::Wrmsr(0x1234)),
    (0xc000_0080, "IA32_EFER", Instruction::Rdmsr),
    (0x1234_5678, "(unknown)", Instruction::Rdmsr),
];

/// The counters that the engine must show at the end.
#[derive(Default)]
struct Expected {
    reads: u64,
    writes: u64,
    filtered: u64,
    user_space: u64,
    gp: u64,
}

fn main() -> Result<ExitCode> {
    Arguments::parse();
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let mut guest = Guest::new(&kvm, false)?;

    set_filter(&guest)?;
    print_rules();
    let mut expected = Expected::default();
    for (title, reasons) in [
        (
            "1. Denied accesses do not exit to user space",
            MsrExitReason::empty(),
        ),
        (
            "2. Denied accesses exit to user space, which answers",
            MsrExitReason::Filter,
        ),
    ] {
        enable_exits(&guest, reasons)?;
        println!("{title}");
        println!(
            "  {:<16} {:<19} {:>18}  {:<5}  {:<11} result",
            "access", "", "value", "range", "answered by"
        );
        for &(index, name, instruction) in ACCESSES {
            access(&mut guest, index, name, instruction, &mut expected)?;
        }
        println!();
    }
    compare_counters(&guest, &expected)
}

/// Sets the filter that the rules make.
fn set_filter(guest: &Guest) -> Result<()> {
    // 1 allows, 0 denies. KVM reads bitmaps in units of 64 bits, so they are a bit longer.
    let bitmaps: Vec<Vec<u8>> = RULES
        .iter()
        .map(|rule| {
            let byte = match rule.policy {
                Policy::Allow => 0xff,
                Policy::Deny | Policy::Answer(_) => 0,
            };
            vec![byte; rule.count.div_ceil(64) as usize * 8]
        })
        .collect();
    let ranges: Vec<MsrFilterRange> = RULES
        .iter()
        .zip(&bitmaps)
        .map(|(rule, bitmap)| MsrFilterRange {
            flags: rule.flags,
            base: rule.base,
            msr_count: rule.count,
            bitmap,
        })
        .collect();

    guest
        .vm()
        .set_msr_filter(MsrFilterDefaultAction::ALLOW, &ranges)
        .context("KVM_X86_SET_MSR_FILTER")
}

/// Has accesses exit to user space that fail for one of these reasons.
fn enable_exits(guest: &Guest, reasons: MsrExitReason) -> Result<()> {
    guest
        .vm()
        .enable_cap(&kvm_enable_cap {
            cap: KVM_CAP_X86_USER_SPACE_MSR,
            args: [reasons.bits().into(), 0, 0, 0],
            ..Default::default()
        })
        .context("KVM_CAP_X86_USER_SPACE_MSR")
}

fn print_rules() {
    println!("The filter's ranges. The first range that matches an access decides it:");
    for (i, rule) in RULES.iter().enumerate() {
        println!(
            "  {i}  {:#010x}-{:#010x} {}{}  {:<22} {}",
            rule.base,
            rule.base + rule.count - 1,
            if rule.flags.contains(READ) { 'r' } else { '-' },
            if rule.flags.contains(WRITE) { 'w' } else { '-' },
            match rule.policy {
                Policy::Allow => "allowed",
                Policy::Deny => "denied",
                Policy::Answer(_) => "denied, for user space",
            },
            rule.about
        );
    }
    println!("  -  all others             allowed\n");
}

/// The rule that decides an access, by its number.
fn deciding_rule(index: u32, kind: MsrFilterRangeFlags) -> Option<usize> {
    RULES.iter().position(|rule| {
        (rule.base..rule.base + rule.count).contains(&index) && rule.flags.contains(kind)
    })
}

/// Has the guest make one access, answers it if it exits to user space, and prints a line.
fn access(
    guest: &mut Guest,
    index: u32,
    name: &str,
    instruction: Instruction,
    expected: &mut Expected,
) -> Result<()> {
    let (title, kind, value) = match instruction {
        Instruction::Rdmsr => ("RDMSR", READ, None),
        Instruction::Wrmsr(value) => ("WRMSR", WRITE, Some(value)),
    };
    let rule = deciding_rule(index, kind);
    let policy = rule.map_or(Policy::Allow, |rule| RULES[rule].policy);
    let denied = !matches!(policy, Policy::Allow);
    let mut answered_by = if denied { "filter" } else { "KVM" };

    guest.start(instruction, index)?;
    let succeeded = loop {
        match guest.run()? {
            VcpuExit::X86Rdmsr(exit) => {
                match policy {
                    Policy::Answer(value) => *exit.data = value,
                    // With an error, the guest gets #GP.
                    _ => *exit.error = 1,
                }
                answered_by = "user space";
            }
            VcpuExit::X86Wrmsr(exit) => {
                if !matches!(policy, Policy::Answer(_)) {
                    *exit.error = 1;
                }
                answered_by = "user space";
            }
            VcpuExit::IoOut(PORT_DONE, _) => break true,
            VcpuExit::IoOut(PORT_GP, _) => break false,
            exit => bail!("{title} of {index:#x} ended with {exit:?}"),
        }
    };
    let by_user_space = answered_by == "user space";
    ensure!(
        denied || !by_user_space,
        "{title} of {index:#x} is allowed, but exited to user space"
    );

    match instruction {
        Instruction::Rdmsr => expected.reads += 1,
        Instruction::Wrmsr(_) => expected.writes += 1,
    }
    expected.filtered += u64::from(denied);
    expected.user_space += u64::from(by_user_space);
    expected.gp += u64::from(!succeeded);

    let result = match (succeeded, instruction) {
        (false, _) => "#GP".to_owned(),
        (true, Instruction::Rdmsr) => format!("{:#x}", guest.value()?),
        (true, Instruction::Wrmsr(_)) => "done".to_owned(),
    };
    println!(
        "  {title:<5} {index:#010x} {name:<19} {:>18}  {:<5}  {answered_by:<11} {result}",
        value.map_or_else(String::new, |value| format!("{value:#x}")),
        rule.map_or_else(|| "-".to_owned(), |rule| rule.to_string()),
    );
    Ok(())
}

/// Compares the engine's counters for the VM with the accesses above.
fn compare_counters(guest: &Guest, expected: &Expected) -> Result<ExitCode> {
    let Some(engine) = debugfs::engine(guest.vm()) else {
        println!("KVM's C code served this VM (or debugfs is not mounted).");
        return Ok(ExitCode::SUCCESS);
    };
    let counters = debugfs::counters(guest.vm())?;
    let mut equal = true;

    println!("This VM is served by {engine}. Its counters:");
    for (name, expected) in [
        ("reads", expected.reads),
        ("writes", expected.writes),
        ("filtered", expected.filtered),
        ("user_space", expected.user_space),
        ("gp", expected.gp),
    ] {
        let counted = counters.get(name).copied();

        equal &= counted == Some(expected);
        println!(
            "  {name:<10} {:>4}  {expected:>4} expected",
            counted.map_or_else(|| "none".to_owned(), |counted| counted.to_string()),
        );
    }

    Ok(if equal {
        println!("Proven: the Rust engine handled every access above.");
        ExitCode::SUCCESS
    } else {
        println!("Not proven: the engine's counters differ from the accesses above.");
        ExitCode::FAILURE
    })
}
