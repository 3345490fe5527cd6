// SPDX-License-Identifier: Apache-2.0 OR MIT

//! KVM_X86_SET_MSR_FILTER in api.rst: what the ioctl refuses, and with which errno.

use anyhow::Result;
use kvm_msr_guest::Abi;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Mapping;
use kvm_msr_guest::Range;
use kvm_msr_guest::UserPtr;
use kvm_msr_guest::filter::MAX_MSRS;
use kvm_msr_guest::filter::MAX_RANGES;
use kvm_msr_guest::filter::READ;
use kvm_msr_guest::filter::RawFilter;
use kvm_msr_guest::filter::RawRange;
use kvm_msr_guest::filter::WRITE;
use kvm_msr_guest::ioctl;
use kvm_msr_guest::memory::PAGE;
use kvm_msr_guest::memory::Protection;

use super::Named;
use super::filter_guest::NOBODY;
use super::filter_guest::deflecting_guest;
use super::filter_guest::judge_both;
use crate::side::Side;

const DENY: u32 = 1;
const EINVAL: ioctl::Result = Err(Errno::EINVAL);
const EFAULT: ioctl::Result = Err(Errno::EFAULT);

/// The tests of this file.
pub const SCENARIOS: &[Named] = &[
    ("flags of the filter", filter_flags),
    ("empty filters", empty_filters),
    ("flags of a range", range_flags),
    ("number of MSRs", number_of_msrs),
    ("inaccessible bitmap", bitmap_faults),
    ("inaccessible structure", structure_faults),
    ("first error wins", first_error_wins),
    ("number of the other ABI", crossed_abi),
    ("a failed call changes nothing", refused_changes_nothing),
];

/// Bitmaps for raw filters: two pages of ones, then an inaccessible page.
struct Bitmaps(Mapping);

impl Bitmaps {
    fn new() -> Result<Self> {
        let mut mapping = Mapping::low(2 * PAGE)?;

        mapping.write(0, &[0xff; 2 * PAGE]);
        Ok(Bitmaps(mapping))
    }

    fn range(&self, flags: u32, base: u32, nmsrs: u32) -> RawRange {
        RawRange {
            flags,
            nmsrs,
            base,
            bitmap: self.0.at(0).address(),
        }
    }

    /// A range whose bitmap starts `bytes` bytes before the inaccessible page.
    fn range_at_end(&self, nmsrs: u32, bytes: usize) -> RawRange {
        RawRange {
            bitmap: self.0.at(2 * PAGE - bytes).address(),
            ..self.range(READ, NOBODY, nmsrs)
        }
    }
}

/// A filter with ranges at the given positions.
fn raw(flags: u32, ranges: &[(usize, RawRange)]) -> RawFilter {
    let mut filter = RawFilter {
        flags,
        ..Default::default()
    };

    for &(i, range) in ranges {
        filter.ranges[i] = range;
    }
    filter
}

/// Makes the ioctl through both ABIs.
fn set(
    side: &mut Side,
    guest: &Guest,
    step: &str,
    filter: &RawFilter,
    expected: ioctl::Result,
) -> Result<()> {
    for abi in Abi::ALL {
        let result = filter.set(abi, guest.vm());

        side.ioctl(format!("{abi} set filter, {step}"), result, expected)?;
    }
    Ok(())
}

fn filter_flags(side: &mut Side) -> Result<()> {
    let guest = side.guest()?;
    let bitmaps = Bitmaps::new()?;
    let range = bitmaps.range(READ, NOBODY, 8);

    for bit in 1..32 {
        let filter = raw(1 << bit, &[(0, range)]);
        set(side, &guest, &format!("flag {bit}"), &filter, EINVAL)?;
    }
    for flags in [2, 3, u32::MAX] {
        let filter = raw(flags, &[(0, range)]);
        set(side, &guest, &format!("flags {flags:#x}"), &filter, EINVAL)?;
        set(side, &guest, "and empty", &raw(flags, &[]), EINVAL)?;
    }
    for flags in [0, DENY] {
        let filter = raw(flags, &[(0, range)]);
        set(side, &guest, &format!("flags {flags:#x}"), &filter, Ok(0))?;
    }
    Ok(())
}

