// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Which of the kernel's code a thread's system calls run through, see `Documentation/dev-tools/kcov.rst`.

use std::fs::File;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use rustix::mm;
use rustix::mm::MapFlags;
use rustix::mm::ProtFlags;

use self::number::*;
use crate::ioctl::Errno;
use crate::memory::PAGE;

/// Request numbers.
mod number {
    use vmm_sys_util::ioctl_io_nr;
    use vmm_sys_util::ioctl_ior_nr;

    ioctl_ior_nr!(KCOV_INIT_TRACE, b'c' as u32, 1, u64);
    ioctl_io_nr!(KCOV_ENABLE, b'c' as u32, 100);
}

const KCOV_TRACE_PC: libc::c_ulong = 0;

const PATH: &str = "/sys/kernel/debug/kcov";

/// The trace of the thread that started it.
///
/// # Invariants
///
/// `words` is the start of a shared mapping of `length` 64-bit words that this object owns.
#[derive(Debug)]
pub struct Trace {
    words: NonNull<AtomicU64>,
    length: usize,
    _file: File,
    // The kernel traces one thread, so others must not end the trace.
    thread: PhantomData<*const ()>,
}

impl Trace {
    /// Traces this thread from now on, with this many pages of addresses; none if the kernel has no
    /// kcov.
    pub fn start(pages: usize) -> io::Result<Option<Self>> {
        if !Path::new(PATH).exists() {
            return Ok(None);
        }
        let file = File::options().read(true).write(true).open(PATH)?;
        // The first word counts the addresses after it.
        let length = pages * PAGE / size_of::<u64>();
        let call = |request, argument: libc::c_ulong| {
            // SAFETY: These ioctls take numbers.
            match unsafe { libc::ioctl(file.as_raw_fd(), request as _, argument) } {
                0 => Ok(()),
                _ => Err(io::Error::from_raw_os_error(Errno::last().0)),
            }
        };

        call(KCOV_INIT_TRACE(), length as libc::c_ulong)?;
        // SAFETY: A mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe {
            mm::mmap(
                std::ptr::null_mut(),
                length * size_of::<u64>(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )
        }?;
        let words = NonNull::new(base.cast()).ok_or(io::ErrorKind::InvalidData)?;
        let trace = Trace {
            words,
            length,
            thread: PhantomData,
            _file: file.try_clone()?,
        };
        call(KCOV_ENABLE(), KCOV_TRACE_PC)?;
        Ok(Some(trace))
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        assert!(at < self.length);
        // SAFETY: By the type invariant, the word is in the mapping. All accesses to it, the
        // kernel's too, are of whole words.
        unsafe { self.words.add(at).as_ref() }
    }

    /// Calls `each` with the addresses since the last call, in their order, and forgets them.
    pub fn take(&mut self, mut each: impl FnMut(u64)) {
        let count = (self.word(0).load(Ordering::Relaxed) as usize).min(self.length - 1);

        for at in 1..=count {
            each(self.word(at).load(Ordering::Relaxed));
        }
        self.word(0).store(0, Ordering::Relaxed);
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, the mapping is this object's. The kernel stops the trace
        // when the file is closed.
        let _ = unsafe { mm::munmap(self.words.as_ptr().cast(), self.length * size_of::<u64>()) };
    }
}
