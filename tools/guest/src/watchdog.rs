// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Interrupts a thread whose vCPU runs for too long, e.g. in an endless loop.

use std::ffi::c_int;
use std::ffi::c_void;
use std::io;
use std::mem::MaybeUninit;
use std::sync::Once;
use std::time::Duration;

use libc::siginfo_t;
use vmm_sys_util::signal::register_signal_handler;

extern "C" fn ignore(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}

/// A timer that sends SIGALRM to the thread that made it.
///
/// # Invariants
///
/// `timer` is a timer that this object owns.
#[derive(Debug)]
pub struct Watchdog {
    timer: libc::timer_t,
    longest: Duration,
}

impl Watchdog {
    /// A watchdog of this thread, for calls that must not take longer. The first watchdog gives SIGALRM
    /// a handler that does nothing.
    pub fn new(longest: Duration) -> io::Result<Self> {
        static HANDLER: Once = Once::new();
        let mut registered = Ok(());

        HANDLER.call_once(|| registered = register_signal_handler(libc::SIGALRM, ignore));
        registered?;

        // SAFETY: Zeroes are valid for all members.
        let mut event: libc::sigevent = unsafe { MaybeUninit::zeroed().assume_init() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = libc::SIGALRM;
        event.sigev_notify_thread_id = rustix::thread::gettid().as_raw_pid();
        let mut timer = std::ptr::null_mut();
        // SAFETY: Both pointers are valid, and the signal has a handler.
        match unsafe { libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) } {
            0 => Ok(Watchdog { timer, longest }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// How long a call may take.
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// Makes a call, and sends the signal if it takes longer.
    pub fn watch<T>(&self, call: impl FnOnce() -> T) -> T {
        self.set(self.longest);
        let result = call();
        self.set(Duration::ZERO);
        result
    }

    /// Sets the timer; with zero, stops it.
    fn set(&self, after: Duration) {
        // Again and again, in case that the first signal comes just before the system call.
        let time = libc::timespec {
            tv_sec: after.as_secs() as libc::time_t,
            tv_nsec: after.subsec_nanos().into(),
        };
        let times = libc::itimerspec {
            it_interval: time,
            it_value: time,
        };

        // SAFETY: By the type invariant, the timer is this object's, and the pointer to the times is valid.
        unsafe { libc::timer_settime(self.timer, 0, &times, std::ptr::null_mut()) };
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // SAFETY: By the type invariant, the timer is this object's.
        unsafe { libc::timer_delete(self.timer) };
    }
}
