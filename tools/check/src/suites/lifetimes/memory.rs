// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Makes the allocations and copies of KVM's ioctls fail.

use anyhow::Result;
use anyhow::ensure;
use kvm_bindings::KVM_MSR_EXIT_REASON_FILTER;
use kvm_bindings::Msrs;
use kvm_bindings::kvm_msr_entry;
use kvm_ioctls::Kvm;
use kvm_ioctls::KvmNestedStateBuffer;
use kvm_msr_guest::Engine;
use kvm_msr_guest::Filter;
use kvm_msr_guest::Guest;
use kvm_msr_guest::Range;
use kvm_msr_guest::filter::READ;
use kvm_msr_guest::ioctl;
use kvm_msr_guest::msrs;
use kvm_msr_guest::nested::Nested;
use kvm_msr_guest::nested::Vendor;

use super::setup::Modules;
use super::setup::PAT;
use super::setup::guest;
use super::setup::guest_in_l2;
use super::setup::state_of;
use crate::suites::faults::Call;
use crate::suites::faults::each_fails;
use crate::suites::filter_guest::NOBODY;

/// KVM_STATE_NESTED_RUN_PENDING
const RUN_PENDING: u16 = 1 << 1;

struct SetFilter<'a> {
    guest: &'a Guest,
    old: Filter,
    new: Filter,
}

impl Call for SetFilter<'_> {
    fn reset(&self) -> Result<()> {
        Ok(self.old.set(&self.guest.vm_fd()?)?)
    }

    fn call(&self) -> ioctl::Result<()> {
        self.new.set(self.guest.vm())
    }

    fn unchanged(&self) -> Result<bool> {
        let now = self.guest.folder().filter()?;

        self.reset()?;
        Ok(now == self.guest.folder().filter()?)
    }
}

/// Enough entries that the ioctl allocates memory for them.
const ENTRIES: usize = 16;

fn entries(data: u64) -> Msrs {
    let entry = kvm_msr_entry {
        index: PAT,
        data,
        ..Default::default()
    };

    Msrs::from_entries(&[entry; ENTRIES]).expect("there are few")
}

struct GetMsrs<'a>(&'a Guest);

impl Call for GetMsrs<'_> {
    fn reset(&self) -> Result<()> {
        Ok(())
    }

    fn call(&self) -> ioctl::Result<()> {
        self.0.vcpu().get_msrs(&mut entries(0))?;
        Ok(())
    }

    fn unchanged(&self) -> Result<bool> {
        Ok(true)
    }

    // If the values alone can't be written, all of the entries are.
    fn repeats_copies(&self) -> bool {
        true
    }
}

struct SetMsrs<'a>(&'a Guest);

impl SetMsrs<'_> {
    const OLD: u64 = 0x0007_0406_0007_0406;
    const NEW: u64 = 6;
}

impl Call for SetMsrs<'_> {
    fn reset(&self) -> Result<()> {
        ensure!(
            msrs::set(self.0.vcpu(), PAT, Self::OLD)?,
            "PAT refuses a value"
        );
        Ok(())
    }

    fn call(&self) -> ioctl::Result<()> {
        self.0.vcpu().set_msrs(&entries(Self::NEW))?;
        Ok(())
    }

    fn unchanged(&self) -> Result<bool> {
        Ok(msrs::get(self.0.vcpu(), PAT)? == Some(Self::OLD))
    }
}

struct GetNested<'a>(&'a Nested);

impl Call for GetNested<'_> {
    fn reset(&self) -> Result<()> {
        Ok(())
    }

    fn call(&self) -> ioctl::Result<()> {
        let mut state = KvmNestedStateBuffer::empty();

        self.0.vcpu().nested_state(&mut state)?;
        Ok(())
    }

    fn unchanged(&self) -> Result<bool> {
        Ok(true)
    }
}

/// KVM_SET_NESTED_STATE, from a state in L2 to a state that is about to run L2.
struct SetNested<'a> {
    guest: &'a Nested,
    old: KvmNestedStateBuffer,
    new: KvmNestedStateBuffer,
}

impl Call for SetNested<'_> {
    fn reset(&self) -> Result<()> {
        Ok(self.guest.vcpu().set_nested_state(&self.old)?)
    }

    fn call(&self) -> ioctl::Result<()> {
        Ok(self.guest.vcpu().set_nested_state(&self.new)?)
    }

    fn unchanged(&self) -> Result<bool> {
        // On VMX, a late failure leaves VMX operation or L2, as in C.
        Ok(self.guest.vendor() == Vendor::Vmx || state_of(self.guest)?.flags == self.old.flags)
    }
}

struct CreateVm(Kvm);

impl Call for CreateVm {
    fn reset(&self) -> Result<()> {
        Ok(())
    }

    fn call(&self) -> ioctl::Result<()> {
        self.0.create_vm()?;
        Ok(())
    }

    fn unchanged(&self) -> Result<bool> {
        Ok(true)
    }
}

/// If an allocation fails, each call succeeds without it, or fails with `ENOMEM` and changes
/// nothing. If a copy fails, it fails with `EFAULT` and changes nothing.
pub fn faults(_: &Modules) -> Result<String> {
    let mut guest = guest(Engine::Rust)?;
    guest.deflect(KVM_MSR_EXIT_REASON_FILTER)?;
    // A short range first: its bitmap moves when a range with a long one is added.
    let mut new = Filter::deny_by_default().with(Range::allow(READ, NOBODY, 64));
    for i in 1..16 {
        new = new.with(Range::allow(READ, NOBODY + 0x4000 * i, 0x3000));
    }

    let create = each_fails(&CreateVm(Kvm::new()?))?;
    let set_filter = each_fails(&SetFilter {
        guest: &guest,
        old: Filter::allow_by_default().with(Range::deny(READ, NOBODY, 7)),
        new,
    })?;
    let get = each_fails(&GetMsrs(&guest))?;
    let set = each_fails(&SetMsrs(&guest))?;
    let nested = guest_in_l2()?;
    let old = state_of(&nested)?;
    let mut new = old;
    new.flags |= RUN_PENDING;
    let get_nested = each_fails(&GetNested(&nested))?;
    let set_nested = each_fails(&SetNested {
        guest: &nested,
        old,
        new,
    })?;

    ensure!(create.allocations > 10, "a VM allocates a lot");
    ensure!(
        set_filter.allocations > 1,
        "a filter with long bitmaps allocates at least twice"
    );
    for (name, faults) in [("KVM_GET_MSRS", get), ("KVM_SET_MSRS", set)] {
        ensure!(
            faults.allocations > 0 && faults.copies > 1,
            "{name} copies a length, and a list that it allocates, but {faults}"
        );
    }
    ensure!(set_nested.allocations > 0, "nested state is allocated");
    ensure!(
        guest.rdmsr(NOBODY + 0x3000)?.user_space().is_some(),
        "the last filter is in force"
    );
    Ok(format!(
        "allocations+copies: {create} of a VM, {set_filter} of a filter, {get} of KVM_GET_MSRS, \
         {set} of KVM_SET_MSRS, {get_nested} of KVM_GET_NESTED_STATE, {set_nested} of \
         KVM_SET_NESTED_STATE"
    ))
}
