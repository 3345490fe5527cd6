// SPDX-License-Identifier: GPL-2.0

//! VM-exits for RDMSR and WRMSR, also for their forms with an immediate index.

use super::{
    access,
    msr_filter,
    overlaid,
    user_space_msr,
    AccessResult, //
};
use crate::{
    engine::{
        access::{
            load,
            reads_simply,
            store_unchecked,
            writes_simply,
            Access, //
        },
        exit::FILTERED,
        learn::Path,
        registers::{
            lookup,
            lookup_at,
            Location,
            Register, //
        },
    },
    kvm::{
        Completion,
        Counter,
        InRunLoop,
        Overlay,
        Run,
        Section,
        Timer,
        Vcpu,
        Way, //
    },
};
use kernel::prelude::*;

// Most VM-exits are for MSRs that are only loaded or stored. The functions of the ops handle these
// without a call that returns, so they save no registers. All other accesses are left to functions
// that are not inlined.

/// RDMSR: the index is in ECX, the value goes to EDX:EAX.
pub(crate) fn emulate_rdmsr(vcpu: InRunLoop<'_>) -> Run {
    read::<false>(vcpu, vcpu.ecx())
}

/// RDMSR with an immediate index: the value goes to one register.
pub(crate) fn emulate_rdmsr_imm(vcpu: InRunLoop<'_>, index: u32, reg: c_int) -> Run {
    // Stored for the completion: the VM-exit's information is no longer valid when user space
    // answers.
    vcpu.set_rdmsr_imm_reg(reg);
    read::<true>(vcpu, index)
}

/// WRMSR: the index is in ECX, the value in EDX:EAX.
pub(crate) fn emulate_wrmsr(vcpu: InRunLoop<'_>) -> Run {
    write::<false>(vcpu, vcpu.ecx(), || vcpu.edx_eax())
}

/// WRMSR with an immediate index: the value is in one register.
pub(crate) fn emulate_wrmsr_imm(vcpu: InRunLoop<'_>, index: u32, reg: c_int) -> Run {
    write::<true>(vcpu, index, || vcpu.operand(reg))
}

/// Returns whether the filter allows an access, or [`None`] if the access takes more than one lookup
/// in the filter and to load or store a value.
#[inline(always)]
fn verdict(section: &Section<'_>, is_simple: bool, index: u32, access: Access) -> Option<bool> {
    if !is_simple {
        return None;
    }
    msr_filter::verdict(section, index, access)
}

#[inline(always)]
fn read<const IMMEDIATE: bool>(vcpu: InRunLoop<'_>, index: u32) -> Run {
    let section = vcpu.section();
    let location = Location::of(index);

    vcpu.count(Counter::Reads, 1);
    let Some(overlay) = section.overlay() else {
        let register = lookup(index);
        let is_simple = reads_simply(&*vcpu, register);
        let run = match verdict(&section, is_simple, index, Access::Read) {
            Some(true) => read_fast::<IMMEDIATE>(vcpu, register, index, None),
            None => None,
            Some(false) => return read_denied::<IMMEDIATE>(vcpu, index),
        };

        return run.unwrap_or_else(|| read_plain::<IMMEDIATE>(vcpu, register, index));
    };

    match overlay.way(&vcpu, location, index, Access::Read) {
        Way::Judged => read_overlaid::<IMMEDIATE>(vcpu, overlay, None, index),
        Way::Plain => read_watched::<IMMEDIATE>(vcpu, overlay, location, index, None),
        Way::Counted(histogram) => {
            let timer = Timer::start(histogram);

            read_watched::<IMMEDIATE>(vcpu, overlay, location, index, Some(timer))
        }
    }
}

/// Reads in a VM with an overlay, if the read, besides being counted, needs only the filter and KVM.
#[inline(always)]
fn read_watched<const IMMEDIATE: bool>(
    vcpu: InRunLoop<'_>,
    overlay: &Overlay,
    location: Location,
    index: u32,
    timer: Option<Timer<'_>>,
) -> Run {
    let register = lookup_at(location);
    let is_simple = reads_simply(&*vcpu, register);
    let run = match verdict(&vcpu.section(), is_simple, index, Access::Read) {
        Some(true) => read_fast::<IMMEDIATE>(vcpu, register, index, timer),
        None | Some(false) => None,
    };

    run.unwrap_or_else(|| read_overlaid::<IMMEDIATE>(vcpu, overlay, timer, index))
}

