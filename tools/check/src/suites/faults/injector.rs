// SPDX-License-Identifier: Apache-2.0 OR MIT

//! The kernel's fault injection (`Documentation/fault-injection/fault-injection.rst`): by the
//! task's `fail-nth` for allocations and copies, and by `fail_function` for KVM's functions.

use std::fs;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Context;
use anyhow::Result;
use anyhow::ensure;

const DEBUGFS: &str = "/sys/kernel/debug";
const FAIL_NTH: &str = "/proc/thread-self/fail-nth";
const MAKE_IT_FAIL: &str = "/proc/thread-self/make-it-fail";

/// What can fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// An allocation of a slab's object.
    Slab,
    /// An allocation of pages.
    Pages,
    /// A copy from or to user space.
    Copy,
}

impl Fault {
    const ALL: [Fault; 3] = [Fault::Slab, Fault::Pages, Fault::Copy];

    fn folder(self) -> &'static str {
        match self {
            Fault::Slab => "failslab",
            Fault::Pages => "fail_page_alloc",
            Fault::Copy => "fail_usercopy",
        }
    }
}

/// Whether the kernel can inject faults.
pub fn possible() -> bool {
    Fault::ALL
        .map(Fault::folder)
        .iter()
        .all(|folder| exists(folder))
        && exists("fail_function")
        && Path::new(FAIL_NTH).exists()
}

fn exists(folder: &str) -> bool {
    Path::new(DEBUGFS).join(folder).exists()
}

fn write(folder: &str, file: &str, value: &str) -> Result<()> {
    let path = Path::new(DEBUGFS).join(folder).join(file);

    fs::write(&path, value).with_context(|| format!("write \"{value}\" to {}", path.display()))
}

/// The number of faults that may still happen.
fn times(folder: &str) -> Result<i32> {
    let path = Path::new(DEBUGFS).join(folder).join("times");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;

    text.trim()
        .parse()
        .with_context(|| format!("{}: {text}", path.display()))
}

/// Makes one of a call's allocations or copies fail. For the thread that has created it.
pub struct Injector {
    fail_nth: File,
}

impl Injector {
    /// Lets allocations and copies fail.
    pub fn new() -> Result<Self> {
        for fault in [Fault::Slab, Fault::Pages] {
            // Those that may sleep fail, too.
            write(fault.folder(), "ignore-gfp-wait", "N")?;
        }
        for fault in Fault::ALL {
            // No stack trace for each.
            write(fault.folder(), "verbose", "0")?;
        }
        Ok(Injector {
            // Opened here, because opening it allocates memory.
            fail_nth: File::options().read(true).write(true).open(FAIL_NTH)?,
        })
    }

    /// Makes the call's allocation or copy number `nth` fail. Returns its result, and what failed:
    /// nothing if there were fewer.
    pub fn nth<T>(&self, nth: u32, call: impl FnOnce() -> T) -> Result<(T, Option<Fault>)> {
        for fault in Fault::ALL {
            // A fault of fail-nth happens regardless of this number, but decrements it.
            write(fault.folder(), "times", "1")?;
        }
        let nth = nth.to_string();

        self.fail_nth.write_at(nth.as_bytes(), 0)?;
        let result = call();
        // This copies from user space, too. If the copy is the one that fails, the call's had not.
        let ended = self.fail_nth.write_at(b"0", 0);

        let mut failed = None;
        if ended.is_ok() {
            for fault in Fault::ALL {
                if times(fault.folder())? == 0 {
                    failed = Some(fault);
                }
            }
        }
        Ok((result, failed))
    }
}

/// Makes the call's copy number `nth` fail, and the one after it: some code tries again in another
/// way. Returns the call's result, and whether a copy failed.
pub fn failing_copy<T>(nth: u32, call: impl FnOnce() -> T) -> Result<(T, bool)> {
    const FOLDER: &str = "fail_usercopy";
    const TIMES: i32 = 2;

    write(FOLDER, "task-filter", "Y")?;
    always(FOLDER)?;
    // The copies before are let through.
    write(FOLDER, "space", &nth.to_string())?;
    write(FOLDER, "times", &TIMES.to_string())?;
    let make_it_fail = File::options().write(true).open(MAKE_IT_FAIL)?;
    make_it_fail.write_at(b"1", 0)?;
    let result = call();

    // These are copies from user space, too.
    let mut later = 0;
    while make_it_fail.write_at(b"0", 0).is_err() {
        later += 1;
        ensure!(later <= TIMES, "{MAKE_IT_FAIL} can't be written");
    }
    let failed = TIMES - times(FOLDER)? - later;

    write(FOLDER, "probability", "0")?;
    Ok((result, failed > 0))
}

/// Lets a fault happen whenever it can.
fn always(folder: &str) -> Result<()> {
    for (attribute, value) in [
        ("verbose", "0"),
        ("interval", "1"),
        ("space", "0"),
        ("probability", "100"),
    ] {
        write(folder, attribute, value)?;
    }
    Ok(())
}

/// A function of KVM that fails the first time that it is called in a call.
///
/// This is so for all threads: the kernel can't tell tasks apart in the exception of a kprobe.
pub struct FailingFunction<'a> {
    name: &'a str,
}

impl<'a> FailingFunction<'a> {
    const FOLDER: &'static str = "fail_function";

    /// Chooses the function, and what it returns: `-errno`, or 1 for the functions for which this
    /// means that an access fails.
    pub fn new(name: &'a str, returns: i32) -> Result<Self> {
        write(Self::FOLDER, "inject", name)?;
        let function = FailingFunction { name };

        // The attribute is unsigned.
        let value = format!("{:#x}", i64::from(returns) as u64);
        write(Self::FOLDER, &format!("{name}/retval"), &value)?;
        write(Self::FOLDER, "times", "0")?;
        always(Self::FOLDER)?;
        Ok(function)
    }

    /// Makes the call. Returns its result, and whether the function was called, and so failed.
    pub fn during<T>(&self, call: impl FnOnce() -> T) -> Result<(T, bool)> {
        write(Self::FOLDER, "times", "1")?;
        let result = call();
        let left = times(Self::FOLDER)?;
        write(Self::FOLDER, "times", "0")?;

        Ok((result, left == 0))
    }
}

impl Drop for FailingFunction<'_> {
    fn drop(&mut self) {
        // Nothing is lost if it stays: it fails no more.
        let _ = write(Self::FOLDER, "inject", &format!("!{}", self.name));
    }
}
