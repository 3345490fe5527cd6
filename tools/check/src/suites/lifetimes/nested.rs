// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Nested state that is saved and restored repeatedly.

use std::fs;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvm_msr_guest::nested::Stop;

use super::setup::Modules;
use super::setup::guest_in_l2;
use super::setup::state_of;

const CYCLES: u32 = 10_000;

/// How much the kernel's slabs may grow for other reasons, in KiB. A leak of the smallest
/// allocation per cycle would be a hundred times more.
const GROWTH: u64 = 512;

/// The size of the kernel's slabs, in KiB.
fn slab() -> Result<u64> {
    // KASAN keeps freed memory, to find later accesses to it, until the cache is shrunk.
    for cache in fs::read_dir("/sys/kernel/slab").context("/sys/kernel/slab")? {
        let shrink = cache?.path().join("shrink");

        fs::write(&shrink, "1").with_context(|| shrink.display().to_string())?;
    }
    let text = fs::read_to_string("/proc/meminfo").context("/proc/meminfo")?;

    text.lines()
        .find_map(|line| {
            line.strip_prefix("Slab:")?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        })
        .context("/proc/meminfo has no Slab")
}

/// Saves and restores nested state repeatedly, also with errors, and tests that no memory leaks.
pub fn save_and_restore(_: &Modules) -> Result<String> {
    let mut guest = guest_in_l2()?;
    let mut wrong = state_of(&guest)?;
    // Makes vmcs12's revision, or vmcb12's CR0 and EFER, invalid.
    // SAFETY: All bit patterns are valid.
    unsafe { wrong.data.vmx.vmcs12.fill(0xa5) };

    let cycle = || -> Result<()> {
        let state = state_of(&guest)?;

        ensure!(
            guest.vcpu().set_nested_state(&wrong).is_err(),
            "an invalid state was accepted"
        );
        guest
            .vcpu()
            .set_nested_state(&state)
            .context("KVM_SET_NESTED_STATE")
    };
    for _ in 0..CYCLES / 10 {
        cycle()?;
    }
    let before = slab()?;
    for _ in 0..CYCLES {
        cycle()?;
    }
    let after = slab()?;

    ensure!(
        after <= before + GROWTH,
        "slabs grew from {before} KiB to {after} KiB"
    );
    let counter = guest.counter();
    guest.run_to(Stop::L2)?;
    ensure!(
        guest.counter() == counter + 1,
        "L2 does not continue to count"
    );
    Ok(format!("{CYCLES} times, slabs {before} KiB to {after} KiB"))
}
