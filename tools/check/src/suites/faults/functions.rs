// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Functions of KVM that an access to an MSR calls fail: what the ioctl or the guest gets, and what
//! has changed.
//!
//! `tools/kernel/patches-debug` has the list of functions.

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvm_ioctls::Kvm;
use kvm_msr_guest::Access;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Guest;
use kvm_msr_guest::msrs;
use kvm_msr_guest::nested;
use kvm_msr_guest::nested::Nested;
use kvm_msr_guest::nested::Stop;
use kvm_msr_guest::nested::Vendor;

use super::injector::FailingFunction;
use crate::side::Side;
use crate::suites::Named;

/// The tests of this file.
pub const SCENARIOS: &[Named] = &[
    ("functions of KVM fail in MSR accesses", accesses),
    ("feature MSRs can't be read", features),
    ("nested state can't be entered", nested_state),
];

const PAT: u32 = 0x277;
const PAT_RESET: u64 = 0x0007_0406_0007_0406;
const PAT_OTHER: u64 = 0x0606_0606_0606_0606;
const SYSENTER_EIP: u32 = 0x176;
const APIC_BASE: u32 = 0x1b;
/// The boot CPU's APIC in x2APIC mode.
const X2APIC: u64 = 0xfee0_0d00;

/// A function, and an access that calls it.
struct Case {
    function: &'static str,
    returns: i32,
    msr: u32,
    value: u64,
    /// Whether the guest needs an in-kernel APIC.
    irqchip: bool,
}

const fn case(function: &'static str, returns: i32, msr: u32, value: u64) -> Case {
    Case {
        function,
        returns,
        msr,
        value,
        irqchip: false,
    }
}

const fn with_irqchip(case: Case) -> Case {
    Case {
        irqchip: true,
        ..case
    }
}

/// The access fails. (Other functions return a negative errno.)
const FAILS: i32 = 1;
const EFAULT: i32 = -Errno::EFAULT.0;
const EINVAL: i32 = -Errno::EINVAL.0;
const ENOMEM: i32 = -Errno::ENOMEM.0;

/// An aligned address in the guest's memory, and the bit that enables what uses it.
const ENABLED: u64 = 0x2000 | 1;

/// The vendor modules' functions that read MSRs.
const VENDORS_READS: [&str; 2] = ["svm_get_msr", "vmx_get_msr"];

const COMMON: &[Case] = &[
    // The guest's OS ID for Hyper-V.
    case("kvm_hv_set_msr_common", FAILS, 0x4000_0000, 1),
    case("kvm_hv_get_msr_common", FAILS, 0x4000_0000, 1),
    case("kvm_mtrr_set_msr", FAILS, 0x200, 6),
    case("kvm_mtrr_get_msr", FAILS, 0x200, 6),
    with_irqchip(case("kvm_apic_set_base", FAILS, APIC_BASE, X2APIC)),
    // The x2APIC's task priority.
    with_irqchip(case("kvm_x2apic_msr_write", FAILS, 0x808, 0x20)),
    with_irqchip(case("kvm_x2apic_msr_read", FAILS, 0x808, 0x20)),
    // The paravirtual end of interrupt.
    with_irqchip(case("kvm_lapic_set_pv_eoi", FAILS, 0x4b56_4d04, ENABLED)),
    with_irqchip(case(
        "kvm_gfn_to_hva_cache_init",
        EFAULT,
        0x4b56_4d04,
        ENABLED,
    )),
    // Steal time, asynchronous page faults, the system time, and the wall clock.
    case("kvm_gfn_to_hva_cache_init", EFAULT, 0x4b56_4d03, ENABLED),
    with_irqchip(case(
        "kvm_gfn_to_hva_cache_init",
        EINVAL,
        0x4b56_4d02,
        ENABLED | 8,
    )),
    case("kvm_gpc_activate", EFAULT, 0x4b56_4d01, ENABLED),
    case("kvm_read_guest", EFAULT, 0x4b56_4d00, 0x2000),
    case("kvm_write_guest", EFAULT, 0x4b56_4d00, 0x2000),
];

const SVM: &[Case] = &[
    // STAR, and the host save area's address.
    case("svm_set_msr", FAILS, 0xc000_0081, 5),
    case("svm_get_msr", FAILS, 0xc000_0081, 5),
    case("svm_set_msr", FAILS, 0xc001_0117, 0x1000),
    case("svm_get_msr", FAILS, 0xc001_0117, 0x1000),
    // EFER.SCE
    case("svm_set_efer", ENOMEM, 0xc000_0080, 1),
];

const VMX: &[Case] = &[
    case("vmx_set_msr", FAILS, 0xc000_0081, 5),
    case("vmx_get_msr", FAILS, 0xc000_0081, 5),
    // IA32_FEATURE_CONTROL
    case("vmx_set_msr", FAILS, 0x3a, 1),
    case("vmx_get_msr", FAILS, 0x3a, 1),
];

fn accesses(side: &mut Side) -> Result<()> {
    let own = match Vendor::of(side.kvm())? {
        Vendor::Svm => SVM,
        Vendor::Vmx => VMX,
    };

    for case in COMMON.iter().chain(own) {
        let name = format!("{} for {:#x}", case.function, case.msr);

        access(side, case, &name).context(name)?;
    }
    Ok(())
}