fn empty_filters(side: &mut Side) -> Result<()> {
    let mut guest = deflecting_guest(side)?;
    let bitmaps = Bitmaps::new()?;
    // KVM ignores bad flags and a bad pointer if nmsrs is 0.
    let ignored = RawRange {
        flags: u32::MAX,
        nmsrs: 0,
        base: u32::MAX,
        bitmap: 0xdead_0000,
    };
    let all_ignored = RawFilter {
        flags: 0,
        ranges: [ignored; MAX_RANGES],
    };

    set(side, &guest, "empty, deny", &raw(DENY, &[]), EINVAL)?;
    set(side, &guest, "empty, allow", &raw(0, &[]), Ok(0))?;
    set(side, &guest, "ranges of 0 MSRs, allow", &all_ignored, Ok(0))?;
    judge_both(side, &mut guest, NOBODY, true)?;
    let deny = RawFilter {
        flags: DENY,
        ..all_ignored
    };
    set(side, &guest, "ranges of 0 MSRs, deny", &deny, EINVAL)?;

    // Only the last of sixteen ranges has MSRs.
    let mut last = deny;
    last.ranges[15] = bitmaps.range(READ | WRITE, NOBODY, 8);
    set(side, &guest, "last range only, deny", &last, Ok(0))?;
    judge_both(side, &mut guest, NOBODY + 7, true)?;
    judge_both(side, &mut guest, NOBODY + 8, false)?;

    // An empty filter ends filtering.
    set(side, &guest, "empty, allow", &raw(0, &[]), Ok(0))?;
    judge_both(side, &mut guest, NOBODY + 8, true)
}

fn range_flags(side: &mut Side) -> Result<()> {
    let guest = side.guest()?;
    let bitmaps = Bitmaps::new()?;

    for flags in [0, 4, 5, 6, 7, 8, 0x8000_0000, u32::MAX] {
        for at in [0, 7, 15] {
            let filter = raw(0, &[(at, bitmaps.range(flags, NOBODY, 8))]);
            let step = format!("range {at} with flags {flags:#x}");
            set(side, &guest, &step, &filter, EINVAL)?;
        }
    }
    for flags in [READ, WRITE, READ | WRITE] {
        let filter = raw(0, &[(3, bitmaps.range(flags, NOBODY, 8))]);
        set(
            side,
            &guest,
            &format!("range with flags {flags}"),
            &filter,
            Ok(0),
        )?;
    }
    Ok(())
}

fn number_of_msrs(side: &mut Side) -> Result<()> {
    let guest = side.guest()?;
    let bitmaps = Bitmaps::new()?;
    let valid = [1, 63, 64, 65, MAX_MSRS - 1, MAX_MSRS];
    let too_many = [
        MAX_MSRS + 1,
        MAX_MSRS + 64,
        0x8000_0000,
        // BITS_TO_LONGS() of these would overflow 32 bits.
        u32::MAX - 63,
        u32::MAX - 62,
        u32::MAX,
    ];

    for (numbers, expected) in [(&valid[..], Ok(0)), (&too_many[..], EINVAL)] {
        for &nmsrs in numbers {
            for base in [0, NOBODY, u32::MAX] {
                let filter = raw(0, &[(0, bitmaps.range(READ, base, nmsrs))]);
                let step = format!("{nmsrs:#x} MSRs from {base:#x}");
                set(side, &guest, &step, &filter, expected)?;
            }
        }
    }
    Ok(())
}

