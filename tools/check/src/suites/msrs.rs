// SPDX-License-Identifier: Apache-2.0 OR MIT

//! KVM_GET_MSRS and KVM_SET_MSRS in api.rst: limits, inaccessible memory, partial counts, and
//! every byte that is written.

use anyhow::Result;
use anyhow::ensure;
use kvm_msr_guest::Abi;
use kvm_msr_guest::Cpuid;
use kvm_msr_guest::Errno;
use kvm_msr_guest::Guest;
use kvm_msr_guest::UserPtr;
use kvm_msr_guest::ioctl;
use kvm_msr_guest::memory::PAGE;
use kvm_msr_guest::memory::Protection;
use kvm_msr_guest::msrs;
use kvm_msr_guest::msrs::ENTRY;
use kvm_msr_guest::msrs::Entry;
use kvm_msr_guest::msrs::HEADER;
use kvm_msr_guest::msrs::TOO_MANY;

use super::Named;
use super::filter_guest::NOBODY;
use crate::arena::Arena;
use crate::arena::Call;
use crate::arena::changes;
use crate::side::Side;
use crate::side::show;

const PAT: u32 = 0x277;
const EFER: u32 = 0xc000_0080;
const STAR: u32 = 0xc000_0081;

/// A value that PAT accepts. Below: another one, and one that it refuses.
const PAT_RESET: u64 = 0x0007_0406_0007_0406;
const PAT_OTHER: u64 = 0x0606_0606_0606_0606;
const PAT_BAD: u64 = 0x0202_0202_0202_0202;

const EFAULT: ioctl::Result = Err(Errno::EFAULT);
const E2BIG: ioctl::Result = Err(Errno::E2BIG);
/// The tests of this file.
pub const SCENARIOS: &[Named] = &[
    ("number of entries", numbers),
    ("inaccessible header", header_faults),
    ("inaccessible entries", entries_fault),
    ("inaccessible write-back", write_back_faults),
    ("unknown MSR in the middle", unknown),
    ("refused value in the middle", refused),
    ("reserved, duplicates, alignment", oddities),
    ("feature MSRs of /dev/kvm", device),
    ("CET MSRs and the guest's FPU", cet),
    ("E2BIG before EFAULT", precedence),
];

fn pat(count: usize) -> Vec<Entry> {
    vec![Entry::new(PAT, PAT_RESET); count]
}

fn value(side: &mut Side, guest: &Guest, index: u32, expected: u64) -> Result<()> {
    let value = msrs::get(guest.vcpu(), index)?;

    side.note(format!("{index:#x} is"), format!("{value:x?}"));
    ensure!(
        value == Some(expected),
        "{index:#x} is {value:x?}, not {expected:#x}"
    );
    Ok(())
}

fn numbers(side: &mut Side) -> Result<()> {
    let guest = side.guest()?;

    for abi in Abi::ALL {
        let mut arena = Arena::new(abi)?;

        for call in [Call::Get, Call::Set] {
            for count in [1u32, 2, 100, TOO_MANY - 1] {
                arena.put(64, count, &pat(count as usize));
                let step = format!("{count} entries");
                arena.call(side, &guest, call, 64, &step, Ok(count as i32))?;
            }
            for count in [
                TOO_MANY,
                TOO_MANY + 1,
                0x1000_0000,
                0x1000_0001,
                0x8000_0000,
                u32::MAX,
            ] {
                arena.put(64, count, &pat(300));
                arena.call(
                    side,
                    &guest,
                    call,
                    64,
                    &format!("{count:#x} entries"),
                    E2BIG,
                )?;
            }
            // Without entries, only the header has to be readable.
            for offset in [64, 2 * PAGE - HEADER] {
                arena.put(offset, 0, &[]);
                arena.call(side, &guest, call, offset, "no entries", Ok(0))?;
            }
        }
    }
    Ok(())
}

fn header_faults(side: &mut Side) -> Result<()> {
    let guest = side.guest()?;

    for abi in Abi::ALL {
        let mut arena = Arena::new(abi)?;

        for call in [Call::Get, Call::Set] {
            for bytes in [0, 1, 4, 7] {
                let offset = 2 * PAGE - bytes;
                let step = format!("{bytes} bytes of a header");

                arena.memory.write(offset, &[0; 8][..bytes]);
                arena.call(side, &guest, call, offset, &step, EFAULT)?;
            }
        }
        let mut pointers = vec![("null", UserPtr::null()), ("before", arena.memory.before())];
        if abi == Abi::Native {
            pointers.push(("non-canonical", UserPtr::non_canonical()));
            pointers.push(("kernel", UserPtr::kernel()));
        }
        for (name, pointer) in pointers {
            let result = ioctl::get_msrs(abi, guest.vcpu(), pointer);
            side.ioctl(format!("{abi} get, {name}"), result, EFAULT)?;
            let result = ioctl::set_msrs(abi, guest.vcpu(), pointer);
            side.ioctl(format!("{abi} set, {name}"), result, EFAULT)?;
        }
    }
    Ok(())
}

