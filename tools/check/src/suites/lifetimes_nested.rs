// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Nested state that is saved and restored again and again.

use std::fs;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;
use kvm_ioctls::Kvm;
use kvm_ioctls::KvmNestedStateBuffer;
use kvm_msr_guest::Engine;
use kvm_msr_guest::nested::Nested;
use kvm_msr_guest::nested::Options;
use kvm_msr_guest::nested::Stop;

use super::lifetimes::Modules;

const CYCLES: u32 = 10_000;

/// What the kernel may take meanwhile for whatever else, in KiB: a hundredth of
/// what a leak of the smallest allocation would come to.
const GROWTH: u64 = 512;

/// A guest of the engine that runs L2.
pub fn guest_in_l2() -> Result<Nested> {
    let kvm = Kvm::new().context("open /dev/kvm")?;
    let mut guest = Nested::new(&kvm, Options::new(Engine::Rust))?;

    guest.run_to(Stop::L2)?;
    Ok(guest)
}

/// The state that a guest is in.
pub fn state_of(guest: &Nested) -> Result<KvmNestedStateBuffer> {
    let mut state = KvmNestedStateBuffer::empty();

    guest
        .vcpu()
        .nested_state(&mut state)
        .context("KVM_GET_NESTED_STATE")?;
    Ok(state)
}

/// What the kernel has in slabs, in KiB.
fn slab() -> Result<u64> {
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

/// Saves and restores, and fails to restore, and leaves no more behind than at first.
pub fn save_and_restore(_: &Modules) -> Result<String> {
    let mut guest = guest_in_l2()?;
    let mut wrong = state_of(&guest)?;
    // Neither vmcs12's revision nor vmcb12's CR0 and EFER survive that.
    // SAFETY: All bit patterns are valid.
    unsafe { wrong.data.vmx.vmcs12.fill(0xa5) };

    let cycle = || -> Result<()> {
        let state = state_of(&guest)?;

        ensure!(
            guest.vcpu().set_nested_state(&wrong).is_err(),
            "it is wrong"
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
    ensure!(guest.counter() == counter + 1, "L2 does not count on");
    Ok(format!("{CYCLES} times, slabs {before} KiB to {after} KiB"))
}