/// Lets user space and the guest write and read the MSR while the function fails.
fn access(side: &mut Side, case: &Case, name: &str) -> Result<()> {
    let mut guest = side.guest_with(|options| options.irqchip = case.irqchip)?;
    let function = FailingFunction::new(case.function, case.returns)?;
    let mut reached = false;

    if case.irqchip && case.msr != APIC_BASE {
        ensure!(
            msrs::set(guest.vcpu(), APIC_BASE, X2APIC)?,
            "x2APIC mode is refused"
        );
    }

    // In the middle of a list: what stands before the MSR is done, and the rest is not.
    reset(&guest)?;
    let list = [
        (PAT, PAT_OTHER),
        (case.msr, case.value),
        (SYSENTER_EIP, 0x99),
    ];
    let (result, failed) = function.during(|| msrs::set_list(guest.vcpu(), &list))?;
    note(
        side,
        &guest,
        case,
        name,
        "set",
        &format!("{result:?}"),
        failed,
    )?;
    reached |= failed;
    // C asks the vendor module for all MSRs first, and the engine only for the vendor module's.
    let mut indices = list.map(|(index, _)| index);
    if VENDORS_READS.contains(&case.function) {
        indices.swap(0, 1);
    }
    let (result, failed) = function.during(|| msrs::get_list(guest.vcpu(), &indices))?;
    note(
        side,
        &guest,
        case,
        name,
        "get",
        &format!("{result:x?}"),
        failed,
    )?;
    reached |= failed;

    reset(&guest)?;
    for (access, emulated) in [
        (Access::Write, false),
        (Access::Read, false),
        (Access::Write, true),
        (Access::Read, true),
    ] {
        let (outcome, failed) =
            function.during(|| guest.access(access, emulated, case.msr, case.value))?;
        let emulated = if emulated { " in the emulator" } else { "" };
        let step = format!("{access:?}{emulated}");

        note(
            side,
            &guest,
            case,
            name,
            &step,
            &outcome?.to_string(),
            failed,
        )?;
        reached |= failed;
    }
    // It works once the function does.
    drop(function);
    let outcome = guest.access(Access::Write, false, case.msr, case.value)?;
    note(
        side,
        &guest,
        case,
        name,
        "at last",
        &outcome.to_string(),
        false,
    )?;
    ensure!(reached, "no access called the function");
    Ok(())
}

fn reset(guest: &Guest) -> Result<()> {
    for (index, value) in [(PAT, PAT_RESET), (SYSENTER_EIP, 0)] {
        ensure!(
            msrs::set(guest.vcpu(), index, value)?,
            "{index:#x} refuses a value"
        );
    }
    Ok(())
}

/// Notes a result, and what the MSRs are now.
fn note(
    side: &mut Side,
    guest: &Guest,
    case: &Case,
    name: &str,
    step: &str,
    result: &str,
    failed: bool,
) -> Result<()> {
    let failed = if failed { "failed" } else { "not called" };
    let values: Vec<_> = [PAT, case.msr, SYSENTER_EIP]
        .into_iter()
        .map(|index| msrs::get(guest.vcpu(), index))
        .collect::<Result<_, _>>()?;

    side.note(
        format_args!("{name}, {step}"),
        format_args!("{failed}: {result}, then {values:x?}"),
    );
    Ok(())
}

fn features(side: &mut Side) -> Result<()> {
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let name = match Vendor::of(&kvm)? {
        Vendor::Svm => "svm_get_feature_msr",
        Vendor::Vmx => "vmx_get_feature_msr",
    };
    let function = FailingFunction::new(name, FAILS)?;
    let list = kvm.get_msr_feature_index_list()?;
    let mut failures = 0;

    for &index in list.as_slice() {
        let (result, failed) = function.during(|| msrs::get_feature_list(&kvm, &[index]))?;

        side.note(
            format_args!("{name} fails for {index:#x}"),
            format_args!("{result:x?}, {failed}"),
        );
        failures += u32::from(failed);
    }
    ensure!(failures > 0, "no feature MSR is the vendor module's");
    Ok(())
}

fn nested_state(side: &mut Side) -> Result<()> {
    let mut guest = Nested::new(side.kvm(), nested::Options::new(side.engine))?;
    let functions: &[_] = match guest.vendor() {
        Vendor::Svm => &[("nested_svm_load_cr3", EINVAL)],
        Vendor::Vmx => &[
            ("nested_vmx_load_cr3", EINVAL),
            ("enter_vmx_operation", ENOMEM),
        ],
    };

    guest.run_to(Stop::L2)?;
    guest.complete()?;
    let state = super::copies::saved(&guest)?;
    for &(name, returns) in functions {
        let function = FailingFunction::new(name, returns)?;
        let (result, failed) = function.during(|| state.set(&guest))?;

        ensure!(failed, "{name} was not called, {result:?}");
        side.note(
            format_args!("{name} fails"),
            format_args!("{result:?}, then {}", super::copies::state_after(&guest)?),
        );
        drop(function);
        state.set(&guest).context("restore the state")?;
        let counter = guest.counter();
        guest.run_to(Stop::L2)?;
        side.expect(
            format_args!("{name}, L2 counts"),
            guest.counter(),
            counter + 1,
        )?;
        guest.complete()?;
    }
    Ok(())
}