fn bitmap_faults(side: &mut Side) -> Result<()> {
    let guest = side.guest()?;
    let bitmaps = Bitmaps::new()?;

    // KVM copies whole 64-bit words.
    for (nmsrs, bytes, expected) in [
        (1, 8, Ok(0)),
        (64, 8, Ok(0)),
        (1, 7, EFAULT),
        (8, 1, EFAULT),
        (1, 0, EFAULT),
        (65, 16, Ok(0)),
        (65, 15, EFAULT),
        (65, 9, EFAULT),
        (MAX_MSRS, 0x600, Ok(0)),
        (MAX_MSRS, 0x5ff, EFAULT),
        (MAX_MSRS, 0x300, EFAULT),
    ] {
        for at in [0, 15] {
            let filter = raw(DENY, &[(at, bitmaps.range_at_end(nmsrs, bytes))]);
            let step = format!("range {at} of {nmsrs:#x} MSRs, {bytes:#x} bytes before a hole");
            set(side, &guest, &step, &filter, expected)?;
        }
    }

    let pointers = [
        ("null", UserPtr::null()),
        ("non-canonical", UserPtr::non_canonical()),
        ("kernel", UserPtr::kernel()),
        ("unmapped", bitmaps.0.before()),
    ];
    for (name, pointer) in pointers {
        let range = RawRange {
            bitmap: pointer.address(),
            ..bitmaps.range(READ, NOBODY, 8)
        };
        let step = format!("bitmap at {name} address");
        let result = raw(0, &[(0, range)]).set(Abi::Native, guest.vm());
        side.ioctl(format!("native set filter, {step}"), result, EFAULT)?;
    }
    for bitmap in [0, 1, 0xffff_f000, u32::MAX] {
        let range = RawRange {
            bitmap: bitmap.into(),
            ..bitmaps.range(READ, NOBODY, 8)
        };
        let step = format!("bitmap at {bitmap:#x}");
        let result = raw(0, &[(0, range)]).set(Abi::Compat, guest.vm());
        side.ioctl(format!("compat set filter, {step}"), result, EFAULT)?;
    }
    // The compat pointer has 32 bits. The following 32 bits are the flags of the next range, and
    // must be ignored.
    let result = raw(0, &[(0, bitmaps.range(READ, NOBODY, 8))]).set(Abi::Compat, guest.vm());
    side.ioctl("compat set filter, low bitmap", result, Ok(0))
}

fn structure_faults(side: &mut Side) -> Result<()> {
    let guest = side.guest()?;
    let bitmaps = Bitmaps::new()?;
    let filter = raw(0, &[(0, bitmaps.range(READ, NOBODY, 8))]);

    for abi in Abi::ALL {
        let bytes = filter.to_bytes(abi);
        let mut memory = Mapping::low(2 * PAGE)?;

        // The whole structure fits, or one byte, half, or all of it is missing.
        for missing in [0, 1, bytes.len() / 2, bytes.len()] {
            let offset = 2 * PAGE - bytes.len() + missing;
            let expected = if missing == 0 { Ok(0) } else { EFAULT };

            memory.write(offset, &bytes[..bytes.len() - missing]);
            let result = ioctl::set_msr_filter(abi, guest.vm(), memory.at(offset));
            let step = format!("{abi} set filter, {missing} bytes missing");
            side.ioctl(step, result, expected)?;
        }

        // The second page becomes inaccessible.
        memory.protect(1..2, Protection::None)?;
        let offset = PAGE - bytes.len() + 8;
        memory.write(offset, &bytes[..bytes.len() - 8]);
        let result = ioctl::set_msr_filter(abi, guest.vm(), memory.at(offset));
        side.ioctl(format!("{abi} set filter, into a hole"), result, EFAULT)?;

        // Unaligned and read-only memory works.
        memory.protect(1..2, Protection::ReadWrite)?;
        memory.write(PAGE + 1, &bytes);
        memory.protect(1..2, Protection::Read)?;
        let result = ioctl::set_msr_filter(abi, guest.vm(), memory.at(PAGE + 1));
        side.ioctl(format!("{abi} set filter, unaligned"), result, Ok(0))?;

        let result = ioctl::set_msr_filter(abi, guest.vm(), UserPtr::null());
        side.ioctl(format!("{abi} set filter, null"), result, EFAULT)?;
        let result = ioctl::set_msr_filter(abi, guest.vm(), memory.before());
        side.ioctl(format!("{abi} set filter, unmapped"), result, EFAULT)?;
    }
    for (name, pointer) in [
        ("non-canonical", UserPtr::non_canonical()),
        ("kernel", UserPtr::kernel()),
    ] {
        let result = ioctl::set_msr_filter(Abi::Native, guest.vm(), pointer);
        side.ioctl(format!("native set filter, {name}"), result, EFAULT)?;
    }
    Ok(())
}

