// SPDX-License-Identifier: GPL-2.0

//! `KMSR_BATCH`: gets or sets registers of a vCPU, each with a status of its own.

use super::Attached;
use crate::{
    bindings::{
        self,
        kmsr_entry, //
    },
    engine::{
        access::{
            load,
            read_register,
            reads_simply,
            write_simple,
            Initiator, //
        },
        cpu::{
            Cpuid,
            Mode, //
        },
        exit::{
            Denial,
            UNSUPPORTED, //
        },
        lists::read_feature,
        one_reg,
        registers::{
            lookup,
            Feature,
            Register, //
        },
    },
    kvm::{
        pause,
        user::{
            Sized,
            UserArray, //
        },
        Counter,
        GuestFpu,
        Vcpu,
        VmRef, //
    },
    ops::{
        msrs,
        AccessResult, //
    },
};
use kernel::{
    prelude::*,
    uaccess::UserPtr, //
};

/// The number of entries that are copied at a time.
const CHUNK: usize = 256;

/// Gets or sets the registers, in their order. All entries get a status, unless the batch ends
/// early; `nr_done` is their number in any case.
///
/// # Errors
///
/// `EINVAL` if the operation is undefined; `EFAULT` if an entry can't be read or written; `EINTR`
/// if a signal is pending; `ENODEV` if the VM has ended; `ENOMEM`; and those of
/// [`VmRef::with_vcpu`], [`Sized::read`] and [`Sized::write`].
pub(super) fn batch(attached: &Attached, argp: UserPtr) -> Result {
    let mut arg = Sized::<bindings::kmsr_batch>::read(argp)?;
    let is_set = match arg.value.op {
        bindings::KMSR_BATCH_GET => false,
        bindings::KMSR_BATCH_SET => true,
        _ => return Err(EINVAL),
    };
    let vm = attached.vm()?;
    let mut chunk = KVec::from_elem(kmsr_entry::default(), CHUNK, GFP_KERNEL)?;
    let (vcpu_id, timeout_ms) = (arg.value.vcpu_id, arg.value.timeout_ms);
    let entries = UserArray::<kmsr_entry>::new(arg.value.entries);
    let nr_entries = arg.value.nr_entries as usize;
    let mut nr_done = 0;

    let done = vm.with_vcpu(vcpu_id, timeout_ms, |vcpu| {
        let batch = Batch { vm: &vm, vcpu };

        while nr_done < nr_entries {
            let nr = (nr_entries - nr_done).min(CHUNK);
            let chunk = chunk.get_mut(..nr).ok_or(EINVAL)?;

            entries.read(nr_done, chunk)?;
            batch.access(chunk, is_set);
            entries.write_results(nr_done, chunk)?;
            nr_done += nr;
            pause()?;
        }
        Ok(())
    });

    // It fits: there are no more than `nr_entries`.
    arg.value.nr_done = nr_done as u32;
    arg.write()?;
    done?
}

/// A vCPU whose registers are accessed, and its VM.
struct Batch<'a> {
    vm: &'a VmRef,
    vcpu: &'a Vcpu,
}