/// Handles a read that [`verdict`] allows, or returns [`None`] if it takes more than to load a value.
#[inline(always)]
fn read_fast<const IMMEDIATE: bool>(
    vcpu: InRunLoop<'_>,
    register: &Register,
    index: u32,
    timer: Option<Timer<'_>>,
) -> Option<Run> {
    let data = load(&*vcpu, register)?;

    if let Some(timer) = timer {
        timer.stop();
    }
    Rdmsr::<IMMEDIATE>::set(&vcpu, data);
    vcpu.trace_read(index, Ok(data));
    Some(vcpu.complete_access(Ok(())))
}

/// Reads in a VM without an overlay.
#[inline(never)]
fn read_plain<const IMMEDIATE: bool>(vcpu: InRunLoop<'_>, register: &Register, index: u32) -> Run {
    let read = access::read_filtered(&vcpu, &vcpu.section(), register, index, None);

    end_read::<IMMEDIATE>(vcpu, index, read)
}

/// Ends a read that the filter denies, in a VM without an overlay.
#[inline(never)]
fn read_denied<const IMMEDIATE: bool>(vcpu: InRunLoop<'_>, index: u32) -> Run {
    vcpu.count(Counter::Filtered, 1);
    end_read::<IMMEDIATE>(vcpu, index, Err(FILTERED))
}

/// Reads in a VM with an overlay. There is a timer if the read, besides being counted, needs only the
/// filter and KVM.
#[inline(never)]
fn read_overlaid<const IMMEDIATE: bool>(
    vcpu: InRunLoop<'_>,
    overlay: &Overlay,
    timer: Option<Timer<'_>>,
    index: u32,
) -> Run {
    let section = vcpu.section();
    let read = match timer {
        Some(timer) => {
            let register = lookup(index);
            let read = access::read_filtered(&vcpu, &section, register, index, Some(overlay));

            timer.stop();
            read
        }
        None => overlaid::read(&vcpu, &section, overlay, index, path(IMMEDIATE)),
    };

    end_read::<IMMEDIATE>(vcpu, index, read)
}

#[inline(always)]
fn end_read<const IMMEDIATE: bool>(
    vcpu: InRunLoop<'_>,
    index: u32,
    read: AccessResult<u64>,
) -> Run {
    match read {
        Ok(data) => Rdmsr::<IMMEDIATE>::set(&vcpu, data),
        Err(denial) => {
            if user_space_msr::offer::<Rdmsr<IMMEDIATE>>(vcpu, index, None, denial) {
                return Run::TO_USER_SPACE;
            }
            user_space_msr::count_gp(vcpu, index, Access::Read);
        }
    }
    vcpu.trace_read(index, read);
    vcpu.complete_access(read.map(|_| ()))
}

#[inline(always)]
fn write<const IMMEDIATE: bool>(vcpu: InRunLoop<'_>, index: u32, data: impl Fn() -> u64) -> Run {
    let section = vcpu.section();
    let location = Location::of(index);

    vcpu.count(Counter::Writes, 1);
    let Some(overlay) = section.overlay() else {
        let register = lookup(index);
        let is_simple = writes_simply(&*vcpu, register);
        let run = match verdict(&section, is_simple, index, Access::Write) {
            Some(true) => write_fast(vcpu, register, index, data(), None),
            None => None,
            Some(false) => return write_denied(vcpu, index, data()),
        };

        return run.unwrap_or_else(|| write_plain(vcpu, register, index, data()));
    };

    match overlay.way(&vcpu, location, index, Access::Write) {
        Way::Judged => write_overlaid::<IMMEDIATE>(vcpu, overlay, None, index, data()),
        Way::Plain => write_watched::<IMMEDIATE>(vcpu, overlay, location, index, &data, None),
        Way::Counted(histogram) => {
            let timer = Timer::start(histogram);

            write_watched::<IMMEDIATE>(vcpu, overlay, location, index, &data, Some(timer))
        }
    }
}