fn first_error_wins(side: &mut Side) -> Result<()> {
    let guest = side.guest()?;
    let bitmaps = Bitmaps::new()?;
    let good = bitmaps.range(READ, NOBODY, 8);
    let invalid = bitmaps.range(0, NOBODY, 8);
    let faulting = bitmaps.range_at_end(8, 0);
    let invalid_and_faulting = RawRange {
        flags: 8,
        ..faulting
    };
    let too_many_and_faulting = RawRange {
        nmsrs: MAX_MSRS + 1,
        ..faulting
    };

    for (step, filter, expected) in [
        (
            "invalid, faulting",
            raw(0, &[(0, invalid), (1, faulting)]),
            EINVAL,
        ),
        (
            "faulting, invalid",
            raw(0, &[(0, faulting), (1, invalid)]),
            EFAULT,
        ),
        (
            "good, faulting, invalid",
            raw(0, &[(0, good), (7, faulting), (15, invalid)]),
            EFAULT,
        ),
        (
            "good, invalid, faulting",
            raw(0, &[(0, good), (7, invalid), (15, faulting)]),
            EINVAL,
        ),
        (
            "invalid and faulting",
            raw(0, &[(0, invalid_and_faulting)]),
            EINVAL,
        ),
        (
            "too many and faulting",
            raw(0, &[(0, too_many_and_faulting)]),
            EINVAL,
        ),
        (
            "bad filter flags, faulting",
            raw(4, &[(0, faulting)]),
            EINVAL,
        ),
    ] {
        set(side, &guest, step, &filter, expected)?;
    }
    Ok(())
}

fn crossed_abi(side: &mut Side) -> Result<()> {
    let guest = side.guest()?;
    let bitmaps = Bitmaps::new()?;
    let filter = raw(0, &[(0, bitmaps.range(READ, NOBODY, 8))]);
    let mut memory = Mapping::low(PAGE)?;

    // A 64-bit ioctl has no compat form, but a 32-bit ioctl also accepts the native form.
    memory.write(0, &filter.to_bytes(Abi::Compat));
    let result = ioctl::set_msr_filter_crossed(Abi::Native, guest.vm(), memory.at(0));
    side.ioctl("compat number, native call", result, Err(Errno::ENOTTY))?;
    memory.write(0, &filter.to_bytes(Abi::Native));
    let result = ioctl::set_msr_filter_crossed(Abi::Compat, guest.vm(), memory.at(0));
    side.ioctl("native number, compat call", result, Ok(0))
}

fn refused_changes_nothing(side: &mut Side) -> Result<()> {
    let mut guest = deflecting_guest(side)?;
    let bitmaps = Bitmaps::new()?;
    let deny = Range::deny(READ | WRITE, NOBODY, 8);

    Filter::allow_by_default().with(deny).set(guest.vm())?;
    judge_both(side, &mut guest, NOBODY, false)?;

    let good = bitmaps.range(READ | WRITE, NOBODY, 8);
    for (step, filter, expected) in [
        ("bad flags", raw(2, &[(0, good)]), EINVAL),
        ("empty deny", raw(DENY, &[]), EINVAL),
        (
            "good then faulting",
            raw(0, &[(0, good), (15, bitmaps.range_at_end(8, 1))]),
            EFAULT,
        ),
        (
            "good then invalid",
            raw(DENY, &[(0, good), (1, bitmaps.range(0, 0, 1))]),
            EINVAL,
        ),
    ] {
        set(side, &guest, step, &filter, expected)?;
        judge_both(side, &mut guest, NOBODY, false)?;
        judge_both(side, &mut guest, NOBODY + 8, true)?;
    }
    Ok(())
}