impl Batch<'_> {
    /// Accesses the registers of some entries, and stores the status of each.
    fn access(&self, entries: &mut [kmsr_entry], is_set: bool) {
        let _section = self.vcpu.vm().read_section();

        if is_set {
            self.set_all(entries);
        } else {
            self.get_all(entries);
        }
    }

    /// A function of its own so that the loop has the registers to itself.
    #[inline(never)]
    fn get_all(&self, entries: &mut [kmsr_entry]) {
        let mut fpu = None;

        for entry in entries {
            // Most registers are MSRs whose value is only loaded.
            if let Some(data) = msr_of(entry).and_then(|index| self.load(lookup(index))) {
                entry.data = data;
                entry.status = 0;
                continue;
            }
            match self.get(entry, &mut fpu) {
                Ok(data) => {
                    entry.data = data;
                    entry.status = 0;
                }
                Err(error) => entry.status = error.to_errno(),
            }
        }
    }

    /// The value of an MSR that needs no checks.
    #[inline(always)]
    fn load(&self, register: &Register) -> Option<u64> {
        if !reads_simply(self.vcpu, register) {
            return None;
        }
        let data = load(self.vcpu, register)?;

        self.vcpu.count(Counter::HostReads, 1);
        Some(data)
    }

    #[inline(never)]
    fn get<'a>(&'a self, entry: &kmsr_entry, fpu: &mut Option<GuestFpu<'a>>) -> Result<u64> {
        if entry.kind == bindings::KMSR_ENTRY_FEATURE {
            return read_feature(&self.vm.host(), index_of(entry)?).map_err(errno);
        }
        let index = self.index(entry)?;
        let register = lookup(index);

        if register.is_xstate {
            msrs::load_fpu(fpu, self.vcpu, register);
        }
        let read = read_register(self.vcpu, register, index, Initiator::Host);

        self.vcpu.count(Counter::HostReads, 1);
        read.map_err(errno)
    }

    #[inline(never)]
    fn set_all(&self, entries: &mut [kmsr_entry]) {
        let mut fpu = None;

        if !self.vm.is_own() {
            for entry in entries {
                entry.status = status(self.set(entry, false, &mut fpu));
            }
            return;
        }
        for entry in entries {
            entry.status = match self.store(entry) {
                Some(stored) => status(stored.map_err(errno)),
                None => status(self.set(entry, true, &mut fpu)),
            };
        }
    }

    /// Writes an MSR that needs no checks, or returns [`None`].
    #[inline(always)]
    fn store(&self, entry: &kmsr_entry) -> Option<AccessResult> {
        let register = lookup(msr_of(entry)?);
        let stored = write_simple(self.vcpu, register, entry.data, Initiator::Host)?;

        if stored.is_ok() {
            self.vcpu.count(Counter::HostWrites, 1);
        }
        Some(stored)
    }

    #[inline(never)]
    fn set<'a>(
        &'a self,
        entry: &kmsr_entry,
        is_own: bool,
        fpu: &mut Option<GuestFpu<'a>>,
    ) -> Result {
        let index = self.index(entry)?;
        let register = lookup(index);

        // Guest memory is part of the VMM's address space. Leaving nested mode writes to it, too,
        // and writes of some MSRs leave nested mode.
        if !is_own && (register.write.accesses_guest_memory() || self.vcpu.is_nested()) {
            return Err(EIO);
        }
        if register.is_xstate {
            msrs::load_fpu(fpu, self.vcpu, register);
        }
        msrs::write(self.vcpu, register, index, entry.data).map_err(errno)?;
        self.vcpu.count(Counter::HostWrites, 1);
        Ok(())
    }

    /// The index of the MSR that an entry names.
    ///
    /// # Errors
    ///
    /// `EOPNOTSUPP` if the kind is unknown or can't be set, `EINVAL` if it names no register.
    fn index(&self, entry: &kmsr_entry) -> Result<u32> {
        match entry.kind {
            bindings::KMSR_ENTRY_MSR => index_of(entry),
            bindings::KMSR_ENTRY_REG => {
                let index = one_reg::msr_of(entry.id, || self.vcpu.has(Feature::ShadowStack));

                Ok(index?)
            }
            _ => Err(EOPNOTSUPP),
        }
    }
}

/// The status of an entry.
#[inline(always)]
fn status(result: Result) -> i32 {
    result.map_or_else(Error::to_errno, |()| 0)
}

/// The error of a denied access: KVM's errno if there is one, else whether the MSR exists.
fn errno(denial: Denial) -> Error {
    match denial {
        UNSUPPORTED => ENOENT,
        denial if denial.get() < 0 => Error::from_errno(denial.get() as c_int),
        _ => EINVAL,
    }
}

/// The index of the MSR that an entry's ID is.
///
/// # Errors
///
/// `EINVAL` if it is not one.
fn index_of(entry: &kmsr_entry) -> Result<u32> {
    Ok(u32::try_from(entry.id)?)
}

/// The index of an entry that is an MSR.
#[inline(always)]
fn msr_of(entry: &kmsr_entry) -> Option<u32> {
    if entry.kind != bindings::KMSR_ENTRY_MSR {
        return None;
    }
    index_of(entry).ok()
}
