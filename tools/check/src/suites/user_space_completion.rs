// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Completion of exits of KVM_CAP_X86_USER_SPACE_MSR, with other calls between the exit and the
//! re-entry.

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::ensure;
use kvm_bindings::KVM_MSR_EXIT_REASON_FILTER;
use kvm_bindings::KVM_MSR_EXIT_REASON_VALID_MASK;
use kvm_msr_guest::Access;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Outcome;
use kvm_msr_guest::Range;
use kvm_msr_guest::code::Stub;
use kvm_msr_guest::filter::READ;
use kvm_msr_guest::filter::WRITE;
use kvm_msr_guest::ioctl;
use kvm_msr_guest::msrs;
use rustix::process;
use rustix::process::Signal;
use vmm_sys_util::signal;

use super::Named;
use super::filter_guest::NOBODY;
use super::user_space::DENIED;
use super::user_space::PAT;
use super::user_space::WAYS;
use super::user_space::deflecting_guest;
use super::user_space::exit;
use super::user_space::registers;
use crate::side::Side;

/// The tests of this file.
pub const SCENARIOS: &[Named] = &[
    ("answered with a value", answered),
    ("answered with an error", answered_error),
    ("answered with unusual error bytes", odd_errors),
    ("immediate_exit before re-entry", immediate_exit),
    ("pending signal before re-entry", pending_signal),
    ("loop of deflected accesses", deflected_loop),
    ("reasons changed before completion", changed_reasons),
    ("registers set before completion", changed_registers),
];

fn answered(side: &mut Side) -> Result<()> {
    let mut guest = deflecting_guest(side, KVM_MSR_EXIT_REASON_VALID_MASK)?;

    for index in [NOBODY, DENIED] {
        for data in [
            0,
            1,
            0xffff_ffff,
            0x1_0000_0000,
            0x1234_5678_9abc_def0,
            u64::MAX,
        ] {
            for (access, emulated) in WAYS {
                exit(side, &mut guest, (access, emulated), index, 7)?;
                // For WRMSR, the answer's data are ignored.
                guest.answer(data, 0);
                let outcome = guest.run()?;
                let expected = match access {
                    Access::Read => Outcome::Value(data),
                    Access::Write => Outcome::Done,
                };

                side.expect(format!("answered {data:#x}"), outcome, expected)?;
                registers(side, &guest)?;
            }
        }
    }
    Ok(())
}

fn answered_error(side: &mut Side) -> Result<()> {
    let mut guest = deflecting_guest(side, KVM_MSR_EXIT_REASON_VALID_MASK)?;

    for index in [NOBODY, DENIED] {
        for (access, emulated) in WAYS {
            exit(side, &mut guest, (access, emulated), index, 0x7_0000_0009)?;
            guest.answer(0x1234_5678_9abc_def0, 1);
            let outcome = guest.run()?;
            side.note("answered an error", outcome);
            ensure!(outcome.is_gp(), "{outcome} instead of #GP");

            // The registers are unchanged, whatever the answer's data are.
            registers(side, &guest)?;
            let regs = guest.regs()?;
            let (rax, rdx) = match access {
                Access::Read => (0, 0),
                Access::Write => (9, 7),
            };
            ensure!(
                (regs.rax, regs.rdx) == (rax, rdx),
                "RAX {:#x} RDX {:#x} after #GP",
                regs.rax,
                regs.rdx
            );
        }
    }
    Ok(())
}

fn odd_errors(side: &mut Side) -> Result<()> {
    let mut guest = deflecting_guest(side, KVM_MSR_EXIT_REASON_VALID_MASK)?;

    for error in [2, 0x80, 0xff] {
        for (access, emulated) in WAYS {
            exit(side, &mut guest, (access, emulated), NOBODY, 0)?;
            guest.answer(5, error);
            let outcome = guest.run()?;
            side.note(format!("answered error {error:#x}"), outcome);
            ensure!(outcome.is_gp(), "error {error:#x}: {outcome}");
        }
    }
    Ok(())
}

/// The state that re-entry has to find, whatever else happens before it.
fn completes_first(
    side: &mut Side,
    guest: &mut Guest,
    interrupt: impl Fn(&mut Guest) -> Result<()>,
    calm: impl Fn(&mut Guest) -> Result<()>,
) -> Result<()> {
    const DATA: u64 = 0x1234_5678_9abc_def0;

    for (access, emulated) in WAYS {
        for error in [0, 1] {
            exit(side, guest, (access, emulated), NOBODY, 0x3_0000_0004)?;
            guest.answer(DATA, error);

            // KVM completes the access, but does not run the guest.
            interrupt(guest)?;
            let outcome = guest.run()?;
            side.expect("interrupted", outcome, Outcome::Interrupted)?;
            let progress = registers(side, guest)?;
            let length = if emulated { 7 } else { 2 };
            if error == 0 {
                ensure!(progress == length, "RIP is at +{progress}, not +{length}");
                if access == Access::Read {
                    let regs = guest.regs()?;
                    ensure!(
                        (regs.rdx << 32 | regs.rax) == DATA,
                        "EDX:EAX is {:#x}:{:#x}",
                        regs.rdx,
                        regs.rax
                    );
                }
            } else {
                let events = guest.vcpu().get_vcpu_events()?;
                side.note(
                    "exception",
                    format!(
                        "{} injected {} pending {}",
                        events.exception.nr, events.exception.injected, events.exception.pending
                    ),
                );
            }

            // After a second interruption, nothing is completed twice.
            let outcome = guest.run()?;
            side.expect("interrupted again", outcome, Outcome::Interrupted)?;
            registers(side, guest)?;

            calm(guest)?;
            let outcome = guest.run()?;
            side.note("continued", outcome);
            let expected = match (error, access) {
                (0, Access::Read) => outcome == Outcome::Value(DATA),
                (0, Access::Write) => outcome == Outcome::Done,
                _ => outcome.is_gp(),
            };
            ensure!(expected, "continued after error {error} with {outcome}");
        }
    }
    Ok(())
}

