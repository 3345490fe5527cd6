// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Access to tracefs.

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

/// The usual mount point, and the one of older systems.
const USUAL: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
const EVENT: &str = "events/kvm/kvm_msr";
/// The prefix of our instances' names; the process ID follows.
pub const INSTANCE_PREFIX: &str = "kvmsr-";
/// The maximum size that is read: a histogram of 16384 lines has some 2 MiB.
const MAX_SIZE: u64 = 64 << 20;
/// `O_NONBLOCK` on x86 and most others.
const O_NONBLOCK: i32 = 0o4000;

/// The directory of tracefs.
#[derive(Clone, Debug)]
pub struct Tracefs(PathBuf);

impl Tracefs {
    /// tracefs with the tracepoint `kvm:kvm_msr`, in the given directory or in one of the usual
    /// ones.
    ///
    /// # Errors
    ///
    /// [`Error::Missing`] with advice, if it does not exist or can't be used.
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
                "you may not read {}: run this as root (tracing shows all VMs)",
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
                format!("you may not read {}: run this as root", directory.display()),
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

    /// Whether the kernel can count events.
    pub fn has_histograms(&self) -> bool {
        self.0.join(EVENT).join("hist").exists()
    }
}

/// A tracefs instance with its own buffers and triggers, removed when it is dropped.
#[derive(Debug)]
pub(super) struct Instance {
    directory: PathBuf,
}

impl Instance {
    /// Creates one, and removes those of processes that were killed.
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
                    "can't create {shown}: run this as root; if you are, the kernel is locked \
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

    /// Opens the stream of its events, in non-blocking mode. While it is open, the instance can't
    /// be removed.
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
        // Removing the instance undoes all of it, except in very old kernels.
        let _ = write(&self.event("enable"), "0");
        let _ = fs::remove_dir(&self.directory);
    }
}

/// Removes instances whose process has ended. An instance in use can't be removed.
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

/// Writes a command to a file of tracefs.
pub(super) fn write(path: &Path, text: &str) -> Result<()> {
    // Without O_TRUNC, which has an effect on some of these files.
    let mut file = OpenOptions::new()
        .write(true)
        .open(path)
        .map_err(Error::io(format!("open {}", path.display())))?;

    file.write_all(text.as_bytes())
        .map_err(Error::io(format!("write '{text}' to {}", path.display())))
}

/// Reads a file of the kernel.
pub(super) fn read(path: &Path) -> Result<String> {
    let failed = || Error::io::<io::Error>(format!("read {}", path.display()));
    let mut bytes = Vec::new();

    File::open(path)
        .map_err(failed())?
        .take(MAX_SIZE)
        .read_to_end(&mut bytes)
        .map_err(failed())?;
    // The names of threads can contain any bytes.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
