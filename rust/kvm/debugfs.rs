// SPDX-License-Identifier: GPL-2.0

//! Files in a VM's folder below `kvm/` in debugfs.

use super::Vm;
use crate::{
    bindings,
    LocalModule, //
};
use core::marker::PhantomData;
use kernel::{
    module::this_module,
    prelude::*,
    seq_file::SeqFile, //
};

/// A debugfs file of a VM. Its contents are computed when it is read, while the VM may be running.
pub(crate) trait File {
    /// The file's name.
    const NAME: &'static CStr;

    /// Writes the file's contents.
    fn show(vm: &Vm, to: &SeqFile);
}

/// The file operations of a file.
struct FileOps<F>(PhantomData<F>);

impl<F: File> FileOps<F> {
    const OPS: &'static kernel::bindings::file_operations = &kernel::bindings::file_operations {
        owner: this_module::<LocalModule>().as_ptr(),
        open: Some(Self::open),
        read: Some(kernel::bindings::seq_read),
        llseek: Some(kernel::bindings::seq_lseek),
        release: Some(kernel::bindings::single_release),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// `inode` must belong to a file that [`Vm::create_file`] created, and `file` must be an open
    /// file of that inode.
    unsafe extern "C" fn open(
        inode: *mut kernel::bindings::inode,
        file: *mut kernel::bindings::file,
    ) -> c_int {
        // SAFETY: The VFS passes a valid file and its valid inode.
        unsafe { kernel::bindings::single_open(file, Some(Self::show), (*inode).i_private) }
    }

    /// # Safety
    ///
    /// `seq` must be a seq file that [`Self::open`] set up, and nobody else may use it during the
    /// call.
    unsafe extern "C" fn show(seq: *mut kernel::bindings::seq_file, _: *mut c_void) -> c_int {
        // SAFETY: `open()` set the private data to the VM of the file. KVM removes the file before
        // it destroys the VM, and debugfs waits for reads that are in progress.
        let vm = unsafe { Vm::from_raw((*seq).private.cast()) };
        // SAFETY: seq_read() passes a valid seq file, and nobody else uses it during the call.
        let seq = unsafe { SeqFile::from_raw(seq) };

        F::show(vm, seq);
        0
    }
}

impl Vm {
    /// Creates a file. As usual with debugfs, failure to do so is not an error.
    pub(crate) fn create_file<F: File>(&self) {
        // SAFETY: `self` is a valid VM. debugfs ignores the call if KVM could not create the VM's
        // folder. The file operations expect the VM as private data, which is what the function
        // sets.
        unsafe {
            bindings::kvm_msr_glue_debugfs_create(
                self.as_raw(),
                F::NAME.as_char_ptr(),
                core::ptr::from_ref(FileOps::<F>::OPS).cast(),
            )
        };
    }
}
