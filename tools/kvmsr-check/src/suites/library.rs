// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The library's save and restore: on a new VM, compared by what its guest reads; and of a list
//! with entries that KVM refuses, compared with a call for each entry.

use std::collections::BTreeMap;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use kvm_bindings::CpuId;
use kvm_bindings::KVM_CAP_HYPERV_SYNIC2;
use kvm_bindings::KVM_MAX_CPUID_ENTRIES;
use kvm_bindings::kvm_cpuid_entry2;
use kvm_bindings::kvm_enable_cap;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Options;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::Random;
use kvm_msr_guest::msrs;
use kvmsr::ioctl;
use kvmsr::state;
use kvmsr::state::Apic;
use kvmsr::state::List;
use kvmsr::state::Status;

use crate::report::Report;
use crate::run::Kvmsr;

/// 10 machine-check banks; IA32_MCG_CTL, CMCI and software error recovery, if KVM supports them.
const MCG_CAP: u64 = 10 | 1 << 8 | MCG_CMCI | 1 << 24;
const MCG_CMCI: u64 = 1 << 10;

/// Index ranges with MSRs: those of both vendors, Hyper-V and KVM.
const READ_BY_GUEST: &[(u32, u32)] = &[
    (0x0, 0xfff),
    (0x4000_0000, 0x4000_01ff),
    (0x4b56_4d00, 0x4b56_4d0f),
    (0xc000_0000, 0xc000_03ff),
    (0xc001_0000, 0xc001_03ff),
    (0xc001_1000, 0xc001_10ff),
];

/// Runs the tests.
pub fn run(_kvmsr: &Kvmsr, report: &mut Report) {
    report.test("MTRRs, MCE banks, x2APIC and Hyper-V survive", || {
        survive(change_known)
    });
    report.test("all other changes survive", || survive(change_all));
    report.test("another order loses some", other_order);
    report.test("4,096 entries, 100 of them bad", long_list);
}

/// Moves a vCPU's state to a new VM.
struct Saved {
    apic: Apic,
    msrs: state::Saved,
}

/// A vCPU with Hyper-V's synthetic interrupt controller and machine-check banks.
fn guest(kvm: &Kvm) -> Result<Guest> {
    let options = Options {
        irqchip: true,
        ..Options::new(Engine::Any)
    };
    let guest = Guest::new(kvm, options)?;
    let synic = kvm_enable_cap {
        cap: KVM_CAP_HYPERV_SYNIC2,
        ..Default::default()
    };
    let supported = ioctl::mce_cap_supported(kvm).context("KVM_X86_GET_MCE_CAP_SUPPORTED")?;

    guest
        .vcpu()
        .set_cpuid2(&hyper_v(kvm)?)
        .context("KVM_SET_CPUID2")?;
    guest
        .vcpu()
        .enable_cap(&synic)
        .context("KVM_CAP_HYPERV_SYNIC2")?;
    ioctl::setup_mce(guest.vcpu(), MCG_CAP & (supported | 0xff)).context("KVM_X86_SETUP_MCE")?;
    Ok(guest)
}

/// All that KVM supports, with Hyper-V's CPUID.
fn hyper_v(kvm: &Kvm) -> Result<CpuId> {
    let mut cpuid = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .context("KVM_GET_SUPPORTED_CPUID")?
        .as_slice()
        .to_vec();
    let word = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes);
    let leaf = |function, [eax, ebx, ecx, edx]: [u32; 4]| kvm_cpuid_entry2 {
        function,
        eax,
        ebx,
        ecx,
        edx,
        ..Default::default()
    };

    cpuid.retain(|leaf| leaf.function & 0xf000_0000 != 0x4000_0000);
    cpuid.extend([
        leaf(
            0x4000_0000,
            [0x4000_0005, word(b"Micr"), word(b"osof"), word(b"t Hv")],
        ),
        leaf(0x4000_0001, [word(b"Hv#1"), 0, 0, 0]),
        leaf(0x4000_0003, [u32::MAX, 0, 0, u32::MAX]),
    ]);
    CpuId::from_entries(&cpuid).map_err(|error| anyhow::anyhow!("CPUID: {error:?}"))
}