/// Writes as [`read_watched`] reads.
#[inline(always)]
fn write_watched<const IMMEDIATE: bool>(
    vcpu: InRunLoop<'_>,
    overlay: &Overlay,
    location: Location,
    index: u32,
    data: impl Fn() -> u64,
    timer: Option<Timer<'_>>,
) -> Run {
    let register = lookup_at(location);
    let is_simple = writes_simply(&*vcpu, register);
    let run = match verdict(&vcpu.section(), is_simple, index, Access::Write) {
        Some(true) => write_fast(vcpu, register, index, data(), timer),
        None | Some(false) => None,
    };

    run.unwrap_or_else(|| write_overlaid::<IMMEDIATE>(vcpu, overlay, timer, index, data()))
}

/// Handles a write that [`verdict`] allows, or returns [`None`] if it takes more than to store a value.
#[inline(always)]
fn write_fast(
    vcpu: InRunLoop<'_>,
    register: &Register,
    index: u32,
    data: u64,
    timer: Option<Timer<'_>>,
) -> Option<Run> {
    if !store_unchecked(&*vcpu, register, data) {
        return None;
    }
    if let Some(timer) = timer {
        timer.stop();
    }
    vcpu.trace_write(index, data, Ok(()));
    Some(vcpu.complete_access(Ok(())))
}

/// Writes in a VM without an overlay.
#[inline(never)]
fn write_plain(vcpu: InRunLoop<'_>, register: &Register, index: u32, data: u64) -> Run {
    let write = access::write_filtered(&vcpu, &vcpu.section(), register, index, data, None);

    end_write(vcpu, index, data, write)
}

/// Ends a write that the filter denies, in a VM without an overlay.
#[inline(never)]
fn write_denied(vcpu: InRunLoop<'_>, index: u32, data: u64) -> Run {
    vcpu.count(Counter::Filtered, 1);
    end_write(vcpu, index, data, Err(FILTERED))
}

/// Writes as [`read_overlaid`] reads.
#[inline(never)]
fn write_overlaid<const IMMEDIATE: bool>(
    vcpu: InRunLoop<'_>,
    overlay: &Overlay,
    timer: Option<Timer<'_>>,
    index: u32,
    data: u64,
) -> Run {
    let section = vcpu.section();
    let write = match timer {
        Some(timer) => {
            let register = lookup(index);
            let write =
                access::write_filtered(&vcpu, &section, register, index, data, Some(overlay));

            timer.stop();
            write
        }
        None => overlaid::write(&vcpu, &section, overlay, index, data, path(IMMEDIATE)),
    };

    end_write(vcpu, index, data, write)
}

#[inline(always)]
fn end_write(vcpu: InRunLoop<'_>, index: u32, data: u64, write: AccessResult) -> Run {
    if let Err(denial) = write {
        if user_space_msr::offer::<Wrmsr>(vcpu, index, Some(data), denial) {
            return Run::TO_USER_SPACE;
        }
        // An errno is an error of KVM, not of the guest: it fails KVM_RUN instead of injecting #GP.
        if let Some(failed) = Run::errno(denial) {
            return failed;
        }
        user_space_msr::count_gp(vcpu, index, Access::Write);
    }
    vcpu.trace_write(index, data, write);
    vcpu.complete_access(write)
}

/// RDMSR: `IMMEDIATE` if it has an immediate index.
struct Rdmsr<const IMMEDIATE: bool>;

impl<const IMMEDIATE: bool> Rdmsr<IMMEDIATE> {
    /// Sets the register, or registers, to the value.
    #[inline(always)]
    fn set(vcpu: &Vcpu, data: u64) {
        if IMMEDIATE {
            vcpu.set_operand(vcpu.rdmsr_imm_reg(), data);
        } else {
            vcpu.set_edx_eax(data);
        }
    }
}

impl<const IMMEDIATE: bool> Completion for Rdmsr<IMMEDIATE> {
    fn complete(vcpu: &Vcpu) -> Run {
        let answer = user_space_msr::answer(vcpu, Access::Read);

        vcpu.complete_access(answer.map(|data| Self::set(vcpu, data)))
    }
}

/// WRMSR, of either form.
struct Wrmsr;

impl Completion for Wrmsr {
    fn complete(vcpu: &Vcpu) -> Run {
        vcpu.complete_access(user_space_msr::answer(vcpu, Access::Write).map(|_| ()))
    }
}

/// The way by which an access comes.
const fn path(immediate: bool) -> Path {
    if immediate {
        Path::Immediate
    } else {
        Path::Exit
    }
}