fn entries_fault(side: &mut Side) -> Result<()> {
    let guest = side.guest()?;

    msrs::set(guest.vcpu(), PAT, PAT_RESET)?;
    for abi in Abi::ALL {
        let mut arena = Arena::new(abi)?;

        for call in [Call::Get, Call::Set] {
            // The number of entries in nmsrs, and the number of bytes of them that are accessible.
            for (count, bytes) in [
                (1, 0),
                (1, 1),
                (1, 8),
                (1, 15),
                (2, 16),
                (2, 24),
                (2, 31),
                (255, 254 * ENTRY),
                (255, 255 * ENTRY - 1),
            ] {
                let offset = 2 * PAGE - HEADER - bytes;
                let step = format!("{count} entries of which {bytes} bytes are there");

                arena.put(
                    offset,
                    count,
                    &vec![Entry::new(PAT, PAT_OTHER); count as usize],
                );
                arena.call(side, &guest, call, offset, &step, EFAULT)?;
                // The call set nothing.
                value(side, &guest, PAT, PAT_RESET)?;
            }
            // The entries end exactly at the end of memory.
            let offset = 2 * PAGE - HEADER - 255 * ENTRY;
            arena.put(offset, 255, &pat(255));
            arena.call(
                side,
                &guest,
                call,
                offset,
                "255 entries at the end",
                Ok(255),
            )?;
        }
    }
    Ok(())
}

fn write_back_faults(side: &mut Side) -> Result<()> {
    let guest = side.guest()?;

    msrs::set(guest.vcpu(), PAT, PAT_OTHER)?;
    for abi in Abi::ALL {
        let mut arena = Arena::new(abi)?;

        // All of the memory is read-only.
        for count in [1, 2, 255] {
            arena.put(0, count, &pat(count as usize));
            arena.memory.protect(0..2, Protection::Read)?;
            let step = format!("{count} read-only entries");
            arena.call(side, &guest, Call::Get, 0, &step, EFAULT)?;
            arena.call(side, &guest, Call::Set, 0, &step, Ok(count as i32))?;
            arena.memory.protect(0..2, Protection::ReadWrite)?;
            msrs::set(guest.vcpu(), PAT, PAT_OTHER)?;
        }
        // Without entries, nothing is written.
        arena.put(0, 0, &[]);
        arena.memory.protect(0..2, Protection::Read)?;
        arena.call(side, &guest, Call::Get, 0, "no read-only entries", Ok(0))?;
        arena.memory.protect(0..2, Protection::ReadWrite)?;

        // The second page is read-only; the first holds the beginning of the entries.
        for before in [1, 8, 9, 15, 16, 17, 100 * ENTRY, 100 * ENTRY + 13] {
            let offset = PAGE - HEADER - before;

            arena.put(offset, 200, &pat(200));
            arena.memory.protect(1..2, Protection::Read)?;
            let step = format!("200 entries, read-only after {before} bytes");
            arena.call(side, &guest, Call::Get, offset, &step, EFAULT)?;
            arena.memory.protect(1..2, Protection::ReadWrite)?;
        }
        // The header is read-only, the entries are not: the header is never written.
        let offset = PAGE - HEADER;
        arena.put(offset, 3, &pat(3));
        arena.memory.protect(0..1, Protection::Read)?;
        arena.call(side, &guest, Call::Get, offset, "header read-only", Ok(3))?;
        arena.memory.protect(0..1, Protection::ReadWrite)?;

        // EFAULT takes precedence over a partial count.
        arena.put(0, 2, &[Entry::new(NOBODY, 1), Entry::new(PAT, 1)]);
        arena.memory.protect(0..2, Protection::Read)?;
        arena.call(side, &guest, Call::Get, 0, "unknown and read-only", EFAULT)?;
        arena.memory.protect(0..2, Protection::ReadWrite)?;
    }
    Ok(())
}