fn immediate_exit(side: &mut Side) -> Result<()> {
    let mut guest = deflecting_guest(side, KVM_MSR_EXIT_REASON_VALID_MASK)?;

    completes_first(
        side,
        &mut guest,
        |guest| {
            guest.set_immediate_exit(1);
            Ok(())
        },
        |guest| {
            guest.set_immediate_exit(0);
            Ok(())
        },
    )
}

fn pending_signal(side: &mut Side) -> Result<()> {
    let mut guest = deflecting_guest(side, KVM_MSR_EXIT_REASON_VALID_MASK)?;
    let number = Signal::USR1.as_raw();

    // Blocked in this thread, but not while the vCPU runs. So it stays pending, and interrupts
    // KVM_RUN until it is removed.
    signal::block_signal(number).map_err(signal_error)?;
    ioctl::set_signal_mask(guest.vcpu(), 0).context("KVM_SET_SIGNAL_MASK")?;
    let result = completes_first(
        side,
        &mut guest,
        |_| process::kill_process(process::getpid(), Signal::USR1).context("raise a signal"),
        |_| signal::clear_signal(number).map_err(signal_error),
    );
    let _ = signal::clear_signal(number);
    signal::unblock_signal(number).map_err(signal_error)?;
    result
}

fn signal_error(error: signal::Error) -> anyhow::Error {
    anyhow!("signal: {error}")
}

fn deflected_loop(side: &mut Side) -> Result<()> {
    const COUNT: u32 = 1000;
    let mut guest = deflecting_guest(side, KVM_MSR_EXIT_REASON_FILTER)?;

    for (stub, last) in [
        (Stub::RdmsrLoop, Outcome::Value(u64::from(COUNT - 1))),
        (Stub::WrmsrLoop, Outcome::Done),
    ] {
        guest.start(stub, DENIED, 0x55, COUNT)?;
        for i in 0..COUNT {
            let outcome = guest.run()?;
            ensure!(
                outcome.user_space().is_some(),
                "access {i} of {COUNT} gave {outcome}"
            );
            guest.answer(i.into(), 0);
        }
        let outcome = guest.run()?;
        side.expect(format!("end of {COUNT} accesses"), outcome, last)?;
    }
    Ok(())
}

fn changed_reasons(side: &mut Side) -> Result<()> {
    let mut guest = deflecting_guest(side, KVM_MSR_EXIT_REASON_VALID_MASK)?;

    // Neither the mask nor the filter affects an exit that waits for its completion.
    for way in WAYS {
        exit(side, &mut guest, way, DENIED, 0)?;
        guest.deflect(0)?;
        Filter::allow_by_default().set(guest.vm())?;
        guest.answer(0x77, 0);
        let outcome = guest.run()?;
        side.note("answered", outcome);
        ensure!(
            matches!(outcome, Outcome::Value(0x77) | Outcome::Done),
            "completed with {outcome}"
        );

        let outcome = guest.access(way.0, way.1, DENIED, 0)?;
        side.note("after", outcome);
        ensure!(outcome.is_gp(), "{outcome} with nothing deflected");

        guest.deflect(KVM_MSR_EXIT_REASON_VALID_MASK)?;
        Filter::allow_by_default()
            .with(Range::deny(READ | WRITE, DENIED, 1))
            .set(guest.vm())?;
    }
    Ok(())
}

fn changed_registers(side: &mut Side) -> Result<()> {
    let mut guest = deflecting_guest(side, KVM_MSR_EXIT_REASON_VALID_MASK)?;

    // KVM_GET_MSRS and KVM_SET_MSRS in between change nothing, and KVM ignores what user space
    // writes to other members of kvm_run.msr.
    for way in WAYS {
        exit(side, &mut guest, way, NOBODY, 0)?;
        let known = msrs::get(guest.vcpu(), NOBODY)?;
        side.note("KVM_GET_MSRS of the same MSR", format!("{known:?}"));
        let pat = msrs::get(guest.vcpu(), PAT)?;
        side.note("KVM_GET_MSRS of PAT", format!("{pat:?}"));
        let done = msrs::set(guest.vcpu(), PAT, 0x0007_0406_0007_0406)?;
        side.expect("KVM_SET_MSRS of PAT", done, true)?;
        guest.fill_msr(0xff);
        guest.answer(0x99, 0);
        let outcome = guest.run()?;
        side.note("answered", outcome);
        ensure!(
            matches!(outcome, Outcome::Value(0x99) | Outcome::Done),
            "completed with {outcome}"
        );
    }
    Ok(())
}
