// SPDX-License-Identifier: Apache-2.0 OR MIT

//! Errors that say what to do.

use std::io;

/// An error.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An ioctl of KVM failed.
    #[error("{ioctl}: {source}")]
    Kvm {
        /// The ioctl's name, e.g. `KVM_CREATE_VM`.
        ioctl: &'static str,
        /// Its error.
        source: io::Error,
    },
    /// Another operation failed.
    #[error("{what}: {source}")]
    Io {
        /// The operation, with the file's name if there is one.
        what: String,
        /// Its error.
        source: io::Error,
    },
    /// The input is invalid.
    #[error("{0}")]
    Input(String),
    /// `/dev/kvm-msr`, or an ioctl of it, failed.
    #[error(transparent)]
    Device(#[from] crate::device::Error),
    /// This host lacks something that is needed.
    #[error("{0}")]
    Missing(String),
}

/// A result with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// For use as `.map_err(Error::kvm("KVM_RUN"))`.
    pub fn kvm<E: Into<io::Error>>(ioctl: &'static str) -> impl FnOnce(E) -> Error {
        move |error| Error::Kvm {
            ioctl,
            source: error.into(),
        }
    }

    /// For use as `.map_err(Error::io("read /proc/cpuinfo"))`.
    pub fn io<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Error {
        let what = what.into();

        move |error| Error::Io {
            what,
            source: error.into(),
        }
    }
}