fn unknown(side: &mut Side) -> Result<()> {
    const GARBAGE: u64 = 0xdead_beef_dead_beef;
    let guest = side.guest()?;

    msrs::set(guest.vcpu(), PAT, PAT_OTHER)?;
    msrs::set(guest.vcpu(), STAR, 0x1234_5678)?;
    for abi in Abi::ALL {
        let mut arena = Arena::new(abi)?;

        for at in [0, 1, 2, 5] {
            let mut entries = vec![Entry::new(PAT, GARBAGE); 6];
            entries[at].index = NOBODY;
            arena.put(32, 6, &entries);
            let step = format!("unknown at {at}");
            arena.call(side, &guest, Call::Get, 32, &step, Ok(at as i32))?;
            for i in 0..6 {
                let expected = match i.cmp(&at) {
                    std::cmp::Ordering::Less => PAT_OTHER,
                    std::cmp::Ordering::Equal => 0,
                    std::cmp::Ordering::Greater => GARBAGE,
                };
                ensure!(
                    arena.entry(32, i) == expected,
                    "{step}: entry {i} is {:#x}, not {expected:#x}",
                    arena.entry(32, i)
                );
            }

            // KVM sets the entries before it, but not those after it.
            let mut entries = vec![Entry::new(STAR, 0); 6];
            for (i, entry) in entries.iter_mut().enumerate() {
                entry.data = 0x100 + i as u64;
            }
            entries[at].index = NOBODY;
            arena.put(32, 6, &entries);
            msrs::set(guest.vcpu(), STAR, 0x99)?;
            arena.call(side, &guest, Call::Set, 32, &step, Ok(at as i32))?;
            let expected = if at == 0 { 0x99 } else { 0xff + at as u64 };
            value(side, &guest, STAR, expected)?;
        }
    }
    Ok(())
}

fn refused(side: &mut Side) -> Result<()> {
    let guest = side.guest()?;

    for abi in Abi::ALL {
        let mut arena = Arena::new(abi)?;
        let entries = [
            Entry::new(PAT, PAT_OTHER),
            Entry::new(PAT, PAT_BAD),
            Entry::new(PAT, PAT_RESET),
        ];

        arena.put(8, 3, &entries);
        arena.call(side, &guest, Call::Set, 8, "refused at 1", Ok(1))?;
        value(side, &guest, PAT, PAT_OTHER)?;
        arena.put(8, 2, &entries[1..]);
        arena.call(side, &guest, Call::Set, 8, "refused at 0", Ok(0))?;
        value(side, &guest, PAT, PAT_OTHER)?;
        arena.put(8, 1, &[Entry::new(EFER, u64::MAX)]);
        arena.call(side, &guest, Call::Set, 8, "EFER with reserved bits", Ok(0))?;
        value(side, &guest, EFER, 0)?;
    }
    Ok(())
}

fn oddities(side: &mut Side) -> Result<()> {
    let guest = side.guest()?;

    for abi in Abi::ALL {
        let mut arena = Arena::new(abi)?;
        let reserved = |index, data| Entry {
            reserved: 0xdead_beef,
            ..Entry::new(index, data)
        };

        msrs::set(guest.vcpu(), PAT, PAT_OTHER)?;
        for offset in [0, 1, 3, 7, 12, PAGE - 1, PAGE - 5, PAGE - 13] {
            let entries = [reserved(PAT, 1), reserved(PAT, 2), reserved(STAR, 3)];
            arena.put(offset, 3, &entries);
            arena.call(side, &guest, Call::Get, offset, "unaligned", Ok(3))?;
            ensure!(arena.entry(offset, 1) == PAT_OTHER, "duplicate not read");
            let kept = arena.memory.read(offset + HEADER + 4, 4);
            ensure!(
                kept == 0xdead_beef_u32.to_le_bytes(),
                "reserved field became {kept:x?}"
            );

            // The last duplicate decides.
            let entries = [
                reserved(STAR, 1),
                reserved(PAT, PAT_OTHER),
                reserved(STAR, 3),
            ];
            arena.put(offset, 3, &entries);
            arena.call(side, &guest, Call::Set, offset, "unaligned", Ok(3))?;
            value(side, &guest, STAR, 3)?;
        }
        // KVM ignores the header's padding.
        arena.put(0, 1, &pat(1));
        arena.memory.write(4, &[0xff; 4]);
        arena.call(side, &guest, Call::Get, 0, "padding", Ok(1))?;
    }
    Ok(())
}