fn save(kvm: &Kvm, guest: &Guest) -> Result<Saved> {
    let list = List::new(kvm, guest.vcpu())?.with_sregs();

    Ok(Saved {
        apic: Apic::save(guest.vcpu())?,
        msrs: state::save(guest.vcpu(), &list)?,
    })
}

/// Restores as much as possible; returns what was refused and changed.
fn restore(guest: &Guest, saved: &Saved) -> Result<Vec<String>> {
    let entries = &saved.msrs.entries;

    saved.apic.restore(guest.vcpu())?;
    let restored = state::restore(guest.vcpu(), entries)?;
    let mut wrong: Vec<_> = restored
        .refused()
        .map(|at| format!("{:#x}: refused {:#x}", entries[at].index, entries[at].data))
        .collect();

    wrong.extend(
        state::changed(guest.vcpu(), entries, &restored)?
            .iter()
            .map(ToString::to_string),
    );
    Ok(wrong)
}

/// The values of all MSRs that a guest can read.
fn read_all(guest: &mut Guest) -> Result<BTreeMap<u32, u64>> {
    let mut values = BTreeMap::new();

    for index in READ_BY_GUEST.iter().flat_map(|&(first, last)| first..=last) {
        match guest.rdmsr(index)? {
            Outcome::Value(value) => {
                values.insert(index, value);
            }
            outcome if outcome.is_gp() => {}
            outcome => bail!("RDMSR of {index:#x}: {outcome}"),
        }
    }
    Ok(values)
}

/// Changes a vCPU, moves it to a new VM, and compares what the guests read.
fn survive(change: fn(&Kvm, &mut Guest) -> Result<String>) -> Result<String> {
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let mut source = guest(&kvm)?;
    let fresh = read_all(&mut guest(&kvm)?)?;
    let what = change(&kvm, &mut source)?;
    let read = read_all(&mut source)?;
    // MSRs that change by themselves.
    let again = read_all(&mut source)?;
    let saved = save(&kvm, &source)?;
    let mut target = guest(&kvm)?;
    let wrong = restore(&target, &saved)?;

    ensure!(wrong.is_empty(), "{}", wrong.join(", "));
    let restored = read_all(&mut target)?;
    let mut lost = Vec::new();
    let mut moving = 0;

    for (&index, &value) in &read {
        if again.get(&index) != Some(&value) {
            moving += 1;
        } else if restored.get(&index) != Some(&value) {
            lost.push(format!(
                "{index:#x} was {value:#x} and is {:x?}",
                restored.get(&index)
            ));
        }
    }
    for index in restored.keys().filter(|index| !read.contains_key(index)) {
        lost.push(format!("{index:#x} could not be read before"));
    }
    ensure!(lost.is_empty(), "{}", lost.join(", "));
    let different = read
        .iter()
        .filter(|&(index, value)| fresh.get(index) != Some(value))
        .count();

    Ok(format!(
        "{what}; a guest reads {} MSRs; {different} differ from a new VM, {moving} change by themselves",
        read.len()
    ))
}

