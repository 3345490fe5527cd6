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
        Self::with_allocations("N")
    }

    /// Lets only copies fail, and the few allocations that may not sleep.
    pub fn of_copies() -> Result<Self> {
        Self::with_allocations("Y")
    }

    fn with_allocations(ignored: &str) -> Result<Self> {
        for fault in [Fault::Slab, Fault::Pages] {
            write(fault.folder(), "ignore-gfp-wait", ignored)?;
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

/// A function of KVM that fails the first time that the thread calls it in a call.
pub struct FailingFunction<'a> {
    name: &'a str,
}

impl<'a> FailingFunction<'a> {
    const FOLDER: &'static str = "fail_function";

    /// Chooses the function, and what it returns: `-errno`, or 1 if it is one of those that return
    /// 1 for a failed access.
    pub fn new(name: &'a str, errno: i32) -> Result<Self> {
        write(Self::FOLDER, "inject", name)?;
        let function = FailingFunction { name };

        // The attribute is unsigned.
        let value = format!("{:#x}", i64::from(-errno) as u64);
        write(Self::FOLDER, &format!("{name}/retval"), &value)?;
        for (attribute, value) in [
            ("verbose", "0"),
            ("probability", "100"),
            ("interval", "1"),
            ("space", "0"),
            ("task-filter", "Y"),
        ] {
            write(Self::FOLDER, attribute, value)?;
        }
        Ok(function)
    }

    /// Makes the call. Returns its result, and whether the function was called, and so failed.
    pub fn during<T>(&self, call: impl FnOnce() -> T) -> Result<(T, bool)> {
        write(Self::FOLDER, "times", "1")?;
        fs::write(MAKE_IT_FAIL, "1").context(MAKE_IT_FAIL)?;
        let result = call();
        fs::write(MAKE_IT_FAIL, "0").context(MAKE_IT_FAIL)?;
        let left = times(Self::FOLDER)?;

        ensure!(left == 0 || left == 1, "{left} faults are left of one");
        Ok((result, left == 0))
    }
}

impl Drop for FailingFunction<'_> {
    fn drop(&mut self) {
        // Nothing is lost if it stays: it fails for no thread.
        let _ = write(Self::FOLDER, "inject", &format!("!{}", self.name));
    }
}
