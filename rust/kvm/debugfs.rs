// SPDX-License-Identifier: GPL-2.0

//! Files in a VM's folder below `kvm/` in debugfs.

use super::{
    MsrEngine,
    Section,
    Vm, //
};
use crate::bindings;
use core::marker::PhantomData;
use kernel::{
    module::this_module,
    prelude::*,
    seq_file::SeqFile, //
};

/// What an engine shows of a VM, a file each. The VM may be in use, and have any number of vCPUs.
pub(crate) struct Files<P> {
    /// `msr_engine`: which engine serves the VM.
    pub(crate) engine: fn(&Vm<P>, &SeqFile),
    /// `msr_filter`: the filter, in words.
    pub(crate) filter: fn(&Section<'_, P>, &SeqFile),
    /// `msr_counters`: the sums over all vCPUs.
    pub(crate) counters: fn(&Vm<P>, &SeqFile),
}

/// A file of [`Files`].
trait Show<T: MsrEngine> {
    fn show(vm: &Vm<T::Protected>, to: &SeqFile);
}

struct Engine;
struct Filter;
struct Counters;

impl<T: MsrEngine> Show<T> for Engine {
    fn show(vm: &Vm<T::Protected>, to: &SeqFile) {
        (T::FILES.engine)(vm, to);
    }
}

impl<T: MsrEngine> Show<T> for Filter {
    fn show(vm: &Vm<T::Protected>, to: &SeqFile) {
        (T::FILES.filter)(&vm.read_section(), to);
    }
}

impl<T: MsrEngine> Show<T> for Counters {
    fn show(vm: &Vm<T::Protected>, to: &SeqFile) {
        (T::FILES.counters)(vm, to);
    }
}

/// The file operations of one file.
struct FileOps<T, F>(PhantomData<(T, F)>);

impl<T: MsrEngine, F: Show<T>> FileOps<T, F> {
    const OPS: &'static kernel::bindings::file_operations = &kernel::bindings::file_operations {
        owner: this_module::<T::OwnerModule>().as_ptr(),
        open: Some(Self::open),
        read: Some(kernel::bindings::seq_read),
        llseek: Some(kernel::bindings::seq_lseek),
        release: Some(kernel::bindings::single_release),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// `inode` must be that of a file with a [`Vm`] as private data, and `file` one that is being
    /// opened on it.
    unsafe extern "C" fn open(
        inode: *mut kernel::bindings::inode,
        file: *mut kernel::bindings::file,
    ) -> c_int {
        // SAFETY: By the caller's promise.
        unsafe { kernel::bindings::single_open(file, Some(Self::show), (*inode).i_private) }
    }

    /// # Safety
    ///
    /// `seq` must be a seq file that [`Self::open`] set up, and that this call may use.
    unsafe extern "C" fn show(seq: *mut kernel::bindings::seq_file, _: *mut c_void) -> c_int {
        // SAFETY: `open()` set it to the VM that the file was created for. KVM removes the file
        // before it destroys the VM, and debugfs waits for reads that are under way.
        let vm = unsafe { Vm::from_raw((*seq).private.cast()) };
        // SAFETY: By the caller's promise.
        let seq = unsafe { SeqFile::from_raw(seq) };

        F::show(vm, seq);
        0
    }
}

/// Creates the files. As ever with debugfs, failing to is no error.
pub(super) fn create<T: MsrEngine>(vm: &Vm<T::Protected>) {
    let create = |name: &CStr, ops: &'static kernel::bindings::file_operations| {
        // SAFETY: `vm` is a valid VM whose folder exists, or has an error in its place. The ops
        // expect the VM as private data, which is what they get.
        unsafe {
            bindings::kvm_msr_glue_debugfs_create(
                vm.as_raw(),
                name.as_char_ptr(),
                core::ptr::from_ref(ops).cast(),
            )
        }
    };

    create(c"msr_engine", FileOps::<T, Engine>::OPS);
    create(c"msr_filter", FileOps::<T, Filter>::OPS);
    create(c"msr_counters", FileOps::<T, Counters>::OPS);
}