/// Sets MTRRs, MCE banks, x2APIC, Hyper-V, and MSRs that every operating system sets.
fn change_known(_kvm: &Kvm, guest: &mut Guest) -> Result<String> {
    let mut by_ioctl: Vec<(u32, u64)> = [
        // IA32_MCG_STATUS and the CTL, STATUS, ADDR and MISC of banks.
        (0x17a, 5),
        (0x40c, 0),
        (0x40d, 0xbd00_0000_0000_0135),
        (0x40e, 0x1234_5000),
        (0x40f, 0x86),
        (0x425, 0x9c00_0040_0001_009f),
        (0x427, 0xfe),
        // HV_X64_SIEFP, SIMP, SINT2 and SINT15; STIMER0 and STIMER3.
        (0x4000_0082, 0xe001),
        (0x4000_0083, 0xf001),
        (0x4000_0092, 0x20031),
        (0x4000_009f, 0x40),
        (0x4000_00b1, 0x7fff_ffff_ffff),
        (0x4000_00b0, 0x2_0008),
        (0x4000_00b7, 0x1234_5678),
        (0x4000_00b6, 0x3_0002),
        // CRASH_Pn, and the notification when the TSC changes.
        (0x4000_0100, 0xdead),
        (0x4000_0104, 0xbeef),
        (0x4000_0106, 0x1_00ff),
        (0x4000_0002, 0),
    ]
    .into();
    let by_guest: Vec<(u32, u64)> = [
        // Variable and fixed MTRRs, the default type, and IA32_CR_PAT.
        (0x200, 0x8000_0006),
        (0x201, 0xff_c000_0800),
        (0x20e, 0x1_0000_0000),
        (0x20f, 0xff_fff0_0800),
        (0x250, 0x0606_0606_0606_0606),
        (0x259, 0x0001_0004_0005_0006),
        (0x26f, 0x0505_0505_0505_0505),
        (0x2ff, 0xc06),
        (0x277, 0x0007_0105_0007_0406),
        (0x400, 0),
        (0x424, !0x400),
        // x2APIC: the mode, the SVR, TPR, LVTs, divisor and ICR, and a deadline in the distant
        // future.
        (0x1b, 0xfee0_0d00),
        (0x80f, 0x1ff),
        (0x808, 0x20),
        (0x832, 0x4_00ee),
        (0x835, 0x1_0031),
        (0x837, 0xfe),
        (0x83e, 0xb),
        (0x830, 0x5_0000_00fe),
        (0x6e0, 0x7fff_ffff_ffff_ffff),
        // HV_X64_GUEST_OS_ID, HYPERCALL, REFERENCE_TSC, VP_ASSIST_PAGE, and the SynIC.
        (0x4000_0000, 0x1_040a_0000_3839),
        (0x4000_0001, 0xd001),
        (0x4000_0021, 0xc001),
        (0x4000_0073, 0xb001),
        (0x4000_0080, 1),
        (0x4000_0095, 0x55),
        // STAR, LSTAR, SYSCALL_MASK, KERNEL_GS_BASE and SYSENTER_CS, EIP, ESP.
        (0xc000_0081, 0x23_0010_0000_0000),
        (0xc000_0082, 0xffff_ffff_8160_0080),
        (0xc000_0084, 0x4_7700),
        (0xc000_0102, 0x7fff_1234_5000),
        (0x174, 0x10),
        (0x175, 0x1000),
        (0x176, 0x8160_1000),
    ]
    .into();

    if msrs::get(guest.vcpu(), 0x179)?.is_some_and(|cap| cap & MCG_CMCI != 0) {
        // IA32_MCn_CTL2 with CMCI, which AMD lacks.
        by_ioctl.extend([(0x283, 0x4000_0005), (0x289, 0x4000_7fff)]);
    }
    for &(index, value) in &by_ioctl {
        ensure!(
            msrs::set(guest.vcpu(), index, value)?,
            "KVM refuses {value:#x} for {index:#x}"
        );
    }
    for &(index, value) in &by_guest {
        match guest.wrmsr(index, value)? {
            // Writes of some of Hyper-V's MSRs exit to user space.
            Outcome::Done | Outcome::Exit(kvm_bindings::KVM_EXIT_HYPERV) => {}
            outcome => bail!("WRMSR of {value:#x} to {index:#x}: {outcome}"),
        }
    }
    Ok(format!(
        "{} changed by ioctl, {} by the guest",
        by_ioctl.len(),
        by_guest.len()
    ))
}

/// MSRs that are not changed: IA32_APIC_BASE, EFER and the x2APIC, which are tested above;
/// commands; and clocks.
fn is_left_alone(index: u32) -> bool {
    matches!(
        index,
        0x10 | 0x1b
            | 0x49
            | 0x10b
            | 0x800..=0x8ff
            | 0xc000_0080
            | 0x4000_0003
            | 0x4000_0010
            | 0x4000_0020
            | 0x4000_0070..=0x4000_0072
            | 0x4000_0084
            // Timers that are enabled change when they expire.
            | 0x4000_00b0..=0x4000_00b7
    )
}

