// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Where the kernel is told what to trace.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

use crate::error::Error;
use crate::error::Result;

/// Where it is usually mounted, and where older systems have it.
const USUAL: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
const EVENT: &str = "events/kvm/kvm_msr";
/// How the names of our instances begin; the number of the process follows.
pub const INSTANCE_PREFIX: &str = "kvmsr-";
/// What is read of a file at most: a histogram of 16384 lines has some 2 MiB.
const MAX_SIZE: u64 = 64 << 20;
/// `O_NONBLOCK` on x86 and most others.
const O_NONBLOCK: i32 = 0o4000;

/// The directory of tracefs.
#[derive(Clone, Debug)]
pub struct Tracefs(PathBuf);

impl Tracefs {
    /// tracefs with the tracepoint `kvm:kvm_msr`, in a directory or, if none is given, in the
    /// usual ones.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] if it is not there or may not be used, with what to do.
    pub fn find(given: Option<&Path>) -> Result<Self> {
        let places: Vec<&Path> = match given {
            Some(given) => vec![given],
            None => USUAL.iter().map(Path::new).collect(),
        };
        let mut forbidden = None;

        for place in &places {
            match fs::metadata(place.join("instances")) {
                Ok(_) => return Self::with_event(place),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    forbidden = forbidden.or(Some(place));
                }
                Err(_) => {}
            }
        }
        Err(Error::Missing(match (forbidden, given) {
            (Some(place), _) => format!(
                "{} may not be read: run this as root (tracing shows what all VMs do)",
                place.display()
            ),
            (None, Some(given)) => format!("{} is not tracefs", given.display()),
            (None, None) => format!(
                "tracefs is not mounted: mount -t tracefs tracefs {} (the kernel needs \
                 CONFIG_FTRACE and KVM's tracepoints)",
                USUAL[0]
            ),
        }))
    }

    fn with_event(directory: &Path) -> Result<Self> {
        match fs::metadata(directory.join(EVENT)) {
            Ok(_) => Ok(Tracefs(directory.to_owned())),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Error::Missing(
                format!("{} may not be read: run this as root", directory.display()),
            )),
            Err(_) => Err(Error::Missing(format!(
                "the kernel has no tracepoint kvm:kvm_msr (no {}): load kvm-amd or kvm-intel \
                 (modprobe)",
                directory.join(EVENT).display()
            ))),
        }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// Whether the kernel can count the events itself.
    pub fn has_histograms(&self) -> bool {
        self.0.join(EVENT).join("hist").exists()
    }
}

/// A set of buffers and triggers of our own; it is removed when it is dropped.
#[derive(Debug)]
pub(super) struct Instance {
    directory: PathBuf,
}

impl Instance {
    /// Makes one, and removes those of processes that were killed.
    pub fn new(tracefs: &Tracefs) -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let instances = tracefs.directory().join("instances");
        let process = std::process::id();
        let directory = instances.join(match MADE.fetch_add(1, Ordering::Relaxed) {
            0 => format!("{INSTANCE_PREFIX}{process}"),
            number => format!("{INSTANCE_PREFIX}{process}-{number}"),
        });

        remove_orphans(&instances);
        fs::create_dir(&directory).map_err(|error| {
            let shown = directory.display();

            match error.kind() {
                io::ErrorKind::PermissionDenied => Error::Missing(format!(
                    "{shown} can't be made: run this as root; if you are, the kernel is locked \
                     down (/sys/kernel/security/lockdown)"
                )),
                _ => Error::Io {
                    what: format!("make {shown}"),
                    source: error,
                },
            }
        })?;
        Ok(Instance { directory })
    }

    /// The path of one of its files.
    pub fn path(&self, file: &str) -> PathBuf {
        self.directory.join(file)
    }

    /// The path of one of the event's files.
    pub fn event(&self, file: &str) -> PathBuf {
        self.directory.join(EVENT).join(file)
    }

    /// Opens the stream of its events, reads of which don't wait. As long as it is open, nobody
    /// can remove the instance.
    pub fn open_pipe(&self) -> Result<File> {
        let path = self.path("trace_pipe");

        OpenOptions::new()
            .read(true)
            .custom_flags(O_NONBLOCK)
            .open(&path)
            .map_err(Error::io(format!("open {}", path.display())))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // All of it is undone by the removal as well, in kernels that are not too old.
        let _ = write(&self.event("enable"), "0");
        let _ = fs::remove_dir(&self.directory);
    }
}

/// Removes instances whose process is gone. One that is in use can't be removed.
fn remove_orphans(instances: &Path) {
    for entry in fs::read_dir(instances).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name
            .to_str()
            .and_then(|name| name.strip_prefix(INSTANCE_PREFIX))
            .and_then(|rest| rest.split('-').next())
            .and_then(|number| number.parse::<u32>().ok());

        if process.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

/// Writes a command into one of tracefs's files.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    // Without O_TRUNC, which clears some of these files.
    let mut file = OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(Error::io(format!("open {}", path.display())))?;

    file.write_all(text.as_bytes())
        .map_err(Error::io(format!("write '{text}' to {}", path.display())))
}

/// Reads one of the kernel's files.
pub(super) fn read(path: &Path) -> Result<String> {
    let failed = || Error::io::<io::Error>(format!("read {}", path.display()));
    let mut bytes = Vec::new();

    File::open(path)
        .map_err(failed())?
        .take(MAX_SIZE)
        .read_to_end(&mut bytes)
        .map_err(failed())?;
    // The names of threads are any bytes.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
