// SPDX-License-Identifier: GPL-2.0

//! Files in a VM's folder below `kvm/` in debugfs.

use super::Vm;
use crate::bindings;
use core::marker::PhantomData;
use kernel::{
    module::{
        this_module,
        ModuleMetadata, //
    },
    prelude::*,
    seq_file::SeqFile, //
};

/// A file about a VM, which may be in use while it is shown.
pub(crate) trait File {
    /// The module that shows it.
    type OwnerModule: ModuleMetadata;
    /// What the engine keeps for a VM.
    type Protected: Send + Sync;

    /// The file's name.
    const NAME: &'static CStr;

    /// Writes the file's contents.
    fn show(vm: &Vm<Self::Protected>, to: &SeqFile);
}

/// The file operations of a file.
struct FileOps<F>(PhantomData<F>);

impl<F: File> FileOps<F> {
    const OPS: &'static kernel::bindings::file_operations = &kernel::bindings::file_operations {
        owner: this_module::<F::OwnerModule>().as_ptr(),
        open: Some(Self::open),
        read: Some(kernel::bindings::seq_read),
        llseek: Some(kernel::bindings::seq_lseek),
        release: Some(kernel::bindings::single_release),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// `inode` must be that of a file that [`Vm::create_file`] made, and `file` be opened on it.
    unsafe extern "C" fn open(
        inode: *mut kernel::bindings::inode,
        file: *mut kernel::bindings::file,
    ) -> c_int {
        // SAFETY: The VFS opens a valid file of a valid inode.
        unsafe { kernel::bindings::single_open(file, Some(Self::show), (*inode).i_private) }
    }

    /// # Safety
    ///
    /// `seq` must be a seq file that [`Self::open`] set up, for the use of this call.
    unsafe extern "C" fn show(seq: *mut kernel::bindings::seq_file, _: *mut c_void) -> c_int {
        // SAFETY: `open()` set the private data to the VM that the file was created for. KVM removes
        // the file before it destroys the VM, and debugfs waits for reads that are in progress.
        let vm = unsafe { Vm::from_raw((*seq).private.cast()) };
        // SAFETY: seq_read() passes a valid seq file, and nobody else uses it during the call.
        let seq = unsafe { SeqFile::from_raw(seq) };

        F::show(vm, seq);
        0
    }
}

impl<P: Send + Sync> Vm<P> {
    /// Creates a file. As usual with debugfs, failure to do so is not an error.
    pub(crate) fn create_file<F: File<Protected = P>>(&self) {
        // SAFETY: The VM is valid, and its folder exists or has an error in its place. The ops
        // expect the VM as private data, and get it.
        unsafe {
            bindings::kvm_msr_glue_debugfs_create(
                self.as_raw(),
                F::NAME.as_char_ptr(),
                core::ptr::from_ref(FileOps::<F>::OPS).cast(),
            )
        };
    }
}
