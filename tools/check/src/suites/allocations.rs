// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Makes each allocation of a call fail in turn. This needs the debug kernel's `CONFIG_FAILSLAB`
//! and the task's `fail-nth`.

use std::fs;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use kvm_msr_guest::Errno;
use kvm_msr_guest::ioctl;

const FAIL_NTH: &str = "/proc/thread-self/fail-nth";

/// More than the number of allocations of any call.
const MOST: u32 = 1000;

/// Whether the kernel can make allocations fail.
pub fn possible() -> bool {
    Path::new("/sys/kernel/debug/failslab").exists() && Path::new(FAIL_NTH).exists()
}

/// A call that allocates.
pub trait Call {
    /// Restores the state that the call changes.
    fn reset(&self) -> Result<()>;
    fn call(&self) -> ioctl::Result<()>;
    /// Whether the state is as [`Self::reset`] left it.
    fn unchanged(&self) -> Result<bool>;
}

/// Makes the call's first allocation fail, then the second, and so on. Returns the number of
/// allocations.
pub fn each_fails(call: &impl Call) -> Result<u32> {
    // Opened before, because opening allocates memory.
    let fail_nth = File::options().read(true).write(true).open(FAIL_NTH)?;

    for nth in 1..=MOST {
        call.reset()?;
        let nth_text = nth.to_string();
        let mut left = [0; 16];
        fail_nth.write_at(nth_text.as_bytes(), 0)?;
        let result = call.call();
        fail_nth.read_at(&mut left, 0)?;
        fail_nth.write_at(b"0", 0)?;

        // The counter has not reached 0, so the call made fewer allocations.
        if !left.starts_with(b"0\n") {
            result.context("no allocation failed")?;
            return Ok(nth - 1);
        }
        match result {
            Err(Errno::ENOMEM) => ensure!(
                call.unchanged()?,
                "allocation {nth} failed, but the call changed something"
            ),
            // A failed allocation may be harmless: after kmalloc(), the kernel may try vmalloc().
            Ok(()) => (),
            Err(errno) => bail!("allocation {nth} failed, and the call with {errno}"),
        }
    }
    bail!("more than {MOST} allocations");
}

/// Lets allocations that may sleep fail, without a stack trace for each.
pub fn prepare() -> Result<()> {
    for injector in ["failslab", "fail_page_alloc"] {
        for (attribute, value) in [("ignore-gfp-wait", "N"), ("verbose", "0")] {
            let file = format!("/sys/kernel/debug/{injector}/{attribute}");

            fs::write(&file, value).context(file)?;
        }
    }
    Ok(())
}