fn device(side: &mut Side) -> Result<()> {
    let list = side.kvm().get_msr_feature_index_list()?;
    let mut arena = Arena::new(Abi::Native)?;
    let mut entries: Vec<Entry> = list
        .as_slice()
        .iter()
        .map(|&index| Entry::new(index, 0x55))
        .collect();
    let count = entries.len();

    let call = |side: &mut Side, arena: &Arena, step: &str, expected| {
        let before = arena.memory.read(0, 2 * PAGE);
        let result = ioctl::get_msrs(Abi::Native, side.kvm(), arena.memory.at(0));
        let after = arena.memory.read(0, 2 * PAGE);
        side.note(format!("{step}, written"), changes(&before, &after));
        side.ioctl(step, result, expected)
    };

    arena.put(0, count as u32, &entries);
    call(side, &arena, "feature MSRs", Ok(count as i32))?;
    // Other MSRs that KVM lists read as 0. MSRs that it does not list end the call.
    entries.insert(1, Entry::new(PAT, 0x55));
    arena.put(0, count as u32 + 1, &entries);
    call(side, &arena, "PAT is no feature MSR", Ok(count as i32 + 1))?;
    ensure!(arena.entry(0, 1) == 0, "PAT of /dev/kvm is not 0");
    entries[1].index = NOBODY;
    arena.put(0, count as u32 + 1, &entries);
    call(side, &arena, "unknown MSR", Ok(1))?;
    arena.put(0, TOO_MANY, &entries);
    call(side, &arena, "too many", E2BIG)?;
    let result = ioctl::set_msrs(Abi::Native, side.kvm(), arena.memory.at(0));
    side.note("KVM_SET_MSRS of /dev/kvm", show(result));
    Ok(())
}

fn cet(side: &mut Side) -> Result<()> {
    // U_CET, S_CET, PL0_SSP to PL3_SSP, interrupt SSP table.
    const CET: [u32; 7] = [0x6a0, 0x6a2, 0x6a4, 0x6a5, 0x6a6, 0x6a7, 0x6a8];

    for cpuid in [Cpuid::Full, Cpuid::Empty] {
        let mut guest = side.guest_with(|options| options.cpuid = cpuid)?;
        guest.rdmsr(PAT)?;

        // KVM loads the guest's FPU registers to access them, and must keep their values.
        let mut fpu = guest.vcpu().get_fpu()?;
        fpu.xmm[3] = [0x5a; 16];
        fpu.fpr[2] = [0x11; 16];
        guest.vcpu().set_fpu(&fpu)?;

        for abi in Abi::ALL {
            let mut arena = Arena::new(abi)?;

            for index in CET {
                for data in [0, 1, 4, 0x1000, 0x8000_0000_0000_0000, u64::MAX] {
                    let entries = [
                        Entry::new(PAT, PAT_RESET),
                        Entry::new(index, data),
                        Entry::new(index, data),
                        Entry::new(PAT, PAT_OTHER),
                    ];
                    for call in [Call::Set, Call::Get] {
                        arena.put(0, 4, &entries);
                        let pointer = arena.memory.at(0);
                        let result = match call {
                            Call::Get => ioctl::get_msrs(abi, guest.vcpu(), pointer),
                            Call::Set => ioctl::set_msrs(abi, guest.vcpu(), pointer),
                        };
                        let step = format!("{abi} {call:?} {index:#x} {data:#x}");
                        side.note(&step, show(result));
                        side.note(
                            format!("{step}, entries"),
                            format!("{:#x} {:#x}", arena.entry(0, 1), arena.entry(0, 3)),
                        );
                    }
                }
            }
        }
        let after = guest.vcpu().get_fpu()?;
        ensure!(
            after.xmm == fpu.xmm && after.fpr == fpu.fpr,
            "the guest's FPU registers changed"
        );
        let outcome = guest.rdmsr(PAT)?;
        side.note("the guest runs", outcome);
    }
    Ok(())
}

fn precedence(side: &mut Side) -> Result<()> {
    let guest = side.guest()?;

    for abi in Abi::ALL {
        let mut arena = Arena::new(abi)?;
        let offset = 2 * PAGE - HEADER;

        // E2BIG takes precedence over inaccessible entries.
        for call in [Call::Get, Call::Set] {
            arena.put(offset, TOO_MANY, &[]);
            arena.call(side, &guest, call, offset, "too many and missing", E2BIG)?;
            arena.put(offset, u32::MAX, &[]);
            arena.call(
                side,
                &guest,
                call,
                offset,
                "far too many and missing",
                E2BIG,
            )?;
            arena.put(offset, TOO_MANY - 1, &[]);
            arena.call(side, &guest, call, offset, "missing", EFAULT)?;
        }
    }
    Ok(())
}