/// Changes all MSRs that accept another value: inverts the lowest possible bit.
fn change_all(_kvm: &Kvm, guest: &mut Guest) -> Result<String> {
    let mut changed = 0;

    for index in READ_BY_GUEST.iter().flat_map(|&(first, last)| first..=last) {
        let Some(value) = msrs::get(guest.vcpu(), index)? else {
            continue;
        };

        if is_left_alone(index) {
            continue;
        }
        for other in (0..64).map(|bit| value ^ 1 << bit).chain([!value]) {
            if msrs::set(guest.vcpu(), index, other)? {
                if msrs::get(guest.vcpu(), index)? == Some(other) {
                    changed += 1;
                    break;
                }
                msrs::set(guest.vcpu(), index, value)?;
            }
        }
    }
    Ok(format!("{changed} changed"))
}

/// Tests that the order matters; otherwise the tests above would prove nothing about it.
fn other_order() -> Result<String> {
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let mut source = guest(&kvm)?;

    change_known(&kvm, &mut source)?;
    let mut saved = save(&kvm, &source)?;
    let mut lost = Vec::new();

    ensure!(restore(&guest(&kvm)?, &saved)?.is_empty());
    saved.msrs.entries.reverse();
    for wrong in restore(&guest(&kvm)?, &saved)? {
        lost.push(wrong);
    }
    ensure!(!lost.is_empty(), "the reverse order loses nothing");
    state::in_order(&mut saved.msrs.entries);
    let wrong = restore(&guest(&kvm)?, &saved)?;

    ensure!(wrong.is_empty(), "sorted again: {}", wrong.join(", "));
    Ok(format!("the reverse order: {}", lost.join(", ")))
}

/// Compares a list of many entries, some of which KVM refuses, with a call for each.
fn long_list() -> Result<String> {
    const ENTRIES: usize = 4096;
    const BAD: usize = 100;
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let (one, other) = (guest(&kvm)?, guest(&kvm)?);
    let saved = save(&kvm, &one)?.msrs.entries;
    let mut random = Random::new(0x006b_766d_7372);
    let mut entries: Vec<_> = (0..ENTRIES).map(|_| *random.pick(&saved)).collect();
    let mut bad = Vec::new();

    while bad.len() < BAD {
        let at = random.below(ENTRIES as u32) as usize;

        if !bad.contains(&at) {
            bad.push(at);
            entries[at] = match random.below(4) {
                // Unknown, reserved bits, dependent on an earlier write, read-only.
                0 => state::entry(0x1234_0000 + random.below(0x1000), 0),
                1 => state::entry(0x277, 2 << (8 * random.below(8))),
                2 => state::entry(0x140, 2),
                _ => state::entry(0xfe, 0x508),
            };
        }
    }
    let outcome = state::write(one.vcpu(), &entries)?;
    let mut refused = 0;

    for (at, entry) in entries.iter().enumerate() {
        let alone = msrs::set(other.vcpu(), entry.index, entry.data)?;
        let status = outcome.statuses.get(at).copied();

        refused += usize::from(!alone);
        ensure!(
            status == Some(if alone { Status::Done } else { Status::Refused }),
            "entry {at}, {:#x} = {:#x}: {status:?}, but alone {alone}",
            entry.index,
            entry.data
        );
    }
    ensure!(refused == BAD, "{refused} are bad, not {BAD}");
    ensure!(
        outcome.calls <= ENTRIES.div_ceil(ioctl::MAX_ENTRIES) + BAD,
        "{} ioctls",
        outcome.calls
    );
    // Reads also stop at the first bad entry.
    let indices: Vec<_> = entries.iter().map(|entry| entry.index).collect();
    let values = state::read(one.vcpu(), &indices)?;

    for (&index, value) in indices.iter().zip(values) {
        let alone = msrs::get(one.vcpu(), index)?;
        let moves = matches!(index, 0x10 | 0x4000_0010 | 0x4000_0020);

        ensure!(
            alone == value || moves && alone.is_some() == value.is_some(),
            "{index:#x} reads {value:x?}, but alone {alone:x?}"
        );
    }
    Ok(format!(
        "{ENTRIES} statuses are equal to those of separate calls, with {} ioctls",
        outcome.calls
    ))
}
